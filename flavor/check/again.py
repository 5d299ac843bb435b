"""Start a training script a second time, to see whether round one begins with the same weights each time.

Every site starts the script by itself. Where its first weights come from a random generator without a seed, the sites
train unrelated models, whose mean is worse than each of them. No number is then wrong, and nothing in a run shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from aggregators.dtypes import Array, Kind, kind_of
from flavor.check.fake_bus import FakeBus
from flavor.check.model import Tensors, moves_by_itself, opened
from flavor.check.output import Screen
from flavor.check.report import Report
from flavor.check.script import Ended, Late, Script
from flavor.check.trainer_checks import SEEDED
from flavor.checkpoints import read
from flavor.checkpoints.compare import structure_problems
from flavor.edge.workspace import Workspace
from flavor.errors import CheckpointError
from flavor.records.names import Event

_UNRELATED = 0.3
_FEW = 100
"""Fewest numbers that are compared: by chance their correlation reaches 0.3 once in a thousand times."""


def start_again(
    report: Report,
    workspace: Workspace,
    first: Tensors,
    launch: Callable[[Script, FakeBus], None],
    screen: Screen,
    *,
    rounds: int,
    timeout_s: float,
) -> None:
    """Start the script again without a global model, and compare the model of its round one with `first`."""
    screen.tell("round 1 once more, in a second start")
    workspace.clear_local()
    for path in (workspace.global_model, *workspace.merged_infos):
        path.unlink(missing_ok=True)
    with FakeBus(rounds, on_set=lambda key: None) as bus:
        script = Script(bus, screen, timeout_s, mark="| ")
        try:
            launch(script, bus)
            script.wait("TrainInitDone", lambda: bus.events.is_set(Event.TRAIN_INIT_DONE, 0))
            script.wait("the script to wait for round 1", lambda: bus.looking)
            bus.events.start_round(1)
            script.wait("TrainFinished of round 1", lambda: bus.events.is_set(Event.TRAIN_FINISHED, 1))
        except (Ended, Late):
            report.unclear(SEEDED, "started once more in the same folders, it did not finish round 1")
            return
        finally:
            screen.waited()
            script.stop()
    _compare(report, first, workspace.local_model)


def _compare(report: Report, first: Tensors, path: Path) -> None:
    try:
        second = read(path, opened(path)).tensors
    except CheckpointError:
        report.unclear(SEEDED, "the model of a second start cannot be read")
        return
    if structure_problems(second, first, "the first start"):
        report.unclear(SEEDED, "the model of a second start has other tensors")
        return
    one, other = _weights(first, first), _weights(second, first)
    if all(np.array_equal(array, second[name]) for name, array in first.items()):
        report.passed(SEEDED, "a second start handed in the same weights, bit for bit")
    elif one.size < _FEW:
        if np.allclose(one, other, rtol=0.05, atol=0.05):
            report.passed(SEEDED, "a second start handed in nearly the same weights")
        else:
            report.unclear(
                SEEDED, f"two starts handed in different weights, and {one.size} weights are too few to tell why"
            )
    elif (alike := float(np.mean(one * other))) < _UNRELATED:
        report.warned(SEEDED, f"two starts handed in weights that have nothing in common (correlation {alike:.2f})")
    else:
        report.passed(SEEDED, f"a second start handed in weights like the first's (correlation {alike:.2f})")


def _weights(tensors: Tensors, like: Tensors) -> Array:
    """Return all weights, each tensor at mean 0 and deviation 1; of matrices alone, if there are any.

    Biases begin at 0 and a normalisation at 1, with any seed.
    """
    names = [
        name
        for name, array in like.items()
        if array.size > 1
        and kind_of(array.dtype) is Kind.FLOAT
        and not moves_by_itself(name, array)
        and float(np.ptp(array)) > 0
    ]
    names = [name for name in names if like[name].ndim > 1] or names
    return np.concatenate([np.empty(0), *(_standard(tensors[name]) for name in names)])


def _standard(array: Array) -> Array:
    wide = array.astype(np.float64).reshape(-1)
    deviation = float(wide.std())
    centred: Array = (wide - wide.mean()) / (deviation or 1.0)
    return centred
