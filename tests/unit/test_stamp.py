"""The time before the lines of programs that run for long."""

from __future__ import annotations

import os
import re
import sys

import pytest

from flavor import stamp
from flavor.cli.output import teller


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamp, "_timed", False)


def test_a_line_has_the_time_where_the_program_runs_for_long(capfd: pytest.CaptureFixture[str]) -> None:
    teller("[x] ")("hello")
    stamp.with_times()
    teller("[x] ")("hello")
    plain, timed = capfd.readouterr().err.splitlines()
    assert plain == "[x] hello"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[x\] hello", timed)
    assert stamp.without_stamp(timed) == plain
    assert stamp.without_stamp(plain) == plain


def test_a_line_for_the_journal_has_none(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.fstat(sys.stderr.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    stamp.with_times()
    assert stamp.stamp() == ""
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    stamp.with_times()
    assert stamp.stamp()
    del capfd
