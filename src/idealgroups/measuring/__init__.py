"""Forward and backward passes on a prepared copy."""
