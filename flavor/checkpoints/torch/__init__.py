"""Files of `torch.save`, read and written without torch: its import takes over a second and 200 MB in each process."""
