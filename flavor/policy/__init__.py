"""What a run does next: pure decisions, the words of their reasons, and where each client stands."""
