"""What a run leaves for people: models, information of sites, metrics as tables and plot, a summary."""
