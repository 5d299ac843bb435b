"""Environment variables and defaults of the bus, for programs that must not wait for the import of redis."""

URL_VARIABLE = "FLAVOR_REDIS_URL"
JOIN_VARIABLE = "FLAVOR_JOIN"
NOTIFY_VARIABLE = "FLAVOR_NOTIFY"
"""Read by the programs that send notices. It holds secrets, one on each line."""
INSECURE_VARIABLE = "FLAVOR_INSECURE"
PATIENCE_S = 180.0
"""Default of the longest outage that is waited out: a server's restart of a minute, and the loading of its data."""
