"""An entry of the log is read as the event that it stores."""

from __future__ import annotations

from dataclasses import fields

import pytest

from flavor.records.evaluation import CENTRAL
from flavor.view.event import Unknown
from flavor.view.events import KINDS, event_of
from flavor.view.round_events import RunCreated


@pytest.mark.parametrize("name", KINDS)
def test_an_event_has_the_round_the_client_and_the_reason_of_its_entry(name: str) -> None:
    entry = {"event": name, "reason": "so it is", "round": "3", "client": "a", "evaluation": str(CENTRAL)}
    event = event_of(entry, run="r")
    expected = {"reason": "so it is", "round": 3, "client": "a", "run": "r", "number": CENTRAL}
    names = {each.name for each in fields(event)}
    assert type(event) is KINDS[name]
    assert {each: getattr(event, each) for each in expected if each in names} == {
        each: value for each, value in expected.items() if each in names
    }


def test_an_unknown_one_keeps_its_entry() -> None:
    entry = {"event": "round.halved", "reason": "too large", "half": "left"}
    assert event_of(entry, run="r") == Unknown("too large", entry, run="r")


def test_the_line_of_a_new_run_names_its_id_where_it_is_known() -> None:
    assert event_of({"event": "run.created"}, run="mammo").line == "run 'mammo' is open for clients"
    assert RunCreated("", run="mammo", run_id="1f").line == "run 'mammo' is open for clients (id 1f)"


@pytest.mark.parametrize("name", sorted(KINDS))
def test_no_line_names_a_run_without_its_name(name: str) -> None:
    entry = {"event": name, "reason": "so it is", "round": "3", "client": "a"}
    line = event_of(entry).line
    assert "''" not in line
    assert "  " not in line
    if name in ("run.finished", "run.failed", "run.stopped"):
        assert event_of(entry, run="mammo").line == f"run 'mammo' is {name.removeprefix('run.')}: so it is"
        assert line == f"the run is {name.removeprefix('run.')}: so it is"
