"""Draw results with matplotlib, which may be missing: import these modules where something is drawn."""
