"""All that knows bytes at rest: object paths, stores and info.json."""
