"""The trainer's side: `flavor.cook.utils`."""
