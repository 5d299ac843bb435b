"""What a client's Redis user may do, on both kinds of server: its own, and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner
from pages import prepared
from redisserver import redis_server

from flavor.bus.acl import (
    UserPersistence,
    enroll,
    enroll_worker,
    enrolled,
    enrolled_workers,
    is_open,
    revoke,
    revoke_absent,
    revoke_worker,
    rules,
    worker_user,
)
from flavor.bus.connection import Redis, connect
from flavor.bus.embedded import embedded_server
from flavor.bus.events import ClientEvents
from flavor.bus.keys import RunKeys
from flavor.bus.lease import Lease
from flavor.bus.runs import RunStore
from flavor.bus.subscription import Subscription
from flavor.bus.token import JoinToken, with_credentials
from flavor.cli.enroll import enroll as enroll_command
from flavor.errors import BusUnavailable
from flavor.records.names import Event
from flavor.records.states import RunState
from tests.denied import assert_denied

RUN, CLIENT = "mammo", "site-1"
RUN_KEYS = RunKeys(RUN)
OWN = RUN_KEYS.client(CLIENT)
OTHER = RUN_KEYS.client("site-10")  # whose name begins with the client's
ANOTHER_RUN = RunKeys("mammo2")


@pytest.fixture(scope="module", params=["embedded", "redis-server"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        if request.param == "embedded":
            yield stack.enter_context(embedded_server())
        else:
            yield stack.enter_context(redis_server(tmp_path_factory.mktemp("acl") / "r")).url


@pytest.fixture(scope="module")
def admin(url: str) -> Iterator[Redis]:
    with connect(url) as client:
        yield client


@pytest.fixture
def member(url: str, admin: Redis) -> Iterator[Redis]:
    """A connection of the client."""
    secret, _ = enroll(admin, RUN, CLIENT, where="here")
    with connect(with_credentials(url, f"flavor:{RUN}:{CLIENT}", secret)) as client:
        yield client


FOREIGN = [
    OTHER.hash,
    OTHER.lease,
    OTHER.update(1),
    OTHER.task(1),
    OTHER.verdict(1),
    RUN_KEYS.members,
    RUN_KEYS.coordinator,
    RUN_KEYS.log,
    RUN_KEYS.round(1),
    RUN_KEYS.verdicts(1),
    RUN_KEYS.measured(1),
    RUN_KEYS.closed,
    ANOTHER_RUN.state,
    ANOTHER_RUN.client(CLIENT).hash,
    ANOTHER_RUN.client(CLIENT).lease,
    "flavor:runs",
    "flavor:removed",
    "rq:queue:flavor",
    "rq:job:x",
    "anything",
]


@pytest.mark.parametrize("key", FOREIGN)
def test_a_foreign_key_is_neither_read_nor_written(member: Redis, admin: Redis, key: str) -> None:
    before = admin.dump(key)
    for command in (
        ["GET", key],
        ["HGETALL", key],
        ["EXISTS", key],
        ["PTTL", key],
        ["WATCH", key],
        ["SET", key, "x"],
        ["SET", key, "x", "NX"],
        ["HSET", key, "field", "x"],
        ["PEXPIRE", key, "1"],
        ["DEL", key],
        ["DEL", OWN.lease, key],
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            member.execute_command(*command)
    with member.pipeline(transaction=True) as step:
        step.set(OWN.lease, "mine")
        step.set(key, "x")
        with pytest.raises(redis.exceptions.RedisError):
            step.execute()
    assert admin.dump(key) == before
    assert not admin.exists(OWN.lease)


@pytest.mark.parametrize("key", [RUN_KEYS.state, OWN.task(1), OWN.verdict(1), f"{OWN.to}:anything"])
def test_what_it_is_told_it_can_read_and_not_change(member: Redis, admin: Redis, key: str) -> None:
    admin.hset(key, "field", "told")
    assert member.hgetall(key) == {"field": "told"}
    for command in (["HSET", key, "field", "x"], ["DEL", key], ["PEXPIRE", key, "1"], ["SET", key, "x"]):
        with pytest.raises(redis.exceptions.NoPermissionError):
            member.execute_command(*command)
    assert admin.hgetall(key) == {"field": "told"}
    admin.delete(key)


@pytest.mark.parametrize(
    "command",
    [
        "EVAL return 0",
        "EVALSHA 0123456789012345678901234567890123456789 0",
        "SCRIPT LOAD return",
        "FUNCTION LIST",
        "FCALL f 0",
        "CONFIG GET *",
        "CONFIG SET maxmemory 1",
        "FLUSHALL",
        "FLUSHDB",
        "SCAN 0",
        "KEYS *",
        "RANDOMKEY",
        "DBSIZE",
        "ACL WHOAMI",
        "ACL LIST",
        f"ACL SETUSER flavor:{RUN}:{CLIENT} +@all",
        "CLIENT LIST",
        "CLIENT KILL TYPE normal",
        "INFO",
        "MONITOR",
        "SLOWLOG GET",
        "PUBSUB CHANNELS",
        "SELECT 1",
        "MOVE x 1",
        "SWAPDB 0 1",
        "SHUTDOWN NOSAVE",
        "REPLICAOF 127.0.0.1 1",
        "DEBUG JMAP",
        "MODULE LIST",
        "LPUSH rq:queue:flavor x",
        f"LPUSH {OWN.prefix}:x x",
        f"RENAME {OWN.lease} {OWN.started}",
        f"COPY {OWN.lease} {OWN.started}",
        f"APPEND {OWN.lease} x",
        f"XADD {OWN.prefix}:x * a b",
        f"RESTORE {OWN.prefix}:x 0 x",
    ],
)
def test_a_command_that_no_client_needs_is_refused(member: Redis, command: str) -> None:
    assert_denied(member, command)
    assert member.ping()


@pytest.mark.parametrize(
    "channel",
    [
        OTHER.state,
        OTHER.event(1, Event.TRAIN_STARTED),
        OTHER.update(1),
        OTHER.task(1),
        RUN_KEYS.state,
        RUN_KEYS.round(1),
        OWN.task(1),
        OWN.verdict(1),
        ANOTHER_RUN.state,
        "rq:pubsub:x",
    ],
)
def test_it_publishes_on_no_foreign_channel(member: Redis, channel: str) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        member.publish(channel, "x")


@pytest.mark.parametrize(
    "command",
    [f"HGETALL {OWN.hash}", f"HGETALL {OWN.update(1)}", f"WATCH {OWN.hash}", f"WATCH {OWN.lease} {OWN.started}"],
)
def test_what_costs_as_much_as_it_has_piled_up_is_refused(member: Redis, command: str) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        member.execute_command(*command.split())


def test_a_user_of_earlier_rights_is_an_edge_and_a_trainer_all_the_same(url: str, admin: Redis) -> None:
    """One that was enrolled before has more rights, and lacks none, until it is enrolled anew."""
    _is_an_edge(url, admin, *BEFORE)


@pytest.mark.parametrize(
    ("verb", "channel"),
    [
        ("subscribe", OTHER.state),
        ("subscribe", OTHER.task(1)),
        ("subscribe", RUN_KEYS.round(1)),
        ("subscribe", ANOTHER_RUN.state),
        ("subscribe", OWN.state),
        ("subscribe", OWN.event(1, Event.TRAIN_STARTED)),
        ("subscribe", OWN.task(1)),
        ("psubscribe", f"{OWN.prefix}:state"),
        ("subscribe", "__keyspace@0__:anything"),
        ("subscribe", "rq:pubsub:x"),
        ("psubscribe", "*"),
        ("psubscribe", f"{RUN_KEYS.prefix}*"),
        ("psubscribe", f"{RUN_KEYS.prefix}client:*"),
        ("psubscribe", OTHER.events_pattern),
        ("psubscribe", RUN_KEYS.rounds_pattern),
    ],
)
def test_it_hears_no_foreign_channel(member: Redis, verb: str, channel: str) -> None:
    """Nor single channels of its own: the server keeps each name."""
    with contextlib.closing(member.pubsub()) as heard:
        getattr(heard, verb)(channel)
        with pytest.raises(redis.exceptions.NoPermissionError):
            heard.get_message(timeout=5.0)


def test_it_can_do_all_that_an_edge_and_its_trainer_do(url: str, admin: Redis) -> None:
    """The parts by themselves; whole runs are in test_joining."""
    _is_an_edge(url, admin)


BEFORE = (
    *("-@all", "clearselectors", "+get", "+set", "+del", "+exists", "+pexpire", "+pttl", "+hset", "+hget", "+hmget"),
    *("+hgetall", "+multi", "+exec", "+discard", "+watch", "+unwatch", "+publish", "+ping", "+time", "+client|setname"),
    f"(-@all +subscribe +psubscribe +unsubscribe +punsubscribe &{OWN.own_pattern} &{OWN.events_pattern} "
    f"&{OWN.to_pattern} &{RUN_KEYS.state})",
)
"""The rights of a client before WATCH, HGETALL and the subscriptions were bounded."""


def _is_an_edge(url: str, admin: Redis, *rights: str) -> None:
    secret, _ = enroll(admin, RUN, CLIENT, where="here")
    if rights:
        admin.execute_command("ACL SETUSER", f"flavor:{RUN}:{CLIENT}", *rights)
    own = with_credentials(url, f"flavor:{RUN}:{CLIENT}", secret)
    with connect(own, client_name="flavor-fl:site-1") as client:
        assert RunStore(client, RUN, own).find() is None
        lease = Lease(client, OWN.lease, ttl_s=5, what="it")
        lease.acquire(told=print)
        assert lease.renew()
        events = ClientEvents(own, RUN, CLIENT, edge=lease.token)
        events.set(Event.TRAIN_INIT_DONE, 0)
        events.start_round(1)
        assert events.wait_started(0, timeout_s=5) == events.taken() == events.newest_started() == 1
        admin.publish(RUN_KEYS.state, "x")
        events.clean(Event.TRAIN_INIT_DONE, 0)
        assert not events.is_set(Event.TRAIN_INIT_DONE, 0)
        lease.release()
        events.close()
    admin.delete(OWN.started, OWN.taken, OWN.event(1, Event.TRAIN_STARTED))


def test_enrolled_anew_the_old_secret_is_worth_nothing(url: str, admin: Redis, member: Redis) -> None:
    name = member.connection_pool.connection_kwargs["username"]
    old = member.connection_pool.connection_kwargs["password"]
    assert member.ping()
    secret, _ = enroll(admin, RUN, CLIENT, where="here")
    assert len(secret) >= 43  # 256 bits
    assert secret != old
    with pytest.raises(redis.exceptions.AuthenticationError):
        member.ping()  # its connection was cut, and a new one is not let in
    with connect(with_credentials(url, name, secret)) as client:
        assert client.ping()
    assert enrolled(admin, RUN, where="here") == [CLIENT]


def test_a_revoked_client_is_cut_off_and_counts_as_lost(url: str, admin: Redis, member: Redis) -> None:
    member.hset(OWN.hash, mapping={"state": "ready"})
    member.set(OWN.lease, "its token")
    admin.hset(RUN_KEYS.reported, CLIENT, '["loss"]')
    assert not revoke_absent(admin, RUN, CLIENT, where="here"), "its edge runs"
    assert revoke(admin, RUN, CLIENT, where="here") is UserPersistence.LOST
    with pytest.raises(redis.exceptions.AuthenticationError):
        member.ping()
    assert admin.hgetall(OWN.hash) == {"state": "revoked", "reason": "it was revoked"}
    assert not admin.exists(OWN.lease, RUN_KEYS.reported)
    assert not revoke_absent(admin, RUN, CLIENT, where="here"), "it has taken no part in the run"
    admin.hset(RUN_KEYS.reported, CLIENT, '["loss"]')
    admin.delete(OWN.hash)
    assert revoke_absent(admin, RUN, CLIENT, where="here")
    assert admin.hget(OWN.hash, "state") == "revoked"
    assert not admin.exists(RUN_KEYS.reported)
    assert revoke(admin, RUN, CLIENT, where="here") is None
    assert enrolled(admin, RUN, where="here") == []
    admin.delete(OWN.hash)


def test_an_aggregator_reads_every_key_of_a_client_but_its_signed_urls(url: str, admin: Redis) -> None:
    """Redis has no rule that takes a key away, so the rules name all the others: also of a client that is called so."""
    secret, _ = enroll_worker(admin, "agg-2", where="here")
    with connect(with_credentials(url, worker_user("agg-2"), secret)) as worker:
        for run, client in (("r", "a"), ("urls", "urls"), ("r", "client"), ("s", "to"), ("r", "rls")):
            keys = RunKeys(run).client(client)
            for key in (keys.hash, keys.lease, keys.log, keys.wish, keys.task(1), keys.admission, keys.evaluations):
                assert worker.exists(key) == 0
            within = ("EVAL", f"return redis.call('get', '{keys.urls}')", 0)
            for asked in (("GET", keys.urls), ("DEL", keys.urls), ("EVAL", "return 1", 1, keys.urls), within):
                with pytest.raises(redis.exceptions.RedisError, match=r"(?i)permission|can't access"):
                    worker.execute_command(*asked)
    revoke_worker(admin, "agg-2", where="here")


def test_a_revoked_aggregator_is_cut_off(url: str, admin: Redis) -> None:
    secret, _ = enroll_worker(admin, "agg-1", where="here")
    with connect(with_credentials(url, worker_user("agg-1"), secret)) as worker:
        assert worker.ping()
        assert enrolled_workers(admin, where="here") == ["agg-1"]
        assert revoke_worker(admin, "agg-1", where="here") is UserPersistence.LOST
        with pytest.raises(redis.exceptions.AuthenticationError):
            worker.ping()
    assert revoke_worker(admin, "agg-1", where="here") is None
    assert enrolled_workers(admin, where="here") == []


def test_a_subscription_that_is_allowed_no_longer_ends(url: str, admin: Redis, member: Redis) -> None:
    """Not with a thread that died silently, nor by asking for ever."""
    heard = Subscription(member, url, channels=[RUN_KEYS.state], patterns=[OWN.to_pattern])
    heard.open()
    admin.publish(RUN_KEYS.state, "x")
    assert heard.wait(10) == [RUN_KEYS.state]
    admin.execute_command("ACL SETUSER", f"flavor:{RUN}:{CLIENT}", "clearselectors")  # which ends its subscriptions
    with pytest.raises(BusUnavailable, match="ACL does not allow it"):
        heard.wait(10)
    heard.close()


def test_the_servers_word_for_it(admin: Redis) -> None:
    """The rules as the server holds them: an extra one would show here."""
    enroll(admin, RUN, CLIENT, where="here", database=3)
    user = admin.acl_getuser(f"flavor:{RUN}:{CLIENT}")
    assert user["keys"] == [
        f"~{OWN.hash}",
        f"~{OWN.own_pattern}",
        f"%R~{RUN_KEYS.state}",
        f"%R~{OWN.to_pattern}",
    ]
    assert user["channels"] == [f"&{OWN.own_pattern}"]
    assert len(user["passwords"]) == 1
    selectors = [dict(zip(each[::2], each[1::2], strict=True)) for each in user["selectors"]]
    parts = ("commands", "keys", "channels")
    assert [{name: set(each[name].split()) for name in parts} for each in selectors] == [
        {"commands": {"-@all", f"+{name}"}, "keys": set(keys), "channels": set(channels)}
        for name, keys, channels in [
            ("hgetall", [f"%R~{RUN_KEYS.state}", f"%R~{OWN.to_pattern}"], []),
            ("watch", [f"%R~{OWN.lease}", f"%R~{RUN_KEYS.state}"], []),
            ("subscribe", [], [f"&{RUN_KEYS.state}"]),
            ("psubscribe", [], [f"&{hears}" for hears in (OWN.own_pattern, OWN.events_pattern, OWN.to_pattern)]),
        ]
    ]
    granted = {right for right in (*user["commands"], *user["categories"]) if right.startswith("+")} - {"+@transaction"}
    assert granted <= {
        *("+get", "+set", "+del", "+exists", "+pexpire", "+pttl", "+hset", "+hget", "+hmget"),
        *("+multi", "+exec", "+discard", "+unwatch", "+publish", "+ping", "+time", "+client|setname"),
        *("+select|3", "+unsubscribe", "+punsubscribe"),
    }


def test_a_client_of_another_database_gets_into_that_one_alone(url: str, admin: Redis) -> None:
    secret, _ = enroll(admin, RUN, CLIENT, where="here", database=3)
    for database in (3, 4):
        with (
            redis.Redis.from_url(
                with_credentials(url, f"flavor:{RUN}:{CLIENT}", secret), db=database, driver_info=None
            ) as client,
            contextlib.nullcontext() if database == 3 else pytest.raises(redis.exceptions.NoPermissionError),
        ):
            assert client.ping()


def test_what_the_server_is_told_is_the_hash_alone() -> None:
    words = rules(RUN, CLIENT, "the secret")
    assert "the secret" not in " ".join(words)
    assert f"#{hashlib.sha256(b'the secret').hexdigest()}" in words
    assert words.index("-@all") < min(i for i, word in enumerate(words) if word.startswith("+"))


def test_no_secret_crosses_the_wire_but_in_auth(url: str, admin: Redis) -> None:
    """MONITOR and SLOWLOG show enrolment with the hash alone, and AUTH redacted."""
    admin.config_set("slowlog-log-slower-than", 0)
    seen: list[str] = []
    with admin.monitor() as monitor:
        over = threading.Event()

        def watch() -> None:
            for entry in monitor.listen():
                seen.append(entry["command"])
                if entry["command"] == "PING":
                    over.set()
                    return

        thread = threading.Thread(target=watch)
        thread.start()
        secret, _ = enroll(admin, RUN, CLIENT, where="here")
        with connect(with_credentials(url, f"flavor:{RUN}:{CLIENT}", secret)) as client:
            client.get(OWN.lease)
        admin.ping()
        assert over.wait(10)
        thread.join()
    assert f"GET {OWN.lease}" in seen
    slow = str(admin.slowlog_get(128))
    assert "SETUSER" in slow
    for text in ("\n".join(seen), slow, str(admin.client_list()), str(admin.acl_list()), str(admin.acl_log())):
        assert secret not in text


def test_what_protects_less_than_a_token_promises_is_spelled_out_for_the_first_site_of_a_run() -> None:
    with embedded_server() as url, connect(url) as admin:
        admin.config_set("acllog-max-len", "128")

        def told(run: str, site: str) -> list[str]:
            done = CliRunner().invoke(enroll_command, [run, site, "--unsaved", "--redis-url", url])
            assert done.exit_code == 0, done.stderr
            return [line for line in done.stderr.splitlines() if "may join" not in line]

        still = "flavor: warning: still so, as this run's first site was told with the way to mend it: "
        lasting = (
            "a restart of the server may forget its users; "
            "the server lets anyone in as its user 'default', so tokens protect nothing yet"
        )
        bounds = "; the server lacks settings that bound what one site can take of it"
        for run, site, is_long in (("a", "x", True), ("a", "x", True), ("a", "y", False), ("b", "y", True)):
            lines = told(run, site)
            if not is_long:
                assert lines == [f"{still}{lasting}{bounds}; the token's URL works on this machine alone"]
                continue
            assert len(lines) == 4
            assert any("CONFIG SET acllog-max-len 16" in line for line in lines)
        admin.config_set("acllog-max-len", "16")
        assert told("a", "z") == [f"{still}{lasting}; the token's URL works on this machine alone"]


def test_what_the_operator_is_told(bench) -> None:
    """The commands: the token on stdout alone, everything else on stderr, one line each."""
    url = bench.url
    process = bench.done("flavor", "enroll", "--unsaved", bench.run, "site-1", "--store", "/mnt/store")
    assert process.wait() == 0, process.stderr
    token = JoinToken.parse(process.stdout)
    assert process.stdout.count("\n") == 1
    assert (token.run, token.client, token.store) == (bench.run, "site-1", "/mnt/store")
    assert token.url == url
    assert token.user == f"flavor:{bench.run}:site-1"
    assert token.secret.get_secret_value() not in process.stderr
    lines = process.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["flavor"] * 4
    for told in (
        "with no earlier one",
        "flavor-fv to judge models only",
        "memory alone",
        "lets anyone in as its user 'default'",
        "reaches Redis",
    ):
        assert sum(told in line for line in lines) == 1, lines
    other = bench.done(
        "flavor", "enroll", "--unsaved", bench.run, "site-1", "--public-url", "rediss://u:p@bus.example:7000/1?x=y"
    )
    renewed = JoinToken.parse(other.stdout)
    assert renewed.url == "rediss://bus.example:7000/1"
    assert renewed.secret != token.secret
    assert "this machine alone" not in other.stderr
    assert is_open(bench.redis)
    bench.runs.create(rounds=1, config={})
    bench.runs.end(RunState.STOPPED, "enough")
    forgotten = bench.done("flavor", "rm", bench.run)
    assert forgotten.wait() == 0
    assert "still enrolled for a run of this name: site-1 (`flavor revoke`)" in forgotten.stderr
    for words, code, told in [
        (["enroll", bench.run, "a:b"], 2, "client 'a:b' cannot be used"),
        (["enroll", "a b", "site-1"], 2, "run 'a b' cannot be used"),
        (["enroll", bench.run, "x", "--public-url", "http://x"], 2, "expected redis://"),
        (["revoke", bench.run, "site-2"], 1, f"no client 'site-2' is enrolled for run '{bench.run}'"),
    ]:
        process = bench.done("flavor", *words)
        assert process.wait() == code
        assert process.stderr.startswith("Error: ")
        assert told in process.stderr
        assert process.stdout == ""
    assert "there is site-1" in process.stderr
    process = bench.done("flavor", "revoke", bench.run, "site-1")
    assert (process.wait(), process.stdout) == (0, "")
    assert "site-1 is revoked" in process.stderr
    revoked = with_credentials(url, renewed.user, renewed.secret.get_secret_value())
    wrong = bench.done("flavor", "enroll", "--unsaved", bench.run, "x", "--debug", env={"FLAVOR_REDIS_URL": revoked})
    assert wrong.wait() == 3
    assert "a client that was revoked" in wrong.stderr
    assert renewed.secret.get_secret_value() not in wrong.stderr


def test_the_token_in_a_file_is_its_owners_alone(bench) -> None:
    """Also where the umask leaves files to all; where a shell wrote the file, one line says that others can read it."""
    env = prepared(bench.folder) | {"FLAVOR_REDIS_URL": bench.url}

    def enrols(*words: object, **where: Any) -> tuple[int, str]:
        command = ["flavor", "enroll", "--unsaved", bench.run, "site-1", *map(str, words)]
        done = subprocess.run(command, env=env, umask=0o022, stderr=subprocess.PIPE, text=True, check=False, **where)
        return done.returncode, done.stderr

    file = bench.work / "site-1.token"
    for _ in range(2):  # the second replaces the first
        assert enrols("--out", file, stdout=subprocess.DEVNULL)[0] == 0
        token = JoinToken.parse(f"@{file}")
        assert (token.client, file.stat().st_mode & 0o777) == ("site-1", 0o600)
    for bad in (bench.work / "nowhere" / "token", bench.work):
        code, told = enrols("--out", bad, stdout=subprocess.DEVNULL)
        assert (code, f"--out {bad}: it cannot be written there" in told) == (2, True), told
    with connect(with_credentials(bench.url, token.user, token.secret.get_secret_value())) as client:
        assert client.ping(), "the token that was there is still good"
    for mode, warned in ((0o644, True), (0o640, True), (0o600, False)):
        written = bench.work / f"{mode}.token"
        written.touch()
        written.chmod(mode)
        with written.open("wb") as out:
            code, told = enrols(stdout=out)
        assert (code, "other users can read the file" in told) == (0, warned), told


def test_a_site_that_comes_with_a_token_after_the_end_is_told_how_the_run_ended(bench) -> None:
    """It may read the run's hash alone, and no round's, pruned or not."""
    coordinator = bench.serve("--keep-rounds", 1, rounds=3, clients=1)
    bench.aggregator()
    assert bench.edge("site-1", bench.trainer()).wait() == 0
    assert coordinator.wait() == 0, coordinator.stderr
    token = bench.done("flavor", "enroll", "--unsaved", bench.run, "site-1").stdout.strip()
    options = ["--join", token, "-m", bench.trainer(), "--join-timeout-s", 0.2, "--workspace", bench.folder / "w"]
    anew = {"FLAVOR_REDIS_URL": None, "FLAVOR_STORE": str(bench.store)}

    def comes() -> tuple[int, str]:
        late = bench.done("flavor-fl", *options, env=anew)
        return late.wait(), late.stderr

    for state, reason, code in [
        ("finished", "all 3 rounds are closed", 1),
        ("finished", "early, after round 3 of 4: 1 script ended", 7),
        ("failed", "2 updates are needed and 1 can come", 1),
        ("stopped", "a pause", 8),
    ]:
        rounds = 4 if "early" in reason else 3
        bench.redis.hset(bench.runs.keys.state, mapping={"state": state, "reason": reason, "rounds": rounds})
        came, told = comes()
        assert (came, f"run {bench.run!r} is over ({state}: {reason})" in told) == (code, True), told
    bench.done("flavor", "revoke", bench.run, "site-1")
    came, told = comes()
    assert (came, "a client that was revoked" in told) == (3, True), told


def test_a_client_cannot_enroll_others(url: str, member: Redis) -> None:
    with pytest.raises(BusUnavailable, match="ACL does not allow it"):
        enroll(member, RUN, "site-2", where="here")


def test_an_aggregators_url_enrolls_no_site_and_the_server_is_not_blamed(bench) -> None:
    worker = bench.done("flavor", "enroll", "--unsaved", "--worker", "agg-1").stdout.strip()
    for words in (["enroll", bench.run, "site-7"], ["enroll", "--worker", "x"], ["enroll", "--unsaved", "r", "s"]):
        refused = bench.done("flavor", *words, env={"FLAVOR_REDIS_URL": worker})
        assert (refused.wait(), refused.stdout) == (3, "")
        assert "needs an administrator's URL" in refused.stderr
        assert "could not save" not in refused.stderr


def test_a_server_with_a_users_file_keeps_them(tmp_path: Path) -> None:
    with redis_server(tmp_path / "r", users_file=True, password="operators") as server:
        with connect(server.url) as admin:
            assert not is_open(admin)
            secret, kept = enroll(admin, RUN, CLIENT, where="here")
            assert kept is UserPersistence.SAVED
        saved = (server.folder / "users.acl").read_text()
        assert f"user flavor:{RUN}:{CLIENT} on" in saved
        assert secret not in saved
        with connect(server.url) as admin:
            assert revoke(admin, RUN, CLIENT, where="here") is UserPersistence.SAVED
        assert f"flavor:{RUN}" not in (server.folder / "users.acl").read_text()
