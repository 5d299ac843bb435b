"""Rounds: the pure decisions, and the loop that acts on them."""
