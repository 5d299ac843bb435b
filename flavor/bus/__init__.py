"""All code that uses Redis: keys, events, leases, runs, connections and the embedded server."""
