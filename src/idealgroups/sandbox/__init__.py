"""Run somebody else's model without a trace."""
