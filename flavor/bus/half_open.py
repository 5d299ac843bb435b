"""Find a connection that is dead behind a tunnel or a proxy, which acknowledges what is sent and delivers nothing.

TCP finds a peer that acknowledges nothing (`flavor.bus.connection.SILENCE_S`). A tunnel's near end (ssh, stunnel, a
VPN's gateway) goes on acknowledging after its far end is gone. So a request that has had no answer for a while is
compared with a request on a new connection: a server that answers the new one has lost the old one.
"""

from __future__ import annotations

import redis

from flavor.bus.named import connection_class
from flavor.bus.patience import Patience

_CONNECT_S = 5.0


def answers_anew(url: str, where: str) -> bool:
    """Whether the server answers a request on a new connection. A server that is busy, or refuses, does not count."""
    try:
        with redis.Redis.from_url(
            url,
            retry=Patience(where, 0.0, quiet=True),
            socket_timeout=None,
            socket_connect_timeout=_CONNECT_S,
            driver_info=None,
            protocol=2,
            connection_class=connection_class(url),
        ) as client:
            client.time()
    except (redis.exceptions.RedisError, OSError, ValueError):
        return False
    return True
