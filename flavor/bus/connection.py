"""Connections to Redis or Valkey, and the one table that translates redis-py's errors.

redis-py's defaults are wrong for this project in two ways (measured): its five-second socket timeout breaks blocking
reads, and makes its retries repeat a write whose answer was only slow. So here a read waits as long as the client has
patience, and its request is not repeated (`flavor.bus.answers`). TCP keepalive finds a dead peer, and every command
that is repeated after a broken connection is harmless when it runs twice.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import redis

from flavor.bus.answers import Unanswered
from flavor.bus.countdown import countdown, said
from flavor.bus.half_open import answers_anew
from flavor.bus.named import connection_class
from flavor.bus.patience import REFUSALS, Patience, WaitLimit, outages
from flavor.bus.reasons import is_unknown_name, way_to_check
from flavor.bus.tls import tls_failure
from flavor.bus.variables import PATIENCE_S
from flavor.bus.wrong_type import NamingClient, advice_on_type, is_of_type
from flavor.errors import BusUnavailable, FlavorError, InvalidSetting
from flavor.proxy import proxy_for
from flavor.tunnel import proxy_failure

Redis: TypeAlias = Any
"""A `redis.Redis` from `connect`: redis-py types each answer as bytes or str, also with `decode_responses`."""

_SCHEMES = ("redis", "rediss", "unix")
_REDIS_PORT = 6379
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_TLS_IN_URL = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""The TLS options that a URL may have: files. Options that turn verification off are refused."""
_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 6, 3, 3
SILENCE_S = _KEEPALIVE_IDLE_S + _KEEPALIVE_INTERVAL_S * _KEEPALIVE_COUNT
"""A peer that acknowledges nothing for this time counts as dead, whether or not data was sent to it."""


def shown(url: str) -> str:
    """Return the URL without user and password, for messages, also for a malformed URL."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    rest = (
        rest.rpartition("@")[2].partition("?")[0].partition("#")[0]
    )  # an unescaped / or # in a password does not end the host
    return f"{scheme}{separator}{rest}"


def way_to(url: str) -> str:
    """Return a sentence about the proxy through which the server is reached; '' for a direct connection."""
    parts = urlsplit(url)
    host, port = parts.hostname or "localhost", parts.port or _REDIS_PORT
    proxy = None if parts.scheme == "unix" else proxy_for(parts.scheme, host, port)
    return f"Redis at {shown(url)} is reached through the proxy {proxy.where} ({proxy.source})" if proxy else ""


class ServerWatch:
    """Tells whether the server was away, or only a connection was cut, by a flood of data or by an idle proxy."""

    def __init__(self, client: Redis, url: str) -> None:
        self._client, self._where = client, shown(url)
        self._seen: tuple[int, str] | None = None

    def was_away(self) -> bool:
        """Whether the server was away since the last call: it is another process, or took no connection for a time."""
        before, self._seen = self._seen, self._look()
        return before is not None and before != self._seen

    def _look(self) -> tuple[int, str]:
        with translated(self._where):
            try:
                identity = str(self._client.info("server").get("run_id", ""))
            except redis.exceptions.ResponseError:  # the server does not say
                identity = ""
        return outages(self._where), identity


_DATABASE = re.compile(r"/?[0-9]*")


def connect(
    url: str,
    *,
    patience_s: float | WaitLimit = PATIENCE_S,
    client_name: str | None = None,
    quiet: bool = False,
) -> Redis:
    """Make a client for `url` (`redis://`, `rediss://` or `unix://`). It connects at the first command.

    The client waits for up to `patience_s` seconds for an unreachable server, with a countdown, and for each answer.
    A `WaitLimit` in its place can be changed later.
    `quiet` leaves out the countdown, for a client whose user asks again and again.
    Raises `InvalidSetting` for a URL that cannot be used.
    """
    checked_url(url)
    try:
        return NamingClient.from_url(
            url,
            decode_responses=True,
            encoding_errors="replace",  # bytes that are no text, which a client may write, must not end a reader
            client_name=client_name,
            **options(url, patience_s, quiet=quiet),
        )
    except ValueError as error:
        raise unusable(url, error) from None


def unusable(url: str, error: ValueError) -> InvalidSetting:
    """Return the error for a URL that redis-py cannot read. redis-py's message may quote a part of the password."""
    return InvalidSetting(
        f"Redis URL {shown(url)!r} cannot be used ({type(error).__name__}): "
        "write redis://USER:PASSWORD@HOST:PORT/DB, "
        "with special characters of the password percent-encoded"
    )


def checked_url(url: str) -> str:
    """Return `url` if it is a Redis URL that leaves TLS verified. Raises `InvalidSetting` otherwise."""
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES:
        expected = "expected redis://HOST:PORT, rediss://HOST:PORT or unix:///PATH"
        if scheme in _PROXY_SCHEMES:
            expected += "; a proxy on the way to it is named by --proxy URL or HTTPS_PROXY"
        raise InvalidSetting(f"Redis URL {shown(url)!r} cannot be used: {expected}")
    try:
        parts = urlsplit(url)
        names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError as error:
        raise unusable(url, error) from None
    # redis-py would read it as 0. It is not quoted, because it may be a part of the password.
    if parts.scheme != "unix" and not _DATABASE.fullmatch(parts.path):
        raise InvalidSetting(
            f"Redis URL {shown(url)!r} cannot be used: what follows the host is no database number; write "
            "redis://USER:PASSWORD@HOST:PORT/DB, with special characters of the password percent-encoded"
        )
    if odd := [name for name in names if name.startswith("ssl_") and name not in _TLS_IN_URL]:
        raise InvalidSetting(
            f"Redis URL {shown(url)!r} has {odd[0]!r}: the server's certificate and name are always verified; "
            "leave it out, and name your CA with --tls-ca FILE"
        )
    return url


def options(url: str, patience_s: float | WaitLimit, *, quiet: bool = False) -> dict[str, Any]:
    """Return the options of every connection of this project, including those of RQ."""
    chosen: dict[str, Any] = {
        "socket_timeout": None,
        "retry": Patience(shown(url), patience_s, quiet=quiet, answers_anew=partial(answers_anew, url, shown(url))),
        "driver_info": None,
        "protocol": 2,
        "connection_class": connection_class(url),
    }
    if not url.startswith("unix:"):
        chosen |= {
            "socket_connect_timeout": 5.0,
            "socket_keepalive": True,
            "socket_keepalive_options": _keepalive(),
        }
    return chosen


def _keepalive() -> dict[int, int]:
    named = {
        "TCP_KEEPIDLE": _KEEPALIVE_IDLE_S,
        "TCP_KEEPINTVL": _KEEPALIVE_INTERVAL_S,
        "TCP_KEEPCNT": _KEEPALIVE_COUNT,
        "TCP_USER_TIMEOUT": SILENCE_S
        * 1000,  # keepalive does not act while data is unacknowledged: the default is 15 minutes
    }
    return {getattr(socket, name): value for name, value in named.items() if hasattr(socket, name)}


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn redis-py's errors into `BusUnavailable`. `where` is the server as `shown` prints it.

    If the process was asked to end in the block, that is raised: redis-py's pipeline sends UNWATCH when it ends, and
    its error, on a server that stands still, takes the place of what ended it.
    """
    handled = sys.exc_info()[1]
    try:
        yield
    except redis.exceptions.RedisError as error:
        if ending := _ending(error, handled):
            raise ending from None
        raise bus_error(error, where) from error


def _ending(error: BaseException, handled: BaseException | None) -> BaseException | None:
    """Return the exception of a signal in whose place `error` came, unless it was `handled` before."""
    found = error.__context__
    while found is not None and found is not handled:
        if not isinstance(found, Exception):
            return found
        found = found.__context__
    return None


def is_away(error: BaseException) -> bool:
    """Whether Redis is away or refuses this user, rather than that a single key has a type that flavor does not use."""
    return isinstance(error, BusUnavailable) and not is_of_type(error.__cause__)


def is_silent(error: BaseException) -> bool:
    """Whether Redis does not answer, rather than that it refuses something."""
    cause, kinds = error.__cause__, (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
    return isinstance(error, BusUnavailable) and isinstance(cause, kinds) and not isinstance(cause, REFUSALS)


def bus_error(error: redis.exceptions.RedisError, where: str) -> FlavorError:
    """Return this project's error for one of redis-py's, with advice."""
    if failure := proxy_failure(error) or tls_failure(error):
        return BusUnavailable(f"Redis at {where}: {failure}")
    text = said(error).rstrip(".")
    if advice := next((advice for said_, advice in _ADVICE_BY_TEXT if said_.search(text)), ""):
        return BusUnavailable(f"Redis at {where}: {text}: {advice}")
    if advice := advice_on_type(error):
        return BusUnavailable(f"Redis at {where}: {text}{advice}")
    if is_unknown_name(error):
        return BusUnavailable(
            f"Redis at {where}: its name is not known here: check its spelling, and if it is one of a VPN or of an "
            f"organisation's network, connect this machine first{way_to_check(error, where)}"
        )
    if isinstance(error, _OF_CLUSTERS):
        return BusUnavailable(
            f"Redis at {where}: it is a node of a Redis Cluster, and flavor needs one server that has all keys: use a "
            "Redis or Valkey without cluster mode (cluster-enabled no; of a managed service the single-shard kind)"
        )
    for kind, advice in _ADVICE:
        if isinstance(error, kind):
            return BusUnavailable(f"Redis at {where}: {text or type(error).__name__}: {advice}")
    return BusUnavailable(f"Redis at {where}: {text or type(error).__name__}")


_OF_CLUSTERS = (
    redis.exceptions.AskError,
    redis.exceptions.ClusterError,
    redis.exceptions.ClusterCrossSlotError,
)

_ADVICE_BY_TEXT = (
    (
        re.compile(r"^max number of clients"),
        "it takes no more connections: raise maxclients, or end those that fill it up (`CLIENT LIST`, `CLIENT KILL "
        "USER`), on the server's own machine if need be",
    ),
    (re.compile(r"^MISCONF"), "its disk is full or broken: make room there"),
    (
        re.compile(r"^DB index is out of range|^SELECT is not allowed|unknown command 'select'", re.IGNORECASE),
        "it does not have the database that the URL names: leave its number out, or name another one (many managed "
        "servers have 0 alone)",
    ),
    (  # commands of ACL, denied to this user or to all
        re.compile(r"(unknown|unsupported|not allowed|disabled).{0,60}\bacl\b|'acl\|", re.IGNORECASE),
        "this user's ACL does not allow it, or the server does not: what an operator does needs an administrator's "
        "URL, and the users of a managed server are made in its console, with the rules that `flavor enroll --rules` "
        "prints (docs/deployment.md, Managed Redis)",
    ),
)
"""Advice by what the server says; the first match counts."""

_ADVICE: tuple[tuple[type[redis.exceptions.RedisError], str], ...] = (
    (
        redis.exceptions.AuthenticationError,
        "check the user and password in the URL, or the join token: a client that was revoked or enrolled anew needs "
        "a new one, as do all once the server has lost its users",
    ),
    (
        redis.exceptions.NoPermissionError,
        "this user's ACL does not allow it: what an operator does needs an administrator's URL",
    ),
    (redis.exceptions.OutOfMemoryError, "the server is full: raise maxmemory or free some"),
    (redis.exceptions.ReadOnlyError, "this is a read-only replica: point the URL at the primary"),
    (redis.exceptions.BusyLoadingError, "it is still loading its data: try again"),
    (
        Unanswered,
        "the server takes connections and answers nothing: check whether it is paused or overloaded, or its disk hangs "
        "(`redis-cli PING` on its machine)",
    ),
    (
        redis.exceptions.TimeoutError,
        "it does not answer: check the address, the network and the server's load",
    ),
    (
        redis.exceptions.ConnectionError,
        "check that it runs, that the address is right, and whether it wants TLS (rediss://)",
    ),
    (redis.exceptions.InvalidResponse, "what answers there is no Redis: check the host and the port"),
    (redis.exceptions.WatchError, "another process wrote at the same time: try again"),
    (redis.exceptions.LockError, "another process holds this lock, or has taken it: try again"),
    (redis.exceptions.PubSubError, "the subscription is not as it was: start this program again"),
    (redis.exceptions.DataError, "redis-py cannot send this value: report it with the output of --debug"),
    (redis.exceptions.ResponseError, "the server refused the command"),
)
"""Advice by kind of error; the first match counts."""


def wait_for_server(client: Redis, url: str) -> None:
    """Return once the server answers. Raises `BusUnavailable` when it does not within the client's patience."""
    try:
        with translated(shown(url)):
            client.time()  # PING is refused where the disk is full
    except BaseException:
        countdown.end()
        raise
    countdown.over(shown(url), reads_only=True)
