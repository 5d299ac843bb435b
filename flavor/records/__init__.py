"""The project's records: names, states, runs, rounds, clients, updates. Plain values without a connection."""
