"""Fit γ, β and eps of converted layers to what the layers of a trained network put out, without labels or training."""
