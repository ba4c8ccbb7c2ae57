"""Which layers normalize over channels."""
