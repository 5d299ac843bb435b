"""What a run does next, decided from plain values."""
