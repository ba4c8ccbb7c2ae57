"""Where group norm is used for a reason: arms that are stated beforehand, their runs and what came out."""
