"""Deadlines that are learned, the time that is left for a script, and slow sites that train on, with real processes.

The test ends a deadline by writing an earlier one into the round's hash, in place of waiting for it.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

from flavor.bus.events import ClientEvents
from flavor.config import RunConfig
from flavor.coordinator.deadlines import Deadlines
from flavor.ledger.archive import Archive
from flavor.ledger.audit import audit
from flavor.store.open import open_store


def expire(bench, round_: int, *accepted: str) -> None:
    """Let the deadline of a round pass once the updates of these clients are accepted."""
    for client in accepted:
        bench.logged("update.accepted", round=round_, client=client)
    key = bench.runs.keys.round(round_)
    bench.redis.hset(key, "deadline_ms", 1)
    bench.redis.publish(key, round_)


def left(bench, client: str) -> str:
    """What `flavor time-left` prints for the script of this client."""
    env = {"FLAVOR_REDIS_URL": bench.url, "FLAVOR_RUN": bench.run, "FLAVOR_CLIENT": client, "FLAVOR_EDGE": ""}
    found = bench.done("flavor", "time-left", env=env)
    assert found.wait() == 0, found.stderr
    return found.stdout.strip()


def test_a_slow_site_is_not_waited_for_after_three_deadlines_and_counts_when_it_comes(bench, subtests):
    mode = ("--mode", "sync:slow=async,staleness=constant", "--quorum", 2)
    coordinator = bench.serve(*mode, "--round-timeout-s", "auto:k=0,floor=3000", rounds=9, clients=3)
    bench.aggregator()
    bench.edge("edge-1", bench.trainer("--hold", "--at", 8))
    bench.edge("edge-2", bench.trainer())
    bench.edge("edge-3", bench.trainer("--hold", "--at", 4))
    bench.held("edge-3")
    with subtests.test("the time that is left"):
        view = bench.runs.read_round(4)
        assert view.deadline_ms - view.opened_ms == 3_000_000, "the deadline is in the round's hash"
        assert 2000 < float(left(bench, "edge-3")) <= 3000
    for round_ in (4, 5, 6):
        bench.logged("round.opened", round=round_)
        expire(bench, round_, "edge-1", "edge-2")
    bench.held("edge-1")  # in round 8, so that round 7 was not held up
    with subtests.test("the time that is left of a task that still counts"):
        events = ClientEvents(bench.url, bench.run, "edge-3")
        assert events.left_s(4) is None, "its update counts when it comes"
        assert events.left_s(3) == 0.0, "round 3 was followed by its task of round 4"
        events.close()
    opened = {int(entry["round"]): entry["reason"] for entry in bench.log() if entry["event"] == "round.opened"}
    with subtests.test("what the log says of deadlines"):
        assert "deadline in 1 d: of 3 rounds from which it is learned, 2 are known" in opened[3]
        assert "deadline in 50 min: median" in opened[4]
        assert opened[4].endswith("over the last 3 rounds; the floor is 50 min")
        assert "in which 1 of 12 updates came too late; the floor" in opened[5]
    with subtests.test("a coordinator that is started again goes on with what was learned"):
        config = RunConfig.of_run(bench.run, bench.runs.read().config)
        members = cast(Any, SimpleNamespace(clients={}))
        for number in (4, 5, 6, 7, 8):
            again = Deadlines(bench.runs, config, members)
            assert again.timeout(number)[1] in opened[number]
    with subtests.test("who is slow"):
        assert "edge-3 has missed the deadline of 3 rounds in a row: rounds no longer wait for it" in opened[7]
        assert [bench.runs.read_round(number).missed for number in (4, 5, 6, 7, 8)] == [
            {},
            {"edge-3": 1},
            {"edge-3": 2},
            {"edge-3": 3},
            {"edge-3": 3},
        ]
        assert bench.runs.read_round(7).contributors == ("edge-1", "edge-2")
        assert bench.runs.read_round(8).since == {"edge-3": 4}
        told = json.loads(bench.done("flavor", "status", bench.run, "--json", "--redis-url", bench.url).stdout)
        assert (told["round_timeout_s"], told["closes_early"]) == (3000.0, False)
        assert told["clients"]["edge-3"]["staleness"].startswith("trains from the model of round 3")
    bench.release("edge-3")
    for client in ("edge-2", "edge-3"):
        bench.logged("update.accepted", round=8, client=client)
    with subtests.test("a round with its quorum waits for those that keep up"):
        told = json.loads(bench.done("flavor", "status", bench.run, "--json", "--redis-url", bench.url).stdout)
        assert told["waits_for"] == "2 of 3 updates accepted, waiting for edge-1"
    bench.release("edge-1")
    assert coordinator.wait() == 0, coordinator.stderr
    with subtests.test("what counts"):
        archive = Archive(open_store(str(bench.store)), bench.run)
        manifest = archive.manifest(8)
        assert {each.client: manifest.task_round(each) for each in manifest.contributors} == {
            "edge-1": 8,
            "edge-2": 8,
            "edge-3": 4,
        }
        assert audit(archive).problems == []
    assert left(bench, "edge-3") == "", "the run is over"
