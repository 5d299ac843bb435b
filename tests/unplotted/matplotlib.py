"""In the place of a matplotlib that is not installed."""

raise ImportError("matplotlib is not installed")
