"""The checks of `check-fl` and `check-agg`: each has a name, a statement that it verifies, and a hint."""
