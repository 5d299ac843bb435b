"""In the place of a pandas that is not installed."""

raise ImportError("pandas is not installed")
