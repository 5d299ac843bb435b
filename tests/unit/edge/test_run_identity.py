"""Whether the run that an edge has joined is still that run."""

from __future__ import annotations

import pytest

from flavor.edge.run_identity import checked_continuity
from flavor.errors import RunRebuilt, StateLost
from flavor.records.run import RunView
from flavor.records.states import RunState


def view(run_id: str = "a" * 32, *, recovered_ms: int = 0) -> RunView:
    fields = {"state": RunState.RUNNING, "round": "3", "rounds": "9", "config": "{}", "created_ms": "1"}
    return RunView.from_hash("r", {**fields, "run_id": run_id, "protocol": "2", "recovered_ms": str(recovered_ms)})


def test_a_run_that_was_rebuilt_is_joined_again_and_one_that_is_older_is_not() -> None:
    """A Redis that was restored from before a `flavor recover` has the same run, which nobody removed."""
    seen = {"incarnation": view(recovered_ms=7).incarnation, "newest": 3, "where": "redis://x"}
    same = view(recovered_ms=7)
    assert checked_continuity("r", same, **seen) is same  # type: ignore[arg-type]
    with pytest.raises(RunRebuilt):
        checked_continuity("r", view(recovered_ms=8), **seen)  # type: ignore[arg-type]
    for older in (0, 6):
        with pytest.raises(
            StateLost, match=r"is from before its `flavor recover`: Redis came back older; its operator"
        ):
            checked_continuity("r", view(recovered_ms=older), **seen)  # type: ignore[arg-type]
    with pytest.raises(StateLost, match="was removed, and another one has its name"):
        checked_continuity("r", view("b" * 32), **seen)  # type: ignore[arg-type]
