"""What `flavor pardon` says of how the client gets tasks again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flavor.cli.pardon import _gets_tasks
from flavor.records.round import RoundView
from flavor.records.states import RoundState
from flavor.records.verdict import Verdict
from tests.recorded import accepted

REFUSED = replace(
    RoundView.opened(2, ("a",), opened_ms=1_000, deadline_ms=11_000), verdicts={"a": Verdict(False, "NaN")}
)


@pytest.mark.parametrize(
    ("round_", "trains_it"),
    [
        (REFUSED, True),
        (replace(REFUSED, state=RoundState.CLOSED), False),
        (replace(REFUSED, verdicts={}), False),
        (replace(REFUSED, verdicts={"a": accepted()}), False),
        (None, False),
    ],
)
def test_the_open_round_takes_another_try_of_what_it_refused(round_: RoundView | None, trains_it: bool) -> None:
    said = _gets_tasks(round_, "a")
    assert ("start it again to train the open round" in said) is trains_it
    assert ("by itself, from the next one on" in said) is not trains_it
