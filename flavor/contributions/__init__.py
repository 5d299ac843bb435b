"""Which site helps a run, and which one hurts: from the updates in the store, and by a command that judges models."""
