"""Names of the environment variables that can hold a secret, for programs that must not wait for other imports."""

URL_VARIABLE = "FLAVOR_REDIS_URL"
JOIN_VARIABLE = "FLAVOR_JOIN"
