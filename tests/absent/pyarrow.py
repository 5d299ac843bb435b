"""In the place of a pyarrow that is not installed."""

raise ImportError("pyarrow is not installed")
