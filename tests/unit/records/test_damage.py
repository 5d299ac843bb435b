"""A record that cannot be read is one error, which names the field, whatever an administrator of Redis wrote there."""

from __future__ import annotations

import pytest

from flavor.errors import DamagedRecord
from flavor.records.round import Reference, RoundView
from flavor.records.run import RunView
from flavor.records.task import Task
from flavor.records.verdict import Verdict

RUN = {"state": "running", "round": "1", "rounds": "3", "config": '{"store": "s"}', "changed": "{}"}
ROUND = {"state": "open", "expected": '["a"]', "opened_ms": "1", "deadline_ms": "9", "attempt": "0", "unfit": "[]"}
DEEP = "[" * 100_000
BAD = [DEEP, "", "no", "5.5", '{"a": 1}', "[1]", "9" * 5000, "-1"]


@pytest.mark.parametrize("field", ["state", "round", "rounds", "config"])
def test_a_run_lacks_a_field(field: str) -> None:
    fields = {name: text for name, text in RUN.items() if name != field}
    with pytest.raises(DamagedRecord, match=f"^field '{field}' is missing$"):
        RunView.from_hash("r", fields)


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
@pytest.mark.parametrize(
    "field", ["state", "round", "rounds", "changed", "created_ms", "ended_ms", "resumed_round", "paused_ms"]
)
def test_a_run_has_a_field_of_another_type(field: str, text: str) -> None:
    with pytest.raises(DamagedRecord, match=f"^field '{field}': ") as found:
        RunView.from_hash("r", {**RUN, field: text})
    assert len(str(found.value)) < 300


@pytest.mark.parametrize("text", [DEEP, "[]", "5", "null", '"s"', "{"])
def test_a_run_has_no_settings(text: str) -> None:
    with pytest.raises(DamagedRecord, match=r"^field 'config': "):
        RunView.from_hash("r", {**RUN, "config": text})


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
@pytest.mark.parametrize(
    "field",
    ["state", "expected", "contributors", "opened_ms", "attempt", "lease_ms", "unfit", "notes", "waits", "pauses"],
)
def test_a_round_has_a_field_of_another_type(field: str, text: str) -> None:
    if field == "unfit" and text == "[1]":
        text = '["a"]'
    with pytest.raises(DamagedRecord, match=f"^field '{field}': "):
        RoundView.from_hash(1, {**ROUND, field: text}, {})


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        "5",
        "{}",
        '{"accepted": 1, "reason": ""}',
        '{"accepted": true, "reason": 5}',
        '{"accepted": true, "reason": "", "path": 5}',
        '{"accepted": true, "reason": "", "path": "p", "num_examples": "many"}',
        '{"accepted": false, "reason": "", "constants": 5}',
    ],
)
def test_a_verdict_of_another_type(text: str) -> None:
    with pytest.raises(DamagedRecord, match=r"^verdict: "):
        Verdict.from_json(text)
    with pytest.raises(DamagedRecord, match=r"^field 'a': verdict: "):
        RoundView.from_hash(1, ROUND, {"a": text})


@pytest.mark.parametrize("text", ["", "p", "p d many", "p d None", "p d " + "9" * 5000])
def test_a_reference_that_is_none(text: str) -> None:
    with pytest.raises(DamagedRecord, match=r"^reference: "):
        Reference.from_text(text)
    with pytest.raises(DamagedRecord, match=r"^field 'reference': "):
        RoundView.from_hash(1, {**ROUND, "reference": text}, {})


def test_what_lua_writes_for_nothing_is_read() -> None:
    """It writes an empty list as it writes an empty object."""
    view = RoundView.from_hash(1, {**ROUND, "spoiled": "{}"}, {})
    assert (view.spoiled, view.unfit, RunView.from_hash("r", RUN).changed) == ((), {}, ())


@pytest.mark.parametrize("size", ["abc", "-1", "9" * 5000])
def test_a_task_has_a_size_that_is_none(size: str) -> None:
    with pytest.raises(DamagedRecord, match="global_size"):
        Task.from_hash(1, {"global_path": "p", "global_size": size})
