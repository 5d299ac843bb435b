"""What a session says of the programs that it started, and when it fails for them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from summary import Summary

from tests import starts
from tests.starts import Starts


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a session of its own."""
    file = tmp_path / "starts"
    file.touch()
    monkeypatch.setattr(starts, "_place", [str(file)])
    monkeypatch.setattr("inmemory._kept", [])  # the session that runs this test keeps nothing for it
    return file


def test_starts_are_counted_by_reason_and_those_that_no_test_wanted_by_test(counted: Path) -> None:
    for _ in range(3):
        starts.forked()
    starts.cold("under faketime")
    starts.cold("variable MLFLOW_TRACKING_URI", "tests/a.py::test_a (call)")
    starts.cold("variable MLFLOW_TRACKING_URI", "tests/a.py::test_a (call)")
    found = Starts.read(counted)
    assert found.told() == (
        "programs and scripts of Python: 3 forked, 3 started cold (variable MLFLOW_TRACKING_URI: 2, under faketime: 1)"
    )
    assert "2 started cold" in found.complaint()
    assert "variable MLFLOW_TRACKING_URI, in tests/a.py::test_a (2)" in found.complaint()
    assert "faketime" not in found.complaint()


def test_there_is_nothing_to_say_where_every_start_had_a_reason() -> None:
    assert Starts.of(["", "asked for\ttests/a.py::test_a"]).complaint() == ""
    assert Starts.of([""]).told() == "programs and scripts of Python: 1 forked, 0 started cold"


def test_of_several_variables_one_that_no_test_has_given_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    session = {"LC_ALL": "C"}
    assert starts.of_variables(["FACTOR", "A_SECRET"], session) == "variable A_SECRET, given"
    monkeypatch.setenv("MLFLOW_RUN", "1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert starts.of_variables(["ALL_PROXY", "FACTOR", "MLFLOW_RUN"], session) == "variable MLFLOW_RUN"
    assert starts.of_variables(["ALL_PROXY", "FACTOR"], session) == "variable ALL_PROXY"
    assert starts.of_variables(["MLFLOW_RUN"]) == "variable MLFLOW_RUN, given"


@pytest.mark.parametrize(("reason", "status"), [("under ip", 0), ("variable MLFLOW_RUN", 1)])
@pytest.mark.usefixtures("counted")
def test_a_session_fails_for_a_start_that_no_test_wanted(reason: str, status: int) -> None:
    summary = Summary(SimpleNamespace())  # type: ignore[arg-type]
    starts.cold(reason)
    session = SimpleNamespace(exitstatus=0)
    summary.pytest_sessionfinish(session)  # type: ignore[arg-type]
    summary.pytest_unconfigure()
    assert session.exitstatus == status


def test_a_process_that_outlives_its_session_starts_what_it_would(counted: Path) -> None:
    counted.unlink()
    starts.forked()
    starts.cold("asked for")
    assert not counted.exists()
