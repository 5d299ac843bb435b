"""The checker itself: a history in order passes, and each invariant that is broken by hand is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from history import Broken


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

    def changed(key: str, field: str, value: str) -> Callable[[], None]:
        before = redis.hget(key, field)
        redis.hset(key, field, value)
        return lambda: redis.hset(key, field, before)

    def without(key: str) -> Callable[[], None]:
        redis.rename(key, f"{key}:hidden")
        return lambda: redis.rename(f"{key}:hidden", key)

    def unjudged() -> Callable[[], None]:
        before = redis.hget(keys.verdicts(1), "c1")
        redis.hdel(keys.verdicts(1), "c1")
        update = faulty.bench.store / redis.hget(keys.client("c2").update(1), "path")
        restore = changed(keys.round(1), "contributors", '["c2"]')
        of_round = changed(keys.round(1), "path", str(update.relative_to(faulty.bench.store)))
        digest = changed(keys.round(1), "digest", redis.hget(keys.client("c2").update(1), "digest"))
        info = changed(keys.round(1), "info_path", "only-c2.json")
        (faulty.bench.store / "only-c2.json").write_text('{"metadata": {"clients": ["c2"]}}')

        def undo() -> None:
            redis.hset(keys.verdicts(1), "c1", before)
            for each in (restore, of_round, digest, info):
                each()

        return undo

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
        ("I3: round 1: handed in and never judged", unjudged),
        ("I3: c1 set TrainFinished of round 2", lambda: without(keys.client("c1").event(2, "TrainFinished"))),
        ("I5", lambda: logged("round.opened", 2)),
    ]
    for words, spoil in breaks:
        undo = spoil()
        with pytest.raises(Broken, match=words):
            faulty.history().check()
        undo()
        faulty.history().check(rounds=3)
    with pytest.raises(Broken, match="3 rounds are closed, not 4"):
        faulty.history().check(rounds=4)
