"""Row 58: a site whose network is away for longer than its lease, as a VPN is for hours, comes back by itself.

How long a site waits, and with which pauses, is tested without processes (`tests/unit/bus/test_mistakes.py`): here each
site has the patience of a day that it has by default.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator

import pytest

from flavor.bus import answers
from flavor.bus.connection import connect
from tests.faults.federation import MISSED, Faulty
from tests.faults.servers import Proxy
from tests.polled import eventually

WAITS = "does not answer; trying for 1 d more: "


@pytest.fixture
def vpns(redis_server) -> Iterator[dict[str, Proxy]]:
    """The ways of two sites to the server."""
    made = {client: Proxy(redis_server.port) for client in ("c3", "c4")}
    yield made
    for each in made.values():
        each.close()


def goes_away(vpn: Proxy) -> None:
    vpn.refuse = True
    vpn.cut()


def edges_of(faulty: Faulty, vpns: dict[str, Proxy], held: dict[str, tuple]) -> dict:
    """All edges, those of the sites behind a VPN through it."""
    bench = faulty.bench
    return {
        client: bench.edge(
            client,
            bench.trainer(*held.get(client, ())),
            env={"FLAVOR_REDIS_URL": vpns[client].url} if client in vpns else None,
        )
        for client in faulty.clients
    }


def test_a_site_that_was_away_misses_the_rounds_that_closed_and_is_in_the_next_one(on_port, vpns, subtests):
    """Row 58: c3 is back before round 4 is opened; c4 is back when the run is over.

    The coordinator dies and is started again in between. Both trainers finish round 2 while their sites are away.
    """
    faulty = Faulty(on_port.bench, 4, ("c1", "c2", "c3", "c4"))
    bench = faulty.bench
    gates = {client: faulty.gate(client) for client in ("c1", *vpns)}
    held = {client: ("--gate", gate.path, "--at", 3 if client == "c1" else 2) for client, gate in gates.items()}
    killed = faulty.serve("--quorum", 2, *MISSED)
    bench.aggregator()
    edges = edges_of(faulty, vpns, held)
    for client in vpns:
        gates[client].reached()
    for vpn in vpns.values():
        goes_away(vpn)
    for client in vpns:
        assert "its heartbeat stopped" in bench.logged("client.lost", client=client)["reason"]
        edges[client].until(WAITS)
        gates[client].open()
        edges[client].until(WAITS, stream="stdout")  # its trainer, which sets TrainFinished
    bench.logged("round.closed", round=2)
    gates["c1"].reached()
    killed.send(signal.SIGKILL)
    killed.wait()
    coordinator = faulty.serve("--quorum", 2, *MISSED)
    vpns["c3"].refuse = False
    edges["c3"].until("answers again")
    edges["c3"].until("round 2: trained too late: round 3 is open already")
    gates["c1"].open()
    assert coordinator.wait() == 0, coordinator.stderr
    with subtests.test("it takes part in the first round that is opened after its return"):
        assert [bench.runs.read_round(number).contributors for number in (1, 2, 3, 4)] == [
            ("c1", "c2", "c3", "c4"),
            ("c1", "c2"),
            ("c1", "c2"),
            ("c1", "c2", "c3"),
        ]
    with subtests.test("a site that comes back after the end of the run ends as the run did"):
        assert edges["c4"].running
        vpns["c4"].refuse = False
        assert edges["c4"].wait() == 0, edges["c4"].stderr
        assert "answers again" in edges["c4"].stderr
    with subtests.test("each says how long it waits, and since when, in growing intervals"):
        told = re.findall(r"trying for .*", edges["c4"].stderr)
        assert told[0].startswith("trying for 1 d more: ")
        assert all("; away for " in line for line in told[1:])
    faulty.finish(coordinator, edges)


def test_an_asynchronous_run_counts_what_a_site_has_trained_while_it_was_away(on_port, vpns):
    """Row 58: its task is one of an earlier round then, and no staler than the run allows."""
    faulty = Faulty(on_port.bench, 4, ("c1", "c2", "c3"))
    bench = faulty.bench
    gates = {"c1": faulty.gate("c1"), "c3": faulty.gate("c3")}
    coordinator = faulty.serve("--mode", "async:buffer=2,max_staleness=20", *MISSED)
    bench.aggregator()
    edges = edges_of(
        faulty, vpns, {c: ("--gate", gate.path, "--at", 3 if c == "c1" else 2) for c, gate in gates.items()}
    )
    gates["c3"].reached()
    goes_away(vpns["c3"])
    assert "its heartbeat stopped" in bench.logged("client.lost", client="c3")["reason"]
    gates["c3"].open()
    gates["c1"].reached()
    edges["c3"].until(WAITS, stream="stdout")
    vpns["c3"].refuse = False
    bench.logged("update.accepted", client="c3", round=3)
    gates["c1"].open()
    faulty.finish(coordinator, edges)
    assert bench.runs.read_round(3).since == {"c3": 2}


def test_a_connection_that_died_behind_a_tunnel_is_found_and_replaced(redis_server, vpns, monkeypatch):
    """Row 58: TCP hears acknowledgements from the tunnel's near end; a request on another connection is answered."""
    monkeypatch.setattr(answers, "DOUBTED_S", 0.3)
    tunnel = vpns["c3"]
    with connect(tunnel.url, patience_s=86_400.0) as client, connect(redis_server.url) as other:
        client.set("counted", 0)
        tunnel.lose()
        found: list[object] = []
        asking = threading.Thread(target=lambda: found.append(client.incr("counted")), daemon=True)
        asking.start()
        eventually("the request is answered", lambda: found, 20)
        assert found == [1]
        assert other.get("counted") == "1"
        asking.join(10)


def test_a_server_that_stands_still_is_no_dead_connection(redis_server, monkeypatch):
    """Row 58: no new connection is answered either, so the request waits, and is sent once."""
    monkeypatch.setattr(answers, "DOUBTED_S", 0.2)
    monkeypatch.setattr(answers, "LEAST_S", 0.3)
    with connect(redis_server.url, patience_s=86_400.0) as client:
        client.set("counted", 0)
        tried = threading.Event()
        before = answers.Answering._is_dead
        found: list[object] = []

        def looked(connection) -> bool:
            is_dead = before(connection)
            found.append(is_dead)
            if len(found) == 2:
                tried.set()
            return is_dead

        monkeypatch.setattr(answers.Answering, "_is_dead", looked)
        redis_server.process.send_signal(signal.SIGSTOP)
        counted: list[object] = []
        asking = threading.Thread(target=lambda: counted.append(client.incr("counted")), daemon=True)
        asking.start()
        assert tried.wait(30)
        redis_server.process.send_signal(signal.SIGCONT)
        asking.join(30)
        assert found[:2] == [False, False]
        assert counted == [1]
