"""Gradient scale and the number of groups. NumPy only."""
