"""What a coordinator tells of the pace of asynchronous rounds: who is slow, left behind, or too quick."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flavor.coordinator.stage_between_rounds import BetweenRounds
from flavor.policy.mode import Buffered
from flavor.records.round import RoundView
from flavor.view.client_events import ClientOutpaced, ClientTooSlow


@pytest.mark.parametrize(
    ("mode", "closing", "event"),
    [
        (Buffered(1, max_staleness=3), "a", ClientOutpaced),
        (Buffered(3, max_staleness=3), "abc", ClientTooSlow),
        (Buffered(None, max_staleness=3), "a", ClientTooSlow),
    ],
)
def test_a_site_is_slow_or_left_behind_by_who_closes_the_rounds(mode: Buffered, closing: str, event: type) -> None:
    told: list[Any] = []
    logged: list[dict[str, Any]] = []
    view = RoundView.opened(1, tuple("abcd"), opened_ms=1, deadline_ms=2)
    runs = SimpleNamespace(
        read_round=lambda number: replace(view, round=number, contributors=tuple(closing)),
        log=lambda name, **fields: logged.append({"name": name, **fields}),
    )
    context = SimpleNamespace(
        runs=runs,
        client_log=SimpleNamespace(note_once=told.append),
        observer=SimpleNamespace(hear=lambda event: None),
    )
    stage = BetweenRounds(cast(Any, context))
    for closed in range(1, 31):
        stage._tell_pace(mode, ["d"] if closed == 5 else [], closed, 4)
    assert [(type(each), each.client) for each in told] == [(event, "d")]
    assert [(each["name"], each["round_"]) for each in logged] == ([("round.note", 10)] if mode.buffer == 1 else [])
