"""What a site says that it waits for, in each phase."""

from __future__ import annotations

import pytest

from flavor.edge.part import Part, Phase
from flavor.edge.waiting import awaited, quarantine
from flavor.records.verdict import OfModel
from tests.recorded import accepted

IDLE = Part(Phase.IDLE, newest=1, behind=1)
UPDATE = accepted().inspected


@pytest.mark.parametrize(
    ("part", "start"),
    [
        (Part(), ""),
        (Part(Phase.WORKING, round=1), ""),
        (
            Part(Phase.WORKING, round=1, unfinished=1),
            "TrainFinished of round 1: the trainer called WaitEvent(",
        ),
        (Part(Phase.LEFT, behind=1), ""),
        (Part(Phase.IDLE), "the run's first round here"),
        (IDLE, "the run's next round: this site's part in round 1 is done"),
        (IDLE.handed_in(1, UPDATE), "an aggregator to inspect its update of round 1"),
        (IDLE.handed_in(1, UPDATE).judged(accepted=True), "the run's next round: this site's part in round 1 is done"),
        (
            IDLE.handed_in(1, UPDATE).judged(accepted=False),
            "the run's next round, while the run may wait for this site",
        ),
        (
            IDLE.handed_in(1, UPDATE).judged(accepted=False, blameless=True),
            "the run's next round, or its operator: its update of round 1 was refused; another try",
        ),
        (
            IDLE.handed_in(1, UPDATE).judged(accepted=False, blameless=True, of_model=OfModel.UNREADABLE),
            "the run's next round, or its operator: its update of round 1 was refused; once the run's operator has put",
        ),
        (
            IDLE.handed_in(1, UPDATE).judged(accepted=False).heard_of(2).skipped(2),
            "the run's next round: this site's part in round 2 is done",
        ),
    ],
)
def test_what_is_awaited(part: Part, start: str) -> None:
    assert awaited(part).startswith(start)
    assert bool(awaited(part)) is bool(start)


@pytest.mark.parametrize(
    "part",
    [Part(Phase.IDLE), IDLE, IDLE.handed_in(1, UPDATE), IDLE.handed_in(1, UPDATE).judged(accepted=False)],
)
def test_a_quarantined_site_waits_for_the_operator_and_is_sent_in_no_circle(part: Part) -> None:
    said = awaited(part, quarantined=quarantine("r", "site-3", 3))
    assert said.startswith("the run's operator: this site is quarantined after 3 refused updates in a row: it gets no ")
    assert "(flavor pardon r site-3)" in said
    assert "start it again" not in said


def test_a_site_of_an_asynchronous_run_is_promised_no_round_that_is_closed() -> None:
    said = awaited(IDLE.handed_in(1, UPDATE).judged(accepted=False), is_buffered=True)
    assert "its update of the task of round 1 was refused; mend that" in said
    assert said.endswith("start it again, and it trains the newest task that the run has for it")
