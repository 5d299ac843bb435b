"""The result folder of a run: models, client information, metrics as tables and plot, a summary."""
