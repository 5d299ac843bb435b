"""All that knows Redis: keys, events, leases, runs, connections and the embedded server."""
