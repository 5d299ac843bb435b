"""What `check-fl` verifies of a training script: each check a small named thing with a hint."""
