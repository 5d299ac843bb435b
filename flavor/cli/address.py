"""Makes one address of the options for Redis."""

from __future__ import annotations

from typing import Any

_OF_ADDRESS = ("tls_ca", "tls_cert", "tls_key", "insecure")


def with_address(options: dict[str, Any]) -> dict[str, Any]:
    """Replace a command's options for Redis by one `redis_url` with the whole address; leave other options alone."""
    from flavor.bus.address import bus_address, url_of

    if "tls_ca" not in options:
        return options
    given = {name: options[name] for name in _OF_ADDRESS}
    url = None if options.get("join") else options.get("redis_url")  # a join token names the bus itself
    others = {name: value for name, value in options.items() if name not in _OF_ADDRESS}
    return {**others, "redis_url": bus_address(url_of(url), **given) if url else None}
