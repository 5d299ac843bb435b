"""Rows 9 to 16, 34 and 37: edges and trainers that die, pause, come twice, are cut off or have no place left."""

from __future__ import annotations

import functools
import os
import shutil
import signal

import networks
import pytest

from flavor.bus.connection import SILENCE_S
from flavor.records.names import Event
from flavor.records.pulse import Doing
from tests.faults.federation import MISSED, Faulty
from tests.faults.servers import Server, tmpfs
from tests.polled import eventually

WAIT = ("--on-quorum-lost", "wait")
BEATS = ("--heartbeat-timeout-s", 3)
"""Who holds a lease shows within a second that it lives."""
UNUSED_S = 5.0
"""No connection of an edge is unused for longer."""
EACH_BEAT = ("load", "doing_ms")
"""What an edge writes anew with each heartbeat, and what its clock makes of it."""
SLACK_S = 5.0
"""What a machine that has other things to do may add to a bound."""


def last_line(process) -> str:
    assert "Traceback" not in process.stderr
    return process.stderr.splitlines()[-1]


def contributors(faulty, number: int) -> tuple[str, ...]:
    return faulty.bench.runs.read_round(number).contributors


def killed(edge) -> None:
    edge.send(signal.SIGKILL)
    edge.wait()


def test_an_edge_killed_in_training_is_missed_and_the_quorum_decides(faulty):
    """Row 9: nobody gives notice; the lease ends, and the round closes with who is left. Its trainer ends, too."""
    faulty.clients = ("c1", "c2", "c3")
    coordinator = faulty.serve("--quorum", 2, "--heartbeat-timeout-s", 3)
    faulty.bench.aggregator()
    edges = faulty.edges(only={"c2": ("--hold", "--at", 2)})
    faulty.bench.held("c2")
    killed(edges.pop("c2"))
    assert "its heartbeat stopped" in faulty.bench.logged("client.lost", client="c2")["reason"]
    faulty.finish(coordinator, edges)
    assert [contributors(faulty, n) for n in (1, 2, 3)] == [("c1", "c2", "c3"), ("c1", "c3"), ("c1", "c3")]
    assert "c2: its heartbeat stopped" in faulty.bench.logged("round.aggregating", round=2)["reason"]
    left = faulty.bench.survivors().values()
    assert not any("toy_trainer" in command for command in left), left


def test_a_late_update_that_nobody_heard_of_is_refused_all_the_same(faulty):
    """Row 3: it is handed in when its round takes none any more, its publication is lost, and the coordinator dies."""
    bench, keys = faulty.bench, faulty.bench.runs.keys.client("c2")
    first = faulty.serve("--quorum", 1, *MISSED, env={"FLAVOR_FAILPOINT": "coordinator.opened:3"})
    aggregator = bench.aggregator()
    edges = faulty.edges(only={"c2": ("--hold", "--at", 2)})
    bench.held("c2")
    bench.logged("update.accepted", client="c1", round=2)
    aggregator.send(signal.SIGSTOP)
    killed(edges.pop("c2"))
    bench.logged("round.aggregating", round=2)
    bench.redis.hset(keys.update(2), mapping=bench.redis.hgetall(keys.update(1)))
    aggregator.send(signal.SIGCONT)
    assert first.wait() == -9
    second = faulty.serve("--quorum", 1, *MISSED)
    assert bench.logged("update.refused", client="c2", round=2)["reason"] == "late: round 2 no longer takes updates"
    faulty.finish(second, edges)


def test_what_a_paused_edge_writes_after_another_took_over_is_fenced_off(faulty):
    """Row 10: c1's trainer has finished when its edge wakes up; c2's finishes after the other edge is there."""
    faulty.clients = ("c1", "c2", "c3")
    bench, keys = faulty.bench, faulty.bench.runs.keys
    gates = {client: faulty.gate(client) for client in faulty.clients}
    held = {c: ("--gate", gate.path, "--where", "saved", "--at", 2) for c, gate in gates.items()}
    coordinator = faulty.serve(*MISSED)
    bench.aggregator()
    edges = faulty.edges(only=held)
    for gate in gates.values():
        gate.reached()
    old = {client: edges[client] for client in ("c1", "c2")}
    for edge in old.values():
        edge.send(signal.SIGSTOP)
    gates["c1"].open()
    finished = keys.client("c1").event(2, Event.TRAIN_FINISHED)
    bench.eventually("c1 has trained", lambda: bench.redis.exists(finished))
    for client in old:
        workspace = bench.folder / f"{client}-again"
        key = bench.folder / client / "client.key"  # the same site, so the same key
        edges[client] = bench.edge(client, bench.trainer(), "--workspace", workspace, "--key", key)
    for client in old:
        bench.logged("update.accepted", client=client, round=2)
    trainer = [pid for pid, command in bench.survivors().items() if str(gates["c2"].path) in command]

    def state() -> object:
        """What the new edges wrote, without what each of their heartbeats writes again."""
        reads = [bench.redis.hgetall(key) for c in old for key in (keys.client(c).hash, keys.client(c).update(2))]
        reads = [{name: text for name, text in fields.items() if name not in EACH_BEAT} for fields in reads]
        return reads, bench.redis.hgetall(keys.verdicts(2)), [bench.redis.get(keys.client(c).lease) for c in old]

    for client in old:
        doing = functools.partial(bench.redis.hget, keys.client(client).hash, "doing")
        bench.eventually(f"{client} has told the last that it tells", lambda doing=doing: doing() == Doing.INSPECTED)
    before = state()
    assert len([pid for pid in trainer if "toy_trainer" in bench.survivors()[pid]]) >= 1
    gates["c2"].open()  # its trainer sets TrainFinished now
    for edge in old.values():
        edge.send(signal.SIGCONT)
    for client, edge in old.items():
        assert edge.wait() in (1, 5), edge.stderr
        assert "Error: " in last_line(edge), edge.stderr
        assert "taken over by another process" in last_line(edge) or "another edge has taken it over" in last_line(edge)
        assert client in last_line(edge)
    assert state() == before
    gates["c3"].open()
    faulty.finish(coordinator, edges)
    assert contributors(faulty, 2) == ("c1", "c2", "c3")
    assert "update.ignored" not in {entry["event"] for entry in bench.log()}


def test_an_edge_that_is_started_again_joins_the_current_round(faulty):
    """Row 11: killed in training of round 2, and started under the same name at once."""
    coordinator = faulty.serve(*MISSED)
    faulty.bench.aggregator()
    edges = faulty.edges(only={"c1": ("--hold", "--at", 2)})
    faulty.bench.held("c1")
    killed(edges["c1"])
    edges["c1"] = faulty.bench.edge("c1", faulty.bench.trainer())
    faulty.finish(coordinator, edges)
    assert contributors(faulty, 2) == ("c1", "c2")
    assert "round 2 starts from" in edges["c1"].stdout
    assert "round 1 starts from" not in edges["c1"].stdout


def test_the_second_process_of_one_name_is_refused_clearly(faulty):
    """Row 12: a second edge, and a second coordinator, beside ones that live; the first ones do not notice."""
    coordinator = faulty.serve(*BEATS)
    faulty.bench.aggregator()
    edges = faulty.edges("--hold", "--at", 2)
    for client in faulty.clients:
        faulty.bench.held(client)
    again = faulty.bench.edge("c1", faulty.bench.trainer())
    second = faulty.serve(*BEATS)
    for process, what, first in ((again, "client 'c1'", edges["c1"]), (second, "coordinator of run", coordinator)):
        assert process.wait() == 1
        for words in ("Error: ", what, f"is already running as process {first.pid} on ", "stop that one"):
            assert words in last_line(process)
    faulty.bench.release(*faulty.clients)
    faulty.finish(coordinator, edges)


FAILURES = {
    "c2": ("exit3", "(exit code 3)", "cannot read the data set"),
    "c3": ("silent", "(exit code 7)", "round 1 starts from"),
    "c4": ("flood", "(exit code 1)", "the last words"),
    "c5": ("flood-one-line", "(exit code 1)", "yyyy"),
    "c6": ("exit0", "(exit code 0)", "round 1 starts from"),
    "c7": ("hang", "", ""),
}


def test_trainers_that_fail_in_every_way_fail_alone(faulty):
    """Row 13: exit codes 3 and 0, a silent end, 1 MB on stderr in lines and in one, one that hangs to the deadline."""
    faulty.clients, faulty.rounds, bench = ("c1", *FAILURES), 1, faulty.bench
    coordinator = faulty.serve("--quorum", 1, "--round-timeout-s", 5, *WAIT)
    bench.aggregator()
    flags = {client: ("--fail", how, "--at", 1) for client, (how, _, _) in FAILURES.items()}
    edges = {c: bench.edge(c, bench.trainer(*flags.get(c, ())), "--grace-s", 1) for c in faulty.clients}
    for client, (_, words, own) in FAILURES.items():
        if words:
            reason = bench.logged("client.lost", client=client)["reason"]
            assert reason == f'"its trainer ended in round 1, before TrainFinished {words}"'
            edge = edges.pop(client)
            assert edge.wait() == 5
            assert own in last_line(edge)  # at the site, and nowhere else
            assert own not in str(bench.runs.clients([client]))
            assert own not in str(bench.redis.hgetall(bench.runs.keys.state)) + str(bench.log())
            assert bench.runs.clients([client])[client][0].failure == "trainer-ended"
    closing = bench.logged("round.aggregating", round=1)["reason"]
    assert "deadline passed with 1 of 7 updates" in closing
    assert "late: c7" in closing
    faulty.finish(coordinator, edges)
    assert contributors(faulty, 1) == ("c1",)
    assert "the trainer is still running 1 s after the end of the run: stopping it" in edges["c7"].stderr


def test_the_deadline_fires_although_nobody_reports(faulty):
    """Row 14: both edges are paused, so that nothing at all comes from them; the run fails, and says why."""
    coordinator = faulty.serve("--round-timeout-s", 2, "--heartbeat-timeout-s", 60)
    faulty.bench.aggregator()
    edges = faulty.edges("--hold", "--at", 1)
    for client in faulty.clients:
        faulty.bench.held(client)
        edges[client].send(signal.SIGSTOP)
    assert coordinator.wait() == 1
    why = "round 1: the deadline passed with 0 of 2 needed updates; "
    assert f"{why}late: c1, c2" in last_line(coordinator)
    for edge in edges.values():
        edge.send(signal.SIGCONT)
        assert edge.wait() == 1
        assert f"{why}2 late" in last_line(edge)  # what a site reads names no other
    faulty.history().check(rounds=0)


@pytest.fixture
def network():
    if why := networks.why_not():
        pytest.skip(why)
    made = networks.Network()
    yield made
    made.close()


def test_edges_that_are_cut_off_find_out_and_come_back_into_the_round(network, tmp_path, bench_at):
    """Rows 15 and 16: one edge is cut off, one hears nothing any more and one is not heard, beyond every lease.

    Each finds out that a connection is dead within `SILENCE_S` of its next use, although nobody closed it; then the
    network is there again, and the round that they were in goes on with all of them.
    """
    listen = ("--bind", "0.0.0.0", "--protected-mode", "no")
    server = Server(tmp_path / "redis", *listen, under=network.under, socket=tmp_path / "s")
    try:
        faulty = Faulty(bench_at(server.url), rounds=2, clients=("c1", "c2", "c3", "c4"))
        bench = faulty.bench
        wires = {
            "c2": {"hears": False, "is_heard": False},
            "c3": {"hears": False, "is_heard": True},
            "c4": {"hears": True, "is_heard": False},
        }
        sites = {client: network.site(client) for client in wires}
        gates = {client: faulty.gate(client) for client in wires}
        coordinator = faulty.serve(*MISSED)
        bench.aggregator()
        edges = {"c1": bench.edge("c1", bench.trainer())}
        for client, site in sites.items():
            url = {"FLAVOR_REDIS_URL": f"redis://{site.server}:{server.port}", "FLAVOR_INSECURE": "1"}
            trainer = bench.trainer("--gate", gates[client].path, "--at", 2)
            edges[client] = bench.edge(client, trainer, env=url, under=site.under)
        for client, gate in gates.items():
            gate.reached()
            assert sites[client].established() >= 4  # commands and events, of the edge and of its trainer
        bench.eventually("all that the server has sent is acknowledged", lambda: not network.unacknowledged())
        for client, site in sites.items():
            site.cut(**wires[client])

        def dead() -> bool:
            return not any(site.established() for site in sites.values())

        found_s = UNUSED_S + SILENCE_S + SLACK_S
        eventually("the dead connections are found", dead, found_s, pause_s=0.2)  # a look starts six processes
        for client, site in sites.items():
            assert "its heartbeat stopped" in bench.logged("client.lost", client=client)["reason"]
            assert edges[client].running
            site.mend(**wires[client])
        for gate in gates.values():
            gate.open()
        faulty.finish(coordinator, edges)
        assert contributors(faulty, 2) == ("c1", "c2", "c3", "c4")
        assert [entry["event"] for entry in bench.log()].count("round.opened") == 2
    finally:
        server.close()


@pytest.mark.skipif(shutil.which("faketime") is None, reason="no faketime here: install it")
def test_an_edge_whose_clock_is_off_by_an_hour_keeps_its_lease_and_the_deadline(faulty):
    """Row 34: one edge is an hour ahead, one behind, with their trainers; the deadline is the server's."""
    faulty.clients, faulty.rounds, bench = ("c1", "c2", "c3"), 1, faulty.bench
    calendar = {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}  # a wrong date, not another kind of kernel
    coordinator = faulty.serve("--quorum", 2, "--round-timeout-s", 4, *WAIT)
    bench.aggregator()
    edges = {"c1": bench.edge("c1", bench.trainer("--hold", "--at", 1), "--grace-s", 1)}
    for client, offset in (("c2", "+1h"), ("c3", "-1h")):
        edges[client] = bench.edge(client, bench.trainer(), env=calendar, under=("faketime", "-f", offset))
    bench.held("c1")
    late = bench.start(
        *("flavor", "event", "wait", "TrainStarted", "--timeout-s", 1),
        env={**calendar, "FLAVOR_RUN": bench.run, "FLAVOR_CLIENT": "c4"},
        under=("faketime", "-f", "+1h"),
    )
    assert late.wait() == 4, late.stderr
    view = bench.runs.read_round(1)
    reason = bench.logged("round.aggregating", round=1)["reason"]
    assert "deadline passed with 2 of 3 updates" in reason
    assert bench.runs.now_ms() >= view.deadline_ms == view.opened_ms + 4000
    faulty.finish(coordinator, edges)
    assert contributors(faulty, 1) == ("c2", "c3")
    assert "client.lost" not in {entry["event"] for entry in bench.log()}


NO_ROOM = (
    '"its trainer ended in round 1, before TrainFinished (exit code 1)"',
    '"a file at the site could not be read or written"',
)


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system needs root to mount it")
def test_an_edge_whose_disk_is_full_fails_clearly_and_alone(faulty, tmp_path):
    """Row 37: no place for the local model (c2), for the global model (c3), and for logs, which is no reason (c4)."""
    faulty.clients, faulty.rounds, bench = ("c1", "c2", "c3", "c4"), 2, faulty.bench
    with tmpfs(tmp_path / "small", "256k") as small:
        for folder in ("local", "global", "logs"):
            (small / folder).mkdir()
        full = {
            "c2": {"LOCAL_MODEL_PATH": str(small / "local" / "model.pkl")},
            "c3": {"GLOBAL_MODEL_PATH": str(small / "global" / "model.pkl")},
            "c4": {"LOG_PATH": str(small / "logs")},
        }
        coordinator = faulty.serve("--quorum", 2)
        bench.aggregator()
        big, noisy = ("--elements", 200_000), ("--say", "x" * 100_000)
        trainers = {client: bench.trainer(*big, *(noisy if client == "c4" else ())) for client in faulty.clients}
        edges = {client: bench.edge(client, trainers[client], env=full.get(client)) for client in faulty.clients}
        for client in ("c2", "c3"):
            reason = bench.logged("client.lost", client=client)["reason"]
            assert reason in NO_ROOM
            edge = edges.pop(client)
            assert edge.wait() in (1, 5)
            assert "No space left on device" in edge.stderr.splitlines()[-1]
        assert f"{small}/global/" in edge.stderr.splitlines()[-1]
        assert edge.stderr.splitlines()[-1].endswith(f": free some space on the disk at {small}")
        faulty.finish(coordinator, edges)
    assert [contributors(faulty, n) for n in (1, 2)] == [("c1", "c3", "c4"), ("c1", "c4")]
