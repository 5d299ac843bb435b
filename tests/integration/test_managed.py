"""Servers that are configured as managed services are: runs work, or one line says what to do."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redisserver import redis_server

from flavor.bus.connection import Redis, connect
from flavor.view.server import server_state
from tests.conftest import Bench
from tests.polled import eventually

DENIED = (
    *("acl", "bgrewriteaof", "bgsave", "client", "cluster", "command", "config", "debug", "failover", "flushall"),
    *("flushdb", "info", "keys", "lastsave", "latency", "memory", "migrate", "module", "monitor", "object", "psync"),
    *("replicaof", "role", "save", "script", "shutdown", "slaveof", "slowlog", "swapdb", "sync", "wait"),
)
"""All commands that one of the services of docs/deployment.md denies, and some more."""
RENAMED = "".join(f'rename-command {command} ""\n' for command in DENIED)
ALLOWED = (
    "append decr decrby get getdel getex getrange getset incr incrby incrbyfloat mget mset msetnx psetex set "
    "setex setnx setrange strlen hdel hexists hget hgetall hincrby hincrbyfloat hkeys hlen hmget hmset hscan hset "
    "hsetnx hstrlen hrandfield hvals blmove blpop brpop brpoplpush lindex linsert llen lmove lpop lpos lpush "
    "lpushx lrange lrem lset ltrim rpop rpoplpush rpush rpushx sadd scard sdiff sdiffstore sinter sinterstore "
    "sismember smembers smismember smove spop srandmember srem sscan sunion sunionstore bzpopmax bzpopmin zadd "
    "zcard zcount zdiff zincrby zinter zmscore zpopmax zpopmin zrange zrangestore zrangebylex zrangebyscore zrank "
    "zrem zremrangebylex zremrangebyrank zremrangebyscore zrevrange zrevrangebyscore zrevrank zscan zscore zunion "
    "eval evalsha subscribe psubscribe unsubscribe punsubscribe publish pubsub discard exec multi unwatch watch "
    "copy del exists expire expireat persist pexpire pexpireat pttl randomkey rename renamenx scan touch ttl type "
    "unlink auth hello echo ping quit reset select dbsize time xack xadd xautoclaim xclaim xdel xgroup "
    "xinfo|groups xinfo|consumers xlen xpending xrange xread xreadgroup xrevrange xtrim"
)
"""The commands that the shortest list of a service has (Upstash), but for ACL, SCRIPT, KEYS and FLUSH."""
_RIGHTS = " ".join(f"+{name}" for name in ALLOWED.split())
USERS = f"user default on >admin ~* &* +@all\nuser app on >s ~* &* -@all {_RIGHTS}\n"
PER_SITE, PER_COORDINATOR, PER_AGGREGATOR = 5, 3, 3
"""Connections, as docs/deployment.md has them."""
SLACK = 2
"""A request that has had no answer for a while is compared with one on a connection of its own."""


@pytest.fixture(params=["renamed", "denied by ACL"])
def managed(request: pytest.FixtureRequest, tmp_path: Path, bench_at: Callable[[str], Bench]) -> Iterator[Bench]:
    """A server that denies all that some service denies, in either way, and closes connections that are idle."""
    is_renamed = request.param == "renamed"
    with redis_server(
        tmp_path / "redis",
        settings=(RENAMED if is_renamed else USERS) + "timeout 1\nmaxclients 40\n",
        password="" if is_renamed else "admin",
    ) as server:
        yield bench_at(server.url if is_renamed else server.url.replace(":admin@", "app:s@"))


def test_a_run_needs_no_command_that_a_service_denies_and_outlives_its_idle_timeout(managed: Bench) -> None:
    bench = managed
    assert server_state(bench.redis) is None
    with connect(re.sub("//app:s@", "//:admin@", bench.url)) as admin:
        coordinator = bench.serve(rounds=2, clients=2)
        aggregator = bench.aggregator()
        edges = [bench.edge(client, bench.trainer("--hold", "--at", 2, "--only", "c2")) for client in ("c1", "c2")]
        bench.held("c2")
        if "app:" in bench.url:
            there = connections(admin)
            assert len(there) <= 2 * PER_SITE + PER_COORDINATOR + PER_AGGREGATOR + SLACK, there
            bench.eventually("idle connections are closed", lambda: set(there) - set(connections(admin)))
        shown = bench.done("flavor", "status", bench.run)
        assert (shown.wait(), "round 2 of 2" in shown.stdout) == (0, True), shown.stderr
        for command in (("enroll", bench.run, "c3", "--unsaved"), ("revoke", bench.run, "c3")):
            refused = bench.done("flavor", *command)
            assert refused.wait() == 3
            assert refused.stderr.count("\n") == 1
            assert (
                "the users of a managed server are made in its console, with the rules that `flavor" in refused.stderr
            )
        bench.release("c2")
        processes = (coordinator, *edges)
        assert [process.wait() for process in processes] == [0, 0, 0], [process.stderr for process in processes]
        aggregator.send(signal.SIGTERM)
        assert aggregator.wait() == 0
    for process in (*processes, aggregator):
        assert "does not answer" not in process.stderr


def connections(admin: Redis) -> dict[str, str]:
    """The ids of connections, with their names, without that of the trainer's hold."""
    return {
        each["id"]: each["name"] for each in admin.client_list() if each["user"] == "app" and each["cmd"] != "blpop"
    }


@pytest.mark.parametrize(
    ("settings", "database", "parts"),
    [
        ("cluster-enabled yes\n", "", ("it is a node of a Redis Cluster", "without cluster mode")),
        ("cluster-enabled yes\n", "/1", ("does not have the database that the URL names", "servers have 0 alone")),
        ("databases 4\n", "/4", ("does not have the database that the URL names", "leave its number out")),
    ],
)
def test_a_cluster_and_a_database_that_is_not_there_are_named_in_one_line(
    tmp_path: Path, bench_at: Callable[[str], Bench], settings: str, database: str, parts: tuple[str, ...]
) -> None:
    with redis_server(tmp_path / "redis", settings=settings) as server:
        if parts[0].endswith("Redis Cluster"):
            with connect(server.url) as admin:
                admin.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
                eventually("the cluster is up", lambda: admin.cluster("INFO")["cluster_state"] == "ok")
        bench = bench_at(server.url)
        refused = bench.serve(rounds=1, clients=1, env={"FLAVOR_REDIS_URL": f"{server.url}{database}"})
        assert refused.wait() == 3, refused.stderr
        last = refused.stderr.strip().splitlines()[-1]
        assert all(part in last for part in parts), last


def test_the_rules_of_a_user_are_printed_for_a_console_and_make_the_user_that_enroll_makes(bench: Bench) -> None:
    nowhere = {"FLAVOR_REDIS_URL": "redis://localhost:1/0"}
    printed = bench.done("flavor", "enroll", bench.run, "c1", "--rules", env=nowhere)
    assert printed.wait() == 0, printed.stderr
    name, rules = printed.stdout.splitlines()
    assert not re.search(r"reset |[#>]", rules)
    bench.redis.execute_command("ACL SETUSER", "console", ">secret", *re.findall(r"\([^)]*\)|\S+", rules))
    assert bench.done("flavor", "enroll", "--unsaved", bench.run, "c1").wait() == 0
    found, made = (bench.redis.execute_command("ACL GETUSER", user) for user in ("console", name))
    found, made = (
        user if isinstance(user, dict) else dict(zip(user[::2], user[1::2], strict=True)) for user in (found, made)
    )
    assert {field for field in found if found[field] != made[field]} == {"passwords"}
    refused = bench.done("flavor", "enroll", "--rules", bench.run, env=nowhere)
    assert (refused.wait(), "name RUN and CLIENT" in refused.stderr) == (2, True)
