"""What `check-fl` and `check-agg` verify: each check a small named thing with a hint."""
