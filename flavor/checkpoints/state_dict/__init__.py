"""A trainer's `state_dict`: how its tensors are nested and named, and what stands beside it in the same file."""
