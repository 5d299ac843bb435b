"""Faults that repeat are told once of each kind and client, and no number of them keeps another one from being told."""

from __future__ import annotations

import pytest

from flavor.coordinator import told_faults
from flavor.coordinator.told_faults import ToldFaults


def test_no_number_of_faults_silences_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    faults, now = ToldFaults(told.append), 0.0
    monkeypatch.setattr(told_faults.time, "monotonic", lambda: now)
    for number in range(100):  # the text has the path of an object
        faults.tell(f"a gets no URL of {number}: answered 503", client="a", kind="store away")
    faults.tell("a gets no URL: answered 403 (ExpiredToken)", client="a", kind="store refuses")
    faults.tell("b gets no URL of 7: answered 503", client="b", kind="store away")
    assert told == [
        "a gets no URL of 0: answered 503",
        "a gets no URL: answered 403 (ExpiredToken)",
        "b gets no URL of 7: answered 503",
    ]
    now = 601.0
    faults.tell("a gets no URL of 7: answered 503", client="a", kind="store away")
    assert told[3:] == ["a gets no URL of 7: answered 503"]
