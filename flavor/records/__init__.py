"""What the project speaks of: names, states, runs, rounds, clients, updates. Plain values that know no server."""
