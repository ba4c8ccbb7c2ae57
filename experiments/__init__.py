"""Experiments on the library: each keeps its records and reports beside its code. Not part of the installed package."""
