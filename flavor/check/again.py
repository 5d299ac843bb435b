"""Start a training script again after its rounds: once without a global model, and once with one.

Every site starts the script by itself. Where its first weights come from a random generator without a seed, the sites
train unrelated models, whose mean is worse than each of them. No number is then wrong, and nothing in a run shows it.

A script that is started again in a later round, and every script of a run that is resumed or has an initial model,
finds a global model in its first pass. A script whose parameters do not exist before its first training, such as one
with scikit-learn's `partial_fit`, fails there, although it goes through all rounds of one start.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from aggregators.dtypes import Array, Kind, kind_of
from flavor.check.aggregation import Made
from flavor.check.fake_bus import FakeBus
from flavor.check.model import Tensors, moves_by_itself, opened, unchanged
from flavor.check.output import Screen
from flavor.check.report import Report
from flavor.check.script import Ended, Late, Script
from flavor.check.trained_from import compared, judge_read
from flavor.check.trainer_checks import FROM_GLOBAL, SEEDED
from flavor.checkpoints import read
from flavor.checkpoints.compare import structure_problems
from flavor.edge.workspace import Workspace
from flavor.errors import CheckpointError
from flavor.programs.readmark import ReadMark
from flavor.records.names import Event

Launch = Callable[[Script, FakeBus, int], None]
"""Starts the script on a bus, with this number of rounds."""

_AGAIN = "started again with a global model at $GLOBAL_MODEL_PATH"
_UNRELATED = 0.3
_FEW = 100
"""Fewest numbers that are compared: by chance their correlation reaches 0.3 once in a thousand times."""


class Again:
    """Starts a checked script again, for one round each time, in the same folders."""

    def __init__(
        self,
        report: Report,
        workspace: Workspace,
        launch: Launch,
        screen: Screen,
        rounds: int,
        timeout_s: float,
        shared: Callable[[Tensors], Tensors] = lambda tensors: tensors,
    ) -> None:
        """Take what is needed to start the script; `shared` returns the tensors that are compared."""
        self._report, self._files, self._launch, self._screen = report, workspace, launch, screen
        self._rounds, self._timeout_s, self._shared = rounds, timeout_s, shared

    def without_global_model(self, first: Tensors) -> None:
        """Start the script without a global model, and compare the model of its round one with `first`."""
        self._screen.tell("round 1 once more, in a second start")
        for path in (self._files.global_model, *self._files.merged_infos):
            path.unlink(missing_ok=True)
        if self._run(1, self._rounds):
            self._report.unclear(SEEDED, "started once more in the same folders, it did not finish round 1")
        else:
            _compare(self._report, first, self._files.local_model, self._shared)

    def with_global_model(self, known: tuple[Tensors, Made] | None) -> None:
        """Start the script in the round after the last one, with the global model that is in its place.

        `known` has the script's last model and the global model that was made from it; None if the checkpoint has no
        tensors.
        """
        round_ = self._rounds + 1
        self._screen.tell(f"round {round_} in another start, which begins with the global model")
        mark = ReadMark(self._files.global_model)
        if trouble := self._run(round_, round_):
            self._report.failed(FROM_GLOBAL, f"{_AGAIN}, {trouble}")
        elif not self._files.local_model.is_file():
            self._report.failed(FROM_GLOBAL, f"{_AGAIN}, it saved no model at $LOCAL_MODEL_PATH")
        elif known is None:
            self._report.passed(FROM_GLOBAL, "the round was finished")
        else:
            self._judge(known, mark.was_read())

    def _judge(self, known: tuple[Tensors, Made], was_read: bool | None) -> None:
        before, made = known
        try:
            after = self._shared(read(self._files.local_model, opened(self._files.local_model)).tensors)
        except CheckpointError as error:
            detail = str(error).removeprefix(f"{self._files.local_model}: ")
            self._report.failed(FROM_GLOBAL, f"{_AGAIN}, it saved a model that cannot be read: {detail}")
            return
        if changed := structure_problems(after, before, "the first start"):
            self._report.failed(FROM_GLOBAL, f"{_AGAIN}, it saved another model: {changed}")
        elif same := unchanged(made.tensors, after):
            self._report.failed(FROM_GLOBAL, f"{_AGAIN}, it handed in the global model, {same}")
        else:
            judge_read(self._report, was_read, compared(before, made, after))

    def _run(self, round_: int, rounds: int) -> str:
        """Run one round in a new process; return why it was not finished, empty if it was."""
        self._files.clear_local()
        with FakeBus(rounds, on_set=lambda key: None) as bus:
            script = Script(bus, self._screen, self._timeout_s, mark="| ")
            try:
                self._launch(script, bus, rounds)
                script.wait("TrainInitDone", lambda: bus.events.is_set(Event.TRAIN_INIT_DONE, 0))
                script.wait(f"the script to wait for round {round_}", lambda: bus.looking)
                bus.events.start_round(round_)
                script.wait(f"TrainFinished of round {round_}", lambda: bus.events.is_set(Event.TRAIN_FINISHED, round_))
            except Ended:
                return script.obituary("the script", f"before TrainFinished of round {round_}")
            except Late:
                return f"the script did not set TrainFinished of round {round_} within {script.limit}"
            finally:
                self._screen.waited()
                script.stop()
        return ""


def judge_first_round(report: Report, was_read: bool | None) -> None:
    """Record whether round one, which began with weights at `GLOBAL_MODEL_PATH`, read them."""
    if was_read is False:
        report.failed(FROM_GLOBAL, "round 1: the weights at $GLOBAL_MODEL_PATH were never read")
    report.passed(FROM_GLOBAL, "round 1 started from the weights at $GLOBAL_MODEL_PATH")


def _compare(report: Report, first: Tensors, path: Path, shared: Callable[[Tensors], Tensors]) -> None:
    try:
        second = shared(read(path, opened(path)).tensors)
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
