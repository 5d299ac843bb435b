"""Names of the environment variables that may hold a secret, for whoever must not wait for the rest of the bus."""

URL_VARIABLE = "FLAVOR_REDIS_URL"
JOIN_VARIABLE = "FLAVOR_JOIN"
