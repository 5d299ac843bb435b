"""What people and programs see of a run: its events, its log, and a snapshot of it."""
