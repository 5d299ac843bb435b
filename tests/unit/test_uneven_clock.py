"""The simulated clock of `benchmarks/uneven.py` trains by the same rules as a run."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregators.staleness import Constant

pytest.importorskip("sklearn")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("uneven_clock")


def test_sites_alike_give_the_synchronous_models(clock: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clock, "SLOW_S", clock.FAST_S)
    task = importlib.import_module("uneven_tasks").TASKS["digits"]
    waiting = clock.synchronous(task, 0, sites=4, round_s=None)
    buffered = clock.asynchronous(task, 0, buffer=4, rule=Constant())
    for ours, theirs in itertools.islice(zip(buffered, waiting, strict=True), 3):
        assert ours.updates == theirs.updates
        assert ours.time_s == pytest.approx(theirs.time_s)
        for name, array in theirs.model.items():
            np.testing.assert_allclose(ours.model[name], array, atol=1e-5)


def test_a_slow_site_trains_from_an_earlier_model(clock: Any):
    task, stale = importlib.import_module("uneven_tasks").TASKS["digits"], []

    class Noting(Constant):
        def factor(self, rounds: int) -> float:
            stale.append(rounds)
            return super().factor(rounds)

    closed = next(itertools.islice(clock.asynchronous(task, 0, buffer=3, rule=Noting()), 7, None))
    assert (closed.updates[-1], max(stale)) == (1, 6)
    assert closed.time_s < 10
