"""Rows 8, 35, 38, 50, 53: a site that takes what is not its own, a server that is another, passwords that get out."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import redis
from redisserver import redis_server

from flavor.bus.connection import connect
from flavor.bus.keys import DROPPED, RunKeys
from flavor.bus.token import JoinToken
from flavor.certs import make_certificates
from flavor.protocol import SPEAKS
from flavor.records.names import Event
from tests.faults.federation import Faulty
from tests.faults.forge import Forge, model
from tests.faults.history import KEEP

OPERATOR = "0perators-passw0rd"


def enrolled(faulty: Faulty, client: str, env=None) -> str:
    """The client's join token."""
    words = ["--unsaved", faulty.bench.run, client, "--store", faulty.bench.store]
    process = faulty.bench.done("flavor", "enroll", *words, env=env)
    assert process.wait() == 0, process.stderr
    return process.stdout.strip()


def joined(faulty: Faulty, token: str, *flags: object, env=None):
    """An edge that knows its token and nothing else."""
    name = JoinToken.parse(token).client
    words = ["-m", faulty.bench.trainer(*flags), "--workspace", faulty.bench.folder / name]
    alone = {"FLAVOR_REDIS_URL": None, "FLAVOR_JOIN": token, **(env or {})}
    return faulty.bench.start("flavor-fl", *words, env=alone)


def test_a_folder_that_the_run_alone_names_is_not_used(faulty):
    """What a coordinator calls its store may be any folder of the site's: the site's own user has to name it."""
    bench = faulty.bench
    coordinator = faulty.serve("--on-quorum-lost", "wait")
    bench.aggregator()
    edges = {"c1": bench.edge("c1", bench.trainer())}
    bench.logged("client.joined", client="c1")
    silent = bench.edge("c2", bench.trainer("--say", "I train"), env={"FLAVOR_STORE": None})
    assert silent.wait() == 2
    [line] = silent.stderr.splitlines()
    assert f"Error: run {bench.run!r} keeps its objects in the folder {bench.store}" in line, line
    assert f"start with --store {bench.store}" in line
    assert "I train" not in silent.stdout
    told = bench.redis.hgetall(bench.runs.keys.client("c2").hash)
    why = "it does not take part as this run asks: its user has not named the run's store (--store)"
    assert (told["failure"], told["reason"]) == ("declined", why)
    assert not [value for value in told.values() if str(bench.store) in value], "a class leaves the site"
    edges["c2"] = bench.edge("c2", bench.trainer(), "--store", bench.store, env={"FLAVOR_STORE": None})
    faulty.finish(coordinator, edges)


def test_a_site_that_writes_as_another_or_into_the_queue_is_refused(on_port):
    """Rows 8 and 35: with the Redis user of c2, in the middle of a round; NOPERM each time, and nothing comes of it."""
    bench, gate = on_port.bench, on_port.gate("c1")
    tokens = {client: enrolled(on_port, client) for client in on_port.clients}
    coordinator = on_port.serve()
    aggregator = bench.aggregator()
    edges = {
        "c1": joined(on_port, tokens["c1"], "--gate", gate.path, "--where", "saved", "--at", 2),
        "c2": joined(on_port, tokens["c2"]),
    }
    gate.reached()
    bench.logged("update.accepted", client="c2", round=2)
    keys, own = bench.runs.keys.client("c1"), bench.runs.keys.client("c2")
    foreign = [
        ("SET", keys.event(2, Event.TRAIN_FINISHED), "1"),
        ("HSET", keys.update(2), "path", "runs/x", "digest", "0" * 64),
        ("SET", keys.lease, "mine"),
        ("DEL", keys.lease),
        ("HSET", keys.hash, "state", "gone"),
        ("PUBLISH", keys.event(2, Event.TRAIN_FINISHED), "1"),
        ("HSET", bench.runs.keys.round(2), "state", "closed"),
        ("HSET", own.verdict(2), "accepted", "1"),
        ("LPUSH", f"rq:queue:{bench.run}", "made-up"),
        ("HSET", "rq:job:made-up", "data", "os.system"),
        ("SADD", "rq:queues", "rq:queue:mine"),
        ("EVAL", "return redis.call('GET', KEYS[1])", "1", own.lease),
        ("FLUSHALL",),
    ]
    with connect(JoinToken.parse(tokens["c2"]).credentials()) as site:
        assert site.get(own.lease), "it is let in, and has its own"
        for words in foreign:
            with pytest.raises(redis.exceptions.NoPermissionError):
                site.execute_command(*words)
    assert not bench.redis.exists(keys.update(2), keys.event(2, Event.TRAIN_FINISHED), "rq:job:made-up")
    assert not bench.redis.sismember("rq:queues", "rq:queue:mine")
    gate.open()
    on_port.finish(coordinator, edges)
    assert [bench.runs.read_round(n).contributors for n in (1, 2, 3)] == [on_port.clients] * 3
    assert aggregator.running
    assert not bench.redis.exists(DROPPED), "no job of anybody else's was ever in the queue"


@contextlib.contextmanager
def seated(bench, token: str):
    """What writes as a site does, with no edge behind it: it has taken its seat, and says that it is ready."""
    joins = JoinToken.parse(token)
    keys = bench.runs.keys.client(joins.client)
    with connect(joins.credentials()) as site:
        site.set(keys.lease, "vm:1:made-up", px=60_000)
        site.hset(keys.hash, mapping={**SPEAKS, "state": "ready", "host": "vm"})
        site.publish(keys.state, "ready")
        bench.logged("client.joined", client=joins.client)
        yield site


def others_handed_in(faulty: Faulty) -> None:
    """Wait until those that keep the rules have had their updates of round 1 accepted."""
    for client in faulty.clients:
        faulty.bench.logged("update.accepted", client=client, round=1)


def nonsense(keys, site, number: int) -> dict[str, Callable[[], object]]:
    """What the user of one site can write that nobody expects."""
    update = keys.update(number)

    def handed_in(**fields: str) -> None:
        site.hset(update, mapping=fields)
        site.publish(update, str(number))

    def replaced(key: str) -> None:
        site.delete(key)
        site.set(key, "x")
        site.publish(f"{keys.prefix}:state", "x")
        site.publish(update, "x")

    return {
        "refused as if late": lambda: handed_in(refused=f"late: round {number} no longer takes updates"),
        "hash that is none": lambda: replaced(keys.hash),
        "update that is none": lambda: replaced(update),
        "reason that is no text": lambda: site.hset(keys.hash, mapping={"reason": b"\xff\xfe", "public_key": b"\xff"}),
        "word that is no text": lambda: (site.publish(keys.state, b"\xff"), site.publish(update, b"\xff")),
        "name that is no text": lambda: site.set(keys.prefix.encode() + b":\xff:lease", "x"),
    }


def test_a_site_that_claims_a_size_and_takes_it_back_holds_nobody_up(on_port):
    """Nobody could inspect so much in a hundred days, and when they look there is nothing."""
    bench = on_port.bench
    token = enrolled(on_port, "c3")
    coordinator = bench.serve(*KEEP, "--quorum", 2, "--round-timeout-s", 6, rounds=1, clients=3)
    aggregator = bench.aggregator()
    keys = bench.runs.keys.client("c3")
    with seated(bench, token) as site:
        edges = on_port.edges()
        others_handed_in(on_port)
        aggregator.send(signal.SIGSTOP)
        site.hset(keys.update(1), mapping={"path": "p", "digest": "d", "size": "9" * 15})
        site.publish(keys.update(1), "1")
        bench.eventually("c3's update is in a job", lambda: list(bench.redis.scan_iter("rq:job:inspect-*-c3-*")))
        site.delete(keys.update(1))
        aggregator.send(signal.SIGCONT)
        on_port.rounds = 1
        on_port.finish(coordinator, edges)
    assert "late: c3" in bench.logged("round.aggregating", round=1)["reason"]


def test_sites_that_write_nonsense_hold_nobody_up(on_port):
    """Their round closes without them by the deadline, the others finish, and nothing of them is left."""
    bench = on_port.bench
    kinds = nonsense(RunKeys("r").client("c"), None, 1)
    writers = {f"writer-{number}": what for number, what in enumerate(kinds)}
    tokens = {name: enrolled(on_port, name) for name in writers}
    bounds = ("--quorum", 2, "--round-timeout-s", 4, "--heartbeat-timeout-s", 2)
    coordinator = bench.serve(*KEEP, *bounds, rounds=on_port.rounds, clients=2 + len(writers))
    aggregator = bench.aggregator()
    with contextlib.ExitStack() as stack:
        sites = {name: stack.enter_context(seated(bench, tokens[name])) for name in writers}
        edges = on_port.edges()
        bench.logged("round.opened", round=1)
        assert set(bench.runs.read_round(1).expected) == {*on_port.clients, *writers}
        for name, what in writers.items():
            nonsense(bench.runs.keys.client(name), sites[name], 1)[what]()
        bench.logged("round.closed", round=1)
        for name, site in sites.items():
            keys = bench.runs.keys.client(name)
            site.delete(keys.lease)
            site.publish(keys.state, "")
        on_port.finish(coordinator, edges)
    assert [bench.runs.read_round(n).contributors for n in (1, 2, 3)] == [on_port.clients] * 3
    aggregator.end()
    for words in (*(("revoke", bench.run, name) for name in writers), ("rm", bench.run)):
        done = bench.done("flavor", *words)
        assert done.wait() == 0, done.stderr
    prefix = bench.runs.keys.prefix.encode()
    with redis.Redis.from_url(bench.url) as raw:
        assert [key for key in raw.scan_iter() if key.startswith(prefix)] == []


@pytest.mark.parametrize("how", [{}, {"protocol": "3"}])
def test_a_quarantined_site_counts_in_no_round_whatever_it_says_of_itself(on_port, how):
    """Row 53: in the round in which it was quarantined and in later ones, with the rights of its own Redis user."""
    bench = on_port.bench
    token = enrolled(on_port, "c3")
    bounds = ("--quorum", 2, "--quarantine-after", 2, "--on-quorum-lost", "wait")
    coordinator = bench.serve(*KEEP, *bounds, rounds=on_port.rounds, clients=3)
    bench.aggregator()
    keys, forge = bench.runs.keys.client("c3"), Forge(bench)
    with seated(bench, token) as site:
        edges = on_port.edges(only={"c1": ("--hold", "--at", 1)})  # the round goes on until c3 is shut out
        bench.logged("round.opened", round=1)
        for number in range(2):
            site.delete(keys.update(1))
            site.hset(keys.update(1), mapping={"refused": "no", "try": str(number)})
            site.publish(keys.update(1), "1")
            bench.eventually("it is answered", lambda n=number: site.hget(keys.verdict(1), "try") == str(n))
        bench.logged("client.quarantined", client="c3")
        bench.held("c1")
        bench.release("c1")
        site.hset(keys.hash, mapping=how or {"reason": ""})
        site.publish(keys.state, "ready")
        site.delete(keys.update(1))
        site.hset(keys.update(1), mapping=forge.sent("c3", model(w=np.full((3, 2), 1000, np.float32)), **{"try": "x"}))
        site.publish(keys.update(1), "1")
        if how:
            bench.logged("client.not_admitted", client="c3")
            site.hset(keys.hash, mapping=SPEAKS)
            site.publish(keys.state, "ready")
        on_port.finish(coordinator, edges)
        assert not site.exists(keys.task(2))
    rounds = [bench.runs.read_round(n) for n in (1, 2, 3)]
    assert [each.contributors for each in rounds] == [on_port.clients] * 3
    assert [each.expected for each in rounds[1:]] == [on_port.clients] * 2
    assert not [e for e in bench.log() if e.get("client") == "c3" and e["event"] == "update.accepted"]
    assert bench.runs.refusals() == {"c3": 2}


@contextlib.contextmanager
def flooding(token: str, channel: str, payload: str, times: int):
    """Publications of a site without end, and nobody reads what the server answers."""
    over = threading.Event()

    def flood() -> None:
        with connect(JoinToken.parse(token).credentials()) as site:
            connection = site.connection_pool.get_connection()
            block = b"".join(connection.pack_command("PUBLISH", channel, payload)) * times
            threading.Thread(target=deaf, args=(connection._sock,), daemon=True).start()
            while not over.is_set():
                connection._sock.sendall(block)
            connection.disconnect()

    def deaf(answers: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while answers.recv(1 << 20):
                continue

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_site_that_publishes_without_end_holds_no_round_open(on_port):
    """Its round closes without it by the deadline: what is heard is taken in for a moment at a time, each name once."""
    bench = on_port.bench
    token = enrolled(on_port, "c3")
    coordinator = bench.serve(*KEEP, "--quorum", 2, "--round-timeout-s", 10, rounds=1, clients=3)
    aggregator = bench.aggregator()
    with seated(bench, token):
        edges = on_port.edges()
        others_handed_in(on_port)
        near_ms = bench.runs.read_round(1).deadline_ms - 3000
        bench.eventually("the deadline is near", lambda: bench.runs.now_ms() > near_ms)
        with flooding(token, bench.runs.keys.client("c3").state, "x", 10_000):
            bench.logged("round.closed", round=1)
    on_port.rounds = 1
    on_port.finish(coordinator, edges)
    view = bench.runs.read_round(1)
    assert view.closed_ms - view.deadline_ms < 5000
    aggregator.end()


def test_a_flood_that_cuts_the_coordinator_off_gives_no_round_more_time(on_port):
    """Row 50: the subscription is cut again and again; the server was never away, and the deadline stands."""
    bench = on_port.bench
    bench.redis.config_set("client-output-buffer-limit", "pubsub 1mb 1mb 1")
    token = enrolled(on_port, "c3")
    coordinator = bench.serve(*KEEP, "--round-timeout-s", 3, rounds=1, clients=3)
    aggregator = bench.aggregator()
    with seated(bench, token):
        edges = on_port.edges("--hold", "--at", 1)
        bench.logged("round.opened", round=1)
        with flooding(token, bench.runs.keys.client("c3").state, "x" * 4_000_000, 1):
            assert coordinator.wait() == 1
    view = bench.runs.read()
    assert "the deadline passed with 0 of 3" in view.reason
    assert "c1" not in view.reason
    assert view.ended_ms - bench.runs.read_round(1).deadline_ms < 5000
    for process in (*edges.values(), aggregator):
        process.end()


def test_what_is_inspected_at_the_deadline_has_one_lease(faulty):
    """Row 50: an object that the store withholds, or that is said to be vast; here nobody inspects it at all."""
    bench, faulty.clients, faulty.rounds = faulty.bench, ("c1", "c2", "c3"), 1
    limits = ("--quorum", 2, "--round-timeout-s", 10, "--aggregation-lease-s", 2, "--aggregation-attempts", 50)
    coordinator = faulty.serve(*limits)
    aggregator = bench.aggregator()
    edges = faulty.edges(only={"c3": ("--hold", "--at", 1)})
    bench.held("c3")
    for client in ("c1", "c2"):
        bench.logged("update.accepted", client=client, round=1)
    aggregator.send(signal.SIGSTOP)
    bench.release("c3")
    assert "not inspected in time: c3" in bench.logged("round.aggregating", round=1)["reason"]
    late_ms = bench.runs.now_ms() - bench.runs.read_round(1).deadline_ms
    aggregator.send(signal.SIGCONT)
    assert 2000 <= late_ms < 2000 + 5000
    assert coordinator.wait() == 0, coordinator.stderr
    assert [edge.wait() for edge in edges.values()] == [0, 0, 0]
    assert bench.runs.read_round(1).contributors == ("c1", "c2")


@pytest.fixture
def guarded(tmp_path: Path, bench_at: Callable):
    """A server behind TLS with a password, and what the operator's processes know of it."""
    made = make_certificates(tmp_path / "tls", ["localhost"])
    with redis_server(tmp_path / "redis", certificates=made, password=OPERATOR) as server:
        env = {"FLAVOR_REDIS_URL": server.url, "FLAVOR_TLS_CA": str(made.certificate("ca"))}
        yield Faulty(bench_at(server.address)), server, env


def test_a_server_with_another_certificate_gets_nothing_and_no_password_gets_out(guarded, tmp_path):
    """Rows 35 and 38: one site trusts another CA, one has a wrong password, all connections of the others are cut."""
    faulty, server, env = guarded
    bench = faulty.bench
    tokens = {client: enrolled(faulty, client, env) for client in (*faulty.clients, "c3", "c4")}
    parsed = {client: JoinToken.parse(token) for client, token in tokens.items()}
    coordinator = faulty.serve(env=env)
    aggregator = bench.aggregator(env=env)
    reached = {"TEST_BUS": server.address}
    edges = {
        "c1": joined(faulty, tokens["c1"], "--hold", env=reached),
        "c2": joined(faulty, tokens["c2"], env=reached),
    }
    bench.held("c1")

    # -- c3 is led to a server that is not the one that its token is of; c4 was enrolled anew meanwhile
    foreign = make_certificates(tmp_path / "foreign", ["localhost"])
    with redis_server(tmp_path / "impostor", certificates=foreign) as impostor:
        misled = parsed["c3"].model_copy(update={"url": impostor.url})
        refused = joined(faulty, misled.encode())
        assert refused.wait() == 3
        assert "its certificate is refused" in refused.stderr.splitlines()[-1]
        with connect(impostor.address) as inside:
            assert "c3" not in str(inside.acl_log()), "no user has even been named to it"
    outdated = tokens["c4"]
    tokens["c4, anew"] = enrolled(faulty, "c4", env)
    parsed["c4, anew"] = JoinToken.parse(tokens["c4, anew"])
    turned_away = joined(faulty, outdated)
    assert turned_away.wait() == 3
    assert "enrolled anew needs a new one" in turned_away.stderr.splitlines()[-1]

    # -- everybody loses the server for a moment, and goes on
    listed = bench.survivors()
    assert len(listed) >= 6  # coordinator, aggregator, two edges, two trainers
    for kind in ("normal", "pubsub"):
        with contextlib.suppress(ConnectionError):
            bench.redis.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    bench.release("c1")
    faulty.finish(coordinator, edges)
    aggregator.end()

    # -- and now for what all of them have said, written and shown
    secrets = [OPERATOR, *tokens.values(), *(token.secret.get_secret_value() for token in parsed.values())]
    assert len(set(secrets)) == 11
    processes = [coordinator, aggregator, *edges.values(), refused, turned_away]
    said = [*listed.values(), *(text for process in processes for text in (process.stdout, process.stderr))]
    said += [repr(token) for token in parsed.values()]
    said += [str(fields) for fields in bench.log()]
    written = [path for path in bench.folder.rglob("*") if path.is_file()]
    assert len(written) > 20
    for secret in secrets:
        assert not [text for text in said if secret in text]
        assert not [path for path in written if secret.encode() in path.read_bytes()]
