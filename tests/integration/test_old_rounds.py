"""What old rounds cost: counted, and not timed. Nothing is done for each pair of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.pruning import Pruning
from flavor.ledger.audit import audit
from flavor.ledger.history import History
from flavor.ledger.recover import recover
from flavor.ledger.trust import Trust
from flavor.records.objects import ObjectRef
from flavor.store.paths import manifest_path
from tests.unit.forged_run import CONFIG, ForgedRun

FEW, MANY = 60, 150
"""More than the rounds that Redis and the store keep for those who follow a run."""
LINEAR = 1.15 * MANY / FEW
"""So many times the rounds may cost so many times as much, and what little grows besides."""


def calls(act: Callable[[], object]) -> int:
    """How many functions are called meanwhile in this thread: of ours, of libraries and of the interpreter's."""
    count = 0

    def seen(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


class Cost:
    """What each thing costs for a run of so many closed rounds."""

    def __init__(self, run: ForgedRun, url: str) -> None:
        redis = connect(url)
        redis.flushall()
        archive, runs = run.archive, RunStore(redis, run.name, url)
        trust = Trust(frozenset({str(run.worker.public)}))
        self.verify = calls(lambda: audit(archive, trust))
        self.recover = calls(lambda: recover(archive, runs, url=url, replace=False, trust=trust, tell=lambda _: None))
        closed = len(run.manifests)
        assert runs.read().round == closed
        ref = ObjectRef(manifest_path(run.name, closed), run.manifests[-1].digest)

        def start() -> None:
            """As a coordinator does that takes the run over."""
            history = History(runs, archive, print)
            history.check()
            history.settle(closed, ref)

        self.start = calls(start)
        config = RunConfig.known({**run.config, "store": run.store.url, "keep_globals": 3})
        pruning = Pruning(runs, run.store, config, print)
        pruning.prune(closed - 1, ["a", "b"])
        self.prune = calls(lambda: pruning.prune(closed, ["a", "b"]))
        redis.close()


@pytest.fixture(scope="module")
def costs(url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cost, Cost]:
    """Of a run with few closed rounds, and of one with many."""

    def cost(rounds: int) -> Cost:
        folder: Path = tmp_path_factory.mktemp("rounds") / "s"
        return Cost(ForgedRun(folder, config={**CONFIG, "rounds": rounds}).complete(rounds), url)

    cost(2)  # what is imported and compiled once
    return cost(FEW), cost(MANY)


@pytest.mark.parametrize("what", ["verify", "recover"])
def test_each_old_round_costs_as_much_as_any_other(costs: tuple[Cost, Cost], what: str) -> None:
    few, many = (getattr(cost, what) for cost in costs)
    assert many <= LINEAR * few, (few, many)
    assert few > 100 * FEW, "it was counted"


@pytest.mark.parametrize("what", ["start", "prune"])
def test_a_coordinator_looks_at_none_of_them(costs: tuple[Cost, Cost], what: str) -> None:
    """When it starts, and when it opens a round."""
    few, many = (getattr(cost, what) for cost in costs)
    assert many <= 1.5 * few, (few, many)
