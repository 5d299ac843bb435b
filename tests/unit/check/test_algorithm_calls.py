"""What is said of the calls of an algorithm that a script has made in a round."""

from __future__ import annotations

from pathlib import Path

import pytest

from flavor.check.algorithm_calls import AlgorithmCalls
from flavor.check.report import Report, Status
from flavor.check.trainer_checks import ALGORITHM, TRAINER_CHECKS
from flavor.programs.calls_file import note_call

SCAFFOLD = ["Scaffold-made", "Scaffold-correct", "Scaffold-finish"]


@pytest.mark.parametrize(
    ("calls", "status", "detail", "hint"),
    [
        (SCAFFOLD, Status.PASSED, "SCAFFOLD: every round had its corrections and its end", ""),
        ([*SCAFFOLD, "Scaffold-unseen"], Status.PASSED, "steps were not looked at: call scaffold.correction(m", ""),
        ([*SCAFFOLD, "Scaffold-unloaded"], Status.FAILED, "round 2: c is, in all tensors, what this", "load the glob"),
        ([*SCAFFOLD, "Scaffold-step_of_arrays"], Status.WARNED, "round 2: the steps are not -lr times", "take plain"),
        (["proximal-made", "proximal-term"], Status.PASSED, "FedProx: proximal was made", ""),
        (["proximal-made", "proximal-term", "proximal-anchor"], Status.WARNED, "the model had changed", "make the t"),
        (["proximal-made"], Status.FAILED, "never used the term", "in each step, add the term"),
    ],
)
def test_a_round(
    calls: list[str], status: Status, detail: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_MODEL_PATH", str(tmp_path / "model"))
    monkeypatch.setenv("CHECK_FL", "true")
    report = Report(TRAINER_CHECKS)
    found = AlgorithmCalls(report, tmp_path / "model")
    found.begin_round()
    for call in calls:
        note_call(*call.split("-"))
    found.look_at(2)
    [result] = [each for each in report.results if each.check is ALGORITHM]
    assert result.status is status
    assert detail in result.detail
    assert result.hint.startswith(hint)
