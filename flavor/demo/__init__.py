"""`flavor demo`: handwritten digits, split so that no site alone can learn all ten."""
