"""What the sites have measured, for the command that has asked them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flavor.cli.judging_sites import JudgingSites
from flavor.coordinator.asked_evaluation import Asked
from flavor.records.evaluation import EvaluationSummary
from flavor.records.subject import Subject
from flavor.store.local import LocalStore
from tests.driven import Driven


class Done:
    """Stands for the `AskedEvaluation`: each evaluation was carried out before it is asked for."""

    def __init__(self, run: Driven) -> None:
        self._run, self._number = run, 0

    def carry_out(self, asked: Asked) -> Any:
        self._number += 1
        self._run.judge({"c1": (10, {"accuracy": self._number / 10})}, number=self._number)
        return self._run.runs.read_evaluation(1, self._number)


def test_each_summary_is_parsed_once_however_many_models_are_judged(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Driven(server, LocalStore(tmp_path / "store", create=True))
    run.open(["c1"])
    run.accept("c1", 10, {})
    run.close()
    run.judge({"c1": (10, {"accuracy": 0.9})})
    assert run.store is not None
    sites = JudgingSites(run.runs, run.store, Done(run))  # type: ignore[arg-type]
    model = run.runs.read().global_model
    assert model is not None
    parsed, from_json = list[str](), EvaluationSummary.from_json
    monkeypatch.setattr(EvaluationSummary, "from_json", lambda text: parsed.append(text) or from_json(text))
    found = [sites.judge(Asked(Subject.of_round(1), model)) for _ in range(3)]
    assert [each.metrics["accuracy"] for each in found] == pytest.approx([0.1, 0.2, 0.3])
    assert len(parsed) == len(set(parsed)) == 4
