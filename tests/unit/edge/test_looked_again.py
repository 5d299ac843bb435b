"""After a failover an edge looks again at evaluations that it has begun: which of them it judges once more."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from flavor.edge.evaluating import Evaluating
from flavor.edge.part import Part, Phase
from flavor.records.evaluation import EvaluationTask
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef

TASK = EvaluationTask(1, 0, GlobalModel(ObjectRef("m", "d")), deadline_ms=1_000)


class Site:
    """What one site reads of Redis, and what it says. No model can be placed, so that it hands in why."""

    def __init__(self) -> None:
        self.opened_ms, self.now, self.handed_in = 1, 0, list[Any]()
        self.task: EvaluationTask | None = TASK
        self.told, self.begun = list[str](), list[str]()
        membership = SimpleNamespace(
            evaluations=lambda: {(1, 0): self.opened_ms},
            evaluation_task=lambda *_: self.task,
            hand_in_result=lambda *each: self.handed_in.append(each[-1]),
        )
        nothing: Any = None
        site: Any = SimpleNamespace(
            membership=membership,
            runs=SimpleNamespace(now_ms=lambda: self.now),
            observer=SimpleNamespace(hear=lambda event: self.told.append(type(event).__name__)),
            shared=lambda text: text,
        )
        self.judge = Evaluating(
            site,
            nothing,
            SimpleNamespace(clear_local=self._fails),  # type: ignore[arg-type]
            (),
            store=nothing,
            transfers=nothing,
            exchange=nothing,
            models=SimpleNamespace(judged=self._judged),  # type: ignore[arg-type]
            health=nothing,
        )

    def _judged(self, task: EvaluationTask) -> GlobalModel:
        self.begun.append(task.model.model.digest)
        return task.model

    def _fails(self) -> None:
        raise OSError("the disk is full")

    def look(self, *, resync: bool) -> None:
        self.judge.read(resync=resync)
        self.judge.look(Part(phase=Phase.IDLE))


@pytest.fixture
def site() -> Site:
    site = Site()
    site.look(resync=True)
    assert (site.begun, site.told, len(site.handed_in)) == (["d"], ["ResultWithheld"], 1)
    return site


def test_what_is_lost_is_handed_in_again_where_it_says_what_is_asked_for(site: Site, subtests: pytest.Subtests) -> None:
    with subtests.test("publications alone say nothing of a loss"):
        site.look(resync=False)
        assert len(site.handed_in) == 1
    with subtests.test("the result is there"):
        site.task = None
        site.look(resync=True)
        assert len(site.handed_in) == 1
    with subtests.test("the result is lost"):
        site.task = TASK
        site.look(resync=True)
        assert (site.handed_in[0], site.begun) == (site.handed_in[1], ["d"])
        assert site.told[-1] == "ResultForgotten"
    with subtests.test("the evaluation is opened anew: why there was no result need not be so again"):
        site.opened_ms = 2
        site.look(resync=False)
        assert (site.begun, len(site.handed_in)) == (["d", "d"], 3)
    with subtests.test("of another model"):
        site.opened_ms, site.task = 3, replace(TASK, model=GlobalModel(ObjectRef("m", "other")))
        site.look(resync=False)
        assert (site.begun, len(site.handed_in)) == (["d", "d", "other"], 4)
    with subtests.test("its time has passed"):
        site.now = 1_000
        site.look(resync=True)
        assert len(site.handed_in) == 4


def test_a_result_that_an_earlier_process_had_handed_in_is_measured_again() -> None:
    site = Site()
    site.task = None
    site.look(resync=True)
    assert (site.begun, site.handed_in) == ([], [])
    site.task = TASK
    site.look(resync=True)
    assert site.begun == ["d"]
