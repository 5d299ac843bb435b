"""A board that is followed for a week stays as small as on its first day."""

from __future__ import annotations

import json
import random
from typing import Any

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.view.patch import Ring, merge_patch, patched
from flavor.view.run_log import MOST_ENTRIES, RunLog


def test_ten_thousand_events_are_not_all_kept_and_older_ones_are_read(url: str) -> None:
    runs = RunStore(connect(url), "long", url)
    runs.remove_keys()
    runs.create(rounds=1, config=RunConfig(rounds=1, store="s").to_mapping())
    log = RunLog(runs)
    log.load()
    for start in range(0, 10_000, 1000):
        with runs.redis.pipeline(transaction=False) as step:
            for number in range(start, start + 1000):
                fields = {"event": "update.refused", "client": f"c{number % 10}", "round": "1", "reason": f"{number}"}
                step.xadd(runs.keys.log, fields)
            step.execute()
        assert len(log.read_on()) == 1000
    assert len(list(log)) == MOST_ENTRIES
    newest = log.after("", 3)
    assert [each["reason"] for each in newest] == ["9997", "9998", "9999"]
    oldest = list(log)[-1][0]
    assert [each["reason"] for each in log.before(oldest, 2)] == ["7998", "7999"]
    assert [each["reason"] for each in log.before(oldest, 2, "c3", ["update"])] == ["7983", "7993"]
    assert log.before(oldest, 2, "c3", ["round"]) == []
    assert log.before("0-0", 2) == []
    log.add((f"9999999999999-{number}", {"event": "x", "reason": "r" * 4096}) for number in range(2000))
    assert sum(len(fields["reason"]) for _, fields in log) <= 2**21
    assert len(list(log)) > 300


def test_patches_are_kept_as_far_as_there_is_room() -> None:
    ring = Ring(1, most=100, most_bytes=2000)
    assert ring.after(1) == []
    for version in range(2, 10_000):
        ring.add(version, {"round": version})
    assert ring.after(9_998) == [(9_999, {"round": 9_999})]
    assert ring.after(1) is None
    kept = ring.after(9_950)
    assert kept is not None
    assert len(kept) == 49
    ring.add(10_000, {"reason": "r" * 3000})
    assert ring.after(9_999) is None, "it is too large: the document is read anew"
    assert ring.after(10_000) == []


def document(dice: random.Random, depth: int = 3) -> Any:
    kind = dice.random()
    if depth and kind < 0.6:
        return {dice.choice("abcdef"): document(dice, depth - 1) for _ in range(dice.randrange(4))}
    return dice.choice([None, 1, 2.5, "x", "", [], [1, None], False])


def without_nulls(value: Any) -> Any:
    return {k: without_nulls(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def test_a_patch_makes_one_document_of_another() -> None:
    dice, before = random.Random(1), dict[str, Any]()
    rebuilt = dict[str, Any]()
    for _ in range(2000):
        after = {name: document(dice) for name in dice.sample("abcdef", 4)}
        patch = json.loads(json.dumps(merge_patch(before, after)))
        rebuilt = patched(rebuilt, patch)
        assert without_nulls(rebuilt) == without_nulls(after)
        assert patched(rebuilt, patch) == rebuilt, "again"
        before = after
    assert merge_patch(before, before) == {}
