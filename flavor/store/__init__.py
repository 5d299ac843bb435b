"""All that knows bytes at rest: object paths, stores, checkpoint formats."""
