"""Connections to Redis or Valkey, and the one table that translates redis-py's errors.

redis-py's defaults are wrong for us in two ways (measured): its five-second socket timeout breaks blocking
reads, and its ten retries repeat a write whose answer was slow. So reads block without limit here, a write is
retried by its caller only if it is idempotent, and a dead peer is found by TCP keepalive.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flavor.errors import BusUnavailable, FlavorError, InvalidSetting

Redis: TypeAlias = Any
"""A `redis.Redis` from `connect`: redis-py types each answer as bytes or str, whatever `decode_responses` says."""

URL_VARIABLE = "FLAVOR_REDIS_URL"
_SCHEMES = ("redis", "rediss", "unix")
_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 15, 5, 3


def shown(url: str) -> str:
    """The URL without user and password, for messages; also where it is malformed."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    rest = rest.rpartition("@")[2].partition("?")[0].partition("#")[0]  # a raw / or # in a password ends no host
    return f"{scheme}{separator}{rest}"


def connect(url: str, *, blocking: bool = True, client_name: str | None = None) -> Redis:
    """A client for `url` (`redis://`, `rediss://` or `unix://`); connects at the first command.

    With `blocking`, reads wait without limit (pub/sub, a worker); otherwise an answer that takes 60 s is an error.
    Raises `InvalidSetting` for a URL that is none.
    """
    if urlsplit(url).scheme not in _SCHEMES:
        raise InvalidSetting(
            f"Redis URL {shown(url)!r} cannot be used: expected redis://HOST:PORT, rediss://HOST:PORT or unix:///PATH"
        )
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": None if blocking else 60.0,
        "retry": Retry(NoBackoff(), 1),
        "client_name": client_name,
        "driver_info": None,
        "protocol": 2,
    }
    if not url.startswith("unix:"):
        options |= {"socket_connect_timeout": 5.0, "socket_keepalive": True, "socket_keepalive_options": _keepalive()}
    try:
        return redis.Redis.from_url(url, **options)
    except ValueError as error:
        # redis-py's message may quote a part of the password
        raise InvalidSetting(
            f"Redis URL {shown(url)!r} cannot be used ({type(error).__name__}): write redis://USER:PASSWORD@HOST:PORT/DB, "
            "with special characters of the password percent-encoded"
        ) from None


def _keepalive() -> dict[int, int]:
    named = {
        "TCP_KEEPIDLE": _KEEPALIVE_IDLE_S,
        "TCP_KEEPINTVL": _KEEPALIVE_INTERVAL_S,
        "TCP_KEEPCNT": _KEEPALIVE_COUNT,
    }
    return {getattr(socket, name): value for name, value in named.items() if hasattr(socket, name)}


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn what redis-py raises into `BusUnavailable`; `where` is the server as `shown` prints it."""
    try:
        yield
    except redis.exceptions.RedisError as error:
        raise bus_error(error, where) from error


def bus_error(error: redis.exceptions.RedisError, where: str) -> FlavorError:
    """The error of this project for one of redis-py's, with what to do."""
    text = " ".join(str(error).split())
    for kind, advice in _ADVICE:
        if isinstance(error, kind):
            return BusUnavailable(f"Redis at {where}: {text or type(error).__name__}: {advice}")
    return BusUnavailable(f"Redis at {where}: {text}")


_ADVICE: tuple[tuple[type[redis.exceptions.RedisError], str], ...] = (
    (redis.exceptions.AuthenticationError, "check the user and password in the URL"),
    (redis.exceptions.NoPermissionError, "this user's ACL does not allow it"),
    (redis.exceptions.OutOfMemoryError, "the server is full: raise maxmemory or free some"),
    (redis.exceptions.ReadOnlyError, "this is a read-only replica: point the URL at the primary"),
    (redis.exceptions.BusyLoadingError, "it is still loading its data: try again"),
    (redis.exceptions.TimeoutError, "it does not answer: check the address, the network and the server's load"),
    (redis.exceptions.ConnectionError, "check that it runs and that the address is right"),
    (redis.exceptions.ResponseError, "the server refused the command"),
)


def wait_for_server(client: Redis, url: str, *, patience_s: float) -> None:
    """Return once the server answers PING; count down visibly on stderr meanwhile.

    Raises `BusUnavailable` after `patience_s` seconds, or at once when the server refuses the credentials.
    """
    deadline = time.monotonic() + patience_s
    pause_s = 0.25
    told = False
    while True:
        try:
            client.ping()
        except (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError) as error:
            raise bus_error(error, shown(url)) from None
        except (redis.exceptions.RedisError, OSError) as error:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                if told:
                    print(file=sys.stderr)
                wrapped = error if isinstance(error, redis.exceptions.RedisError) else redis.ConnectionError(str(error))
                raise bus_error(wrapped, shown(url)) from None
            _countdown(url, left_s)
            told = True
            time.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 2, 2.0)
        else:
            if told:
                print(f"\nflavor: Redis at {shown(url)} answers", file=sys.stderr)
            return


def _countdown(url: str, left_s: float) -> None:
    line = f"flavor: Redis at {shown(url)} does not answer; trying for {left_s:.0f} s more"
    end = "" if sys.stderr.isatty() else "\n"
    print(f"\r{line}  " if sys.stderr.isatty() else line, end=end, file=sys.stderr, flush=True)


def url_from_environment() -> str | None:
    """The value of FLAVOR_REDIS_URL, or None."""
    return os.environ.get(URL_VARIABLE) or None
