"""What one site's user can cost a real server: no time and no memory beyond what it sends, whatever it wrote before."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from flavor.bus.acl import COMMANDS, enroll, user_name
from flavor.bus.bounds import BOUNDS, bounds_warnings
from flavor.bus.connection import connect
from flavor.bus.keys import RunKeys
from tests.faults.servers import REDIS, Server
from tests.polled import eventually

RUN, CLIENT = "r", "site-1"
RUN_KEYS = RunKeys(RUN)
KEYS = RUN_KEYS.client(CLIENT)
OWN = KEYS.prefix
LARGE = f"{OWN}:large"
MAXMEMORY_MIB = 100


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    words = [word for name, value in BOUNDS.items() for word in (f"--{name}", value)]
    words += ["--maxmemory", f"{MAXMEMORY_MIB}mb", "--maxmemory-policy", "noeviction", "--appendonly", "no"]
    server = Server(tmp_path / "redis", *words, program=REDIS or pytest.skip("redis-server is not installed"))
    yield server
    server.close()


@pytest.fixture
def admin(server: Server) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url, socket_timeout=None, decode_responses=True) as client:
        yield client


class Site:
    """Connections of the site's user, which send commands as they are."""

    def __init__(self, server: Server) -> None:
        with connect(server.url) as client:
            self._secret, _ = enroll(client, RUN, CLIENT, where="here")
        self._port = server.port
        self._open: list[socket.socket] = []

    def sends(self, commands: bytes, *, reads: bool = True) -> socket.socket:
        """Send commands on a connection of their own; one that does not read takes a few kilobytes of answers."""
        own = socket.create_connection(("127.0.0.1", self._port), timeout=60)
        self._open.append(own)
        if not reads:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        own.sendall(packed("AUTH", user_name(RUN, CLIENT), self._secret))
        assert own.recv(100) == b"+OK\r\n"
        if reads:
            threading.Thread(target=_read_all, args=(own,), daemon=True).start()
        with contextlib.suppress(OSError):  # it may be cut off meanwhile
            own.sendall(commands)
        return own

    def close(self) -> None:
        for own in self._open:
            own.close()


def _read_all(own: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while own.recv(1 << 16):
            pass


@pytest.fixture
def site(server: Server) -> Iterator[Site]:
    site = Site(server)
    yield site
    site.close()


def packed(*words: str) -> bytes:
    """A command, as it goes over the wire."""
    parts = [f"${len(word)}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


def together(*commands: bytes) -> bytes:
    """Commands in one transaction."""
    return b"".join((packed("MULTI"), *commands, packed("EXEC")))


def measured(admin: redis.Redis, site: Site, name: str, command: bytes) -> int:
    """The time that the server itself needed for this command of the site, in microseconds; 0 if it refuses it."""
    admin.slowlog_reset()
    with admin.pubsub() as listener:
        listener.subscribe(f"{OWN}:done")
        assert listener.get_message(timeout=60), "it is subscribed"
        own = site.sends(command + packed("PUBLISH", f"{OWN}:done", "x"))
        assert listener.get_message(timeout=60), name
    own.close()
    return _durations(admin).get(name, 0)


def _durations(admin: redis.Redis) -> dict[str, int]:
    """The first of each command in the slow log, by name."""
    return {entry["command"].split()[0].decode().lower(): entry["duration"] for entry in admin.slowlog_get(20)}


ON_A_LARGE_VALUE = {
    "get": [LARGE],
    "set": [LARGE, "x"],
    "del": [LARGE],
    "exists": [LARGE],
    "pexpire": [LARGE, "-1"],
    "pttl": [LARGE],
    "hset": [LARGE, "x", "x"],
    "hget": [LARGE, "1"],
    "hmget": [LARGE, "1", "2"],
    "hgetall": [LARGE],
    "watch": [LARGE],
}
WITH_MANY_WORDS = {
    "del": lambda at: [f"{OWN}:{at}"],
    "exists": lambda at: [f"{OWN}:{at}"],
    "hset": lambda at: [str(at), "x"],
    "hmget": lambda at: [str(at)],
    "watch": lambda at: [f"{OWN}:{at}"],
    "subscribe": lambda at: [f"{OWN}:{at}"],
    "psubscribe": lambda at: [f"{OWN}:{at}"],
    "unsubscribe": lambda at: [f"{OWN}:{at}"],
    "punsubscribe": lambda at: [f"{OWN}:{at}"],
}
OF_ONE_COST = {"multi", "exec", "discard", "unwatch", "publish", "ping", "time", "client|setname"}
"""Their cost depends on what they are sent: EXEC on its commands, PUBLISH also on the connections that listen."""


def test_each_command_was_thought_of(admin: redis.Redis, site: Site) -> None:
    """A command that is allowed anew needs a line in these tables."""
    user = admin.acl_getuser(user_name(RUN, CLIENT))
    selectors = [dict(zip(each[::2], each[1::2], strict=True))["commands"] for each in user["selectors"]]
    in_selectors = {word.removeprefix("+") for each in selectors for word in each.split()} - {"-@all"}
    tested = {*ON_A_LARGE_VALUE, *WITH_MANY_WORDS, *OF_ONE_COST}
    assert {*COMMANDS, *in_selectors} == tested


def test_no_command_costs_what_a_large_value_costs(admin: redis.Redis, site: Site) -> None:
    """A site sends a value once, and must not have the server go through all of it again and again."""
    admin.config_set("slowlog-log-slower-than", 0)
    fill = packed("hset", LARGE, *(word for number in range(100_000) for word in (str(number), "x")))
    costs: dict[str, list[int]] = {name: [] for name in ON_A_LARGE_VALUE}
    fills = []
    for _ in range(3):
        for name, words in ON_A_LARGE_VALUE.items():
            if admin.hlen(LARGE) < 100_000:  # SET, DEL and PEXPIRE leave nothing of it
                admin.unlink(LARGE)
                fills.append(measured(admin, site, "hset", fill))
            costs[name].append(measured(admin, site, name, packed(name, *words)))
            if admin.type(LARGE) == "string":
                admin.unlink(LARGE)
    assert len(fills) == 1 + 3 * 3
    assert {name: each for name, each in costs.items() if min(each) * 20 >= min(fills)} == {}, fills


def test_a_command_of_eight_times_the_words_costs_about_eight_times_as_much(admin: redis.Redis, site: Site) -> None:
    """And not 64 times, as where each word is compared with all words before it."""
    admin.config_set("slowlog-log-slower-than", 0)
    noise_us = 1_000  # of a loaded machine; where each of 16,000 words is compared with all others, it is a second
    dear = {}
    for name, words in WITH_MANY_WORDS.items():
        key = [f"{OWN}:hash"] if name.startswith("h") else []
        costs = []
        for many in (2_000, 16_000):
            command = packed(name, *key, *(word for at in range(many) for word in words(at)))
            costs.append(min(measured(admin, site, name, command) for _ in range(3)))
            admin.unlink(f"{OWN}:hash")
        if costs[1] > 30 * max(costs[0], noise_us):
            dear[name] = costs
    assert dear == {}


DONE = f"{OWN}:done"


def _asks_for_gigabytes(site: Site) -> bytes:
    site.sends(packed("SET", f"{OWN}:x", "x" * 4_000_000))
    return together(*[packed("GET", f"{OWN}:x")] * 200)


def _asks_for_gigabytes_of_a_field(site: Site) -> bytes:
    site.sends(packed("HSET", f"{OWN}:h", "f", "x" * 4_000_000))
    return packed("HMGET", f"{OWN}:h", *["f"] * 200)


def _publishes_to_itself(site: Site) -> bytes:
    for _ in range(10):
        site.sends(packed("PSUBSCRIBE", KEYS.events_pattern), reads=False)
    return together(*[packed("PUBLISH", f"{OWN}:round:1:event:x", "x" * 1_000_000)] * 18)


def _listens_to_long_names(_: Site) -> bytes:
    return b"".join(packed("SUBSCRIBE", f"{OWN}:{at}:{'x' * 1_000_000}") for at in range(150))


def _listens_to_long_patterns(_: Site) -> bytes:
    return b"".join(packed("PSUBSCRIBE", f"{OWN}:{at}:{'x' * 1_000_000}") for at in range(150))


def _watches_long_names(_: Site) -> bytes:
    return b"".join(packed("WATCH", f"{OWN}:{at}:{'x' * 1_000_000}") for at in range(150))


def _is_refused_long_names(_: Site) -> bytes:
    return b"".join(packed("GET", f"x{at}:{'x' * 3_000_000}") for at in range(60))


@pytest.mark.parametrize(
    "attack",
    [
        _asks_for_gigabytes,
        _asks_for_gigabytes_of_a_field,
        _publishes_to_itself,
        _listens_to_long_names,
        _listens_to_long_patterns,
        _watches_long_names,
        _is_refused_long_names,
    ],
    ids=lambda attack: attack.__name__.strip("_"),
)
def test_a_site_takes_no_memory_beyond_maxmemory(server: Server, admin: redis.Redis, site: Site, attack) -> None:
    """Neither what waits for it nor what the server remembers of it; others can write then."""
    reads = "names" in attack.__name__ or "patterns" in attack.__name__
    own = site.sends(attack(site) + packed("SET", DONE, "x"), reads=reads)
    here = "{}:{}".format(*own.getsockname())

    def is_over() -> bool:
        assert admin.info("memory")["used_memory_peak"] < MAXMEMORY_MIB << 20
        return admin.exists(DONE) or here not in (each["addr"] for each in admin.client_list())  # it was cut off

    eventually("the server is done with it", is_over, 60, told=lambda: admin.info("memory"))
    assert admin.info("memory")["used_memory_peak"] < MAXMEMORY_MIB << 20
    assert admin.set("another's", "write")


def test_serve_and_enroll_name_the_settings_that_the_server_lacks(server: Server) -> None:
    with connect(server.url) as client, redis.Redis.from_url(server.url) as plain:
        assert bounds_warnings(client, server.url) == []
        for name, bad in {
            "maxmemory-clients": "0",
            "client-output-buffer-limit": "normal 0 0 0",
            "proto-max-bulk-len": "512mb",
            "acllog-max-len": "128",
            "lazyfree-lazy-user-del": "no",
            "lazyfree-lazy-server-del": "no",
            "lazyfree-lazy-expire": "no",
        }.items():
            plain.config_set(name, bad)
            (line,) = bounds_warnings(client, server.url)
            quoted = f"'{BOUNDS[name]}'" if " " in BOUNDS[name] else BOUNDS[name]
            assert f"`redis-cli CONFIG SET {name} {quoted}`" in line
            plain.config_set(name, BOUNDS[name])
            assert bounds_warnings(client, server.url) == []
        plain.config_set("client-output-buffer-limit", "pubsub 32mb 8mb 60")
        assert len(bounds_warnings(client, server.url)) == 1
        plain.execute_command("ACL SETUSER", "ops", "on", ">secret", "~*", "&*", "+@all", "-config")
        with connect(server.url.replace("redis://", "redis://ops:secret@")) as limited:
            assert bounds_warnings(limited, server.url) == []  # it does not tell
