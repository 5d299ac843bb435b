"""What the newest entries of a log say that a run waits for."""

from __future__ import annotations

import pytest

from flavor.records.evaluation import AUTOMATIC, CENTRAL
from flavor.view.waiting import logged_wait

WAITS = ("9000-0", {"event": "round.waiting", "round": "2", "reason": "waiting for c", "since_ms": "5000"})


@pytest.mark.parametrize("what", ["opened", "closed", "failed", "skipped"])
def test_an_evaluation_beside_the_rounds_ends_no_wait_and_is_none(what: str) -> None:
    for number in (AUTOMATIC, CENTRAL, 1):  # the coordinator's own is merged beside the next round
        beside = {"event": f"evaluation.{what}", "round": "1", "evaluation": str(number), "reason": "judged"}
        found = logged_wait([("9500-0", beside), WAITS], 2)
        assert found is not None
        assert (found.reason, found.since_ms) == ("waiting for c", 5000)
        assert number == AUTOMATIC or logged_wait([("9500-0", beside)], None) is None


@pytest.mark.parametrize("number", [{"evaluation": str(AUTOMATIC)}, {}])  # an earlier release writes none
def test_the_run_waits_for_the_evaluation_between_its_rounds(number: dict[str, str]) -> None:
    entry = {"event": "evaluation.opened", "round": "1", "reason": "judged by a", **number}
    found = logged_wait([("9500-0", entry), WAITS], None)
    assert found is not None
    assert (found.sentence, found.since_ms) == ("round 1: judged by a", 9500)
    assert logged_wait([("9900-0", {**entry, "event": "evaluation.failed"}), ("9500-0", entry)], None) is None
