"""Change a model: match a plan, replace its norms."""
