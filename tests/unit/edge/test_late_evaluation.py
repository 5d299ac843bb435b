"""A site begins no evaluation that goes on without it by now."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flavor.edge.evaluating import Evaluating
from flavor.edge.part import Part, Phase
from flavor.records.evaluation import EvaluationTask
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef

TASK = EvaluationTask(1, 0, GlobalModel(ObjectRef("m", "d")), deadline_ms=1_000)


class Begun(Exception):
    """The model of the task was looked for."""


@pytest.mark.parametrize("now_ms", [999, 1_000])
def test_a_task_whose_deadline_has_passed_is_told_of_and_not_begun(now_ms):
    told: list[Any] = []

    def judged(task: EvaluationTask) -> None:
        raise Begun

    membership = SimpleNamespace(evaluations=lambda: {(1, 0): 0}, evaluation_task=lambda *_: TASK)
    site: Any = SimpleNamespace(
        membership=membership,
        runs=SimpleNamespace(now_ms=lambda: now_ms),
        observer=SimpleNamespace(hear=told.append),
    )
    nothing: Any = None
    models: Any = SimpleNamespace(judged=judged)
    judge = Evaluating(
        site, nothing, nothing, (), store=nothing, transfers=nothing, exchange=nothing, models=models, health=nothing
    )
    judge.read(resync=False)
    if now_ms < TASK.deadline_ms:
        with pytest.raises(Begun):
            judge.look(Part(phase=Phase.IDLE))
        return
    judge.look(Part(phase=Phase.IDLE))
    assert [type(each).__name__ for each in told] == ["EvaluationMissed"]
