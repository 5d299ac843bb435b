"""Environment variables and defaults, for programs that must not wait for an import of redis or of a page's server."""

URL_VARIABLE = "FLAVOR_REDIS_URL"
JOIN_VARIABLE = "FLAVOR_JOIN"
NOTIFY_VARIABLE = "FLAVOR_NOTIFY"
"""Read by the programs that send notices. It holds secrets, one on each line."""
UI_TOKEN_VARIABLE = "FLAVOR_UI_TOKEN"
METRICS_TOKEN_VARIABLE = "FLAVOR_METRICS_TOKEN"
INSECURE_VARIABLE = "FLAVOR_INSECURE"
PATIENCE_VARIABLE = "FLAVOR_PATIENCE_S"
"""How long to wait for a server that is away, in seconds. An edge sets it for its training script."""
PATIENCE_S = 180.0
"""Default of the longest outage that is waited out: a server's restart of a minute, and the loading of its data."""
