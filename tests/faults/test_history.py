"""The checker itself: a history in order passes, and each invariant that is broken by hand is found."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.faults.history import Broken


def test_each_broken_invariant_is_found(faulty) -> None:
    coordinator = faulty.serve()
    faulty.bench.aggregator()
    edges = faulty.edges()
    faulty.finish(coordinator, edges)
    redis, keys = faulty.bench.redis, faulty.bench.runs.keys
    log = keys.log

    def logged(event: str, round_: int) -> Callable[[], None]:
        entry = redis.xadd(log, {"event": event, "round": round_, "reason": "by hand"})
        return lambda: redis.xdel(log, entry)

    def spoiled(round_: int, clients: str) -> Callable[[], None]:
        entry = redis.xadd(log, {"event": "round.attempt_failed", "round": round_, "spoiled": clients})
        return lambda: redis.xdel(log, entry)

    def changed(key: str, field: str, value: str) -> Callable[[], None]:
        before = redis.hget(key, field)
        redis.hset(key, field, value)
        return lambda: redis.hset(key, field, before)

    def without(key: str) -> Callable[[], None]:
        redis.rename(key, f"{key}:hidden")
        return lambda: redis.rename(f"{key}:hidden", key)

    def all_of(*steps: Callable[[], Callable[[], None]]) -> Callable[[], Callable[[], None]]:
        def done() -> Callable[[], None]:
            undo = [step() for step in steps]
            return lambda: [each() for each in undo] and None

        return done

    def only_c2() -> Callable[[], None]:
        """Round 1 as it were without c1: its aggregate is what c2 handed in."""
        handed_in = faulty.bench.runs.read_round(1).inspected("c2")
        update = faulty.bench.store / handed_in.object.path
        merged = {"metadata": {"sites": 1, "datasetSize": [handed_in.num_examples]}}
        (faulty.bench.store / "only-c2.json").write_text(json.dumps(merged))
        return all_of(
            lambda: changed(keys.round(1), "contributors", '["c2"]'),
            lambda: changed(keys.round(1), "path", str(update.relative_to(faulty.bench.store))),
            lambda: changed(keys.round(1), "digest", redis.hget(keys.client("c2").update(1), "digest")),
            lambda: changed(keys.round(1), "info_path", "only-c2.json"),
        )()

    def unjudged() -> Callable[[], None]:
        before = redis.hget(keys.verdicts(1), "c1")
        redis.hdel(keys.verdicts(1), "c1")
        return lambda: redis.hset(keys.verdicts(1), "c1", before) and None

    def noted(text: str) -> Callable[[], None]:
        before = faulty.bench.handed_in.read_text()
        faulty.bench.handed_in.write_text(before + text)
        return lambda: faulty.bench.handed_in.write_text(before) and None

    def torn_object() -> Callable[[], None]:
        path = faulty.bench.store / redis.hget(keys.round(2), "path")
        before = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        return lambda: path.write_bytes(before)

    breaks: list[tuple[str, Callable[[], Callable[[], None]]]] = [
        ("I1: a round was committed twice", lambda: logged("round.closed", 3)),
        ("I1: rounds were skipped", lambda: logged("round.closed", 5)),
        ("I1: round 2 is closed in the log", lambda: changed(keys.round(2), "state", "open")),
        ("I2: round 1: b is|I2: round 1: w is", lambda: changed(keys.round(1), "contributors", '["c1"]')),
        ("I2: round 1: contributors", lambda: changed(keys.round(1), "contributors", '["c1", "other"]')),
        ("I2: .* is not what was recorded", torn_object),
        ("I3: round 1: handed in and never judged: c1$", all_of(only_c2, unjudged)),
        (
            "I3: round 1: handed in and never judged: c1, and it is gone",
            all_of(only_c2, unjudged, lambda: without(keys.client("c1").update(1))),
        ),
        ("I3: round 2: handed in and never judged: c3, and it is gone", lambda: noted("2 c3\n")),
        ("I3: round 1: accepted and left out: c1", only_c2),
        (
            "I3: round 1: accepted and left out: c1",
            all_of(only_c2, lambda: without(keys.client("c1").update(1)), lambda: spoiled(2, '["c1"]')),
        ),
        ("I3: c1 set TrainFinished of round 2", lambda: without(keys.client("c1").event(2, "TrainFinished"))),
        ("I5", lambda: logged("round.opened", 2)),
    ]
    handed_in = [(number, client) for number in (1, 2, 3) for client in ("c1", "c2")]
    assert faulty.history().acknowledged() == handed_in
    for words, spoil in breaks:
        undo = spoil()
        with pytest.raises(Broken, match=words):
            faulty.history().check()
        undo()
        faulty.history().check(rounds=3)
    with pytest.raises(Broken, match="3 rounds are closed, not 4"):
        faulty.history().check(rounds=4)
    undo = all_of(only_c2, lambda: spoiled(1, '["c1"]'))()
    faulty.history().check(rounds=3)
    undo()
    undo = noted("4 c1\n")
    faulty.history().check(rounds=3)  # its round is not closed
    assert faulty.history().acknowledged() == handed_in
    undo()
