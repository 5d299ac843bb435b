"""A worker that ends leaves the models that it would judge to another one."""

from __future__ import annotations

from typing import Any

from workers.central_judge import CentralJudge


def test_it_ends_once_the_worker_that_judges_is_told_to():
    nothing: Any = None
    judge = CentralJudge(nothing, print)
    assert not judge.ends
    judge.over.set()
    assert judge.ends
