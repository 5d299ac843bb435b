"""A client's pulse: written whole, and read whatever a site has written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flavor.records import client
from flavor.records.moved import Moved
from flavor.records.pulse import FIELDS, Doing, Gpus, Load, Pulse
from flavor.records.reported import Reported

LOAD = Load(37.5, 3 << 30, 8 << 30, Gpus(2, 90.0, 1 << 30, 1 << 37))
PULSE = Pulse(
    Doing.TRAINING, 3, 1_700_000_000_000, Reported(1, 2, "m", {"loss": 0.5}, 3), LOAD, Moved(4096, 8192, 8), 7
)


def test_it_is_written_whole_so_that_nothing_of_an_earlier_process_stays() -> None:
    fields = PULSE.to_hash()
    assert fields == {
        "doing": "training",
        "doing_round": "3",
        "doing_ms": "1700000000000",
        "reported": '{"done": 1, "total": 2, "message": "m", "metrics": {"loss": 0.5}, "round": 3}',
        "reported_ms": "7",
        "load": "[37.5, 3221225472, 8589934592, 2, 90.0, 1073741824, 137438953472]",
        "sent": "4096",
        "received": "8192",
        "moved_ms": "8",
    }
    assert Pulse.from_hash(fields) == PULSE
    assert tuple(Pulse().to_hash()) == tuple(fields) == FIELDS
    assert Pulse.from_hash(Pulse().to_hash()) == Pulse() == Pulse.from_hash({})
    assert Load.from_json(Load(1.0, 2, 3).to_json()) == Load(1.0, 2, 3)


def test_no_other_field_of_the_client_has_its_name() -> None:
    assert set(FIELDS).isdisjoint(client.FIELDS), "the coordinator reads those, and never these"


@pytest.mark.parametrize(
    "fields",
    [
        {"sent": "-1", "received": "many", "moved_ms": "1e3"},
        {"doing": "dancing", "doing_round": "-1", "doing_ms": "1e9", "reported": "[" * 5000, "load": "[" * 900},
        {"doing": "TRAINING", "doing_round": "9" * 16, "reported": "{}", "load": "{}"},
        *({"load": text} for text in ("[1, 2]", "[1, 2, -3]", "[NaN, 1, 2]", '["1", 2, 3]', "[true, 1, 2]", "null")),
        *({"load": text} for text in ("[1, 2, 1e400]", f"[1, 2, {'9' * 900}]", "[1, 2, 3" + ", 0" * 500 + "]")),
    ],
)
def test_what_is_no_pulse_is_left_out(fields: dict[str, str]) -> None:
    assert Pulse.from_hash(fields) == Pulse()


@pytest.mark.parametrize("wrong", [{"doing": "x"}, {"reported": "x"}, {"load": json.dumps([])}])
def test_one_wrong_field_costs_no_other(wrong: dict[str, Any]) -> None:
    found = Pulse.from_hash({**PULSE.to_hash(), **wrong})
    assert sum(value is None for value in (found.doing, found.reported, found.load)) == 1
