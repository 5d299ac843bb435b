"""One round of an aggregator on checkpoints with tensors."""

from __future__ import annotations

import functools
import math
import shutil
from pathlib import Path

from flavor.check import model
from flavor.check.aggregation import Made, Sent
from flavor.check.aggregator_checks import FINITE, FOLLOWS, LOADABLE, SHAPES, WEIGHS
from flavor.check.aggregator_process import Life
from flavor.check.round_files import CLIENTS, CheckedFiles, clients_of, sizes_of
from flavor.check.sensitivity import Trial
from flavor.check.weighing import Weighing, exchanged, explained, is_about_one, total, weighing
from flavor.checkpoints import Checkpoint, Format, detect, from_safetensors, read, to_safetensors, write
from flavor.checkpoints.compare import structure_problems
from flavor.errors import CheckpointError, StoreError
from flavor.records.info import Info

_SPREAD = 0.5
_CLEARLY = 10.0
"""A change counts as visible if it moves the result this many times as far as a run on the same inputs does."""
_SCALE = "divide by what the weights sum to, once: else the global model is too large or too small by this factor"
_TELLING = 16
"""Numbers of a tensor in which any rule shows the change of one local model; the median of fewer may stay."""


class TensorRound:
    """The trainer's model and those of other clients, made from it by coins."""

    def __init__(self, round_: int, sent: Sent, info: Info, folder: Path) -> None:
        assert sent.content is not None
        self._info = info
        self._local, self._format = sent.content
        others = [
            model.other(self._local.tensors, seed=10 * round_ + i, spread=_SPREAD)
            for i in range(1, len(clients_of(round_)))
        ]
        self._models: list[model.Tensors] = [self._local.tensors, *others]
        writers = [functools.partial(self._write, tensors) for tensors in self._models]
        self.files = CheckedFiles.lay_out(folder, writers, info, extension=self._format.extension)

    def look_at(self, life: Life, files: CheckedFiles, where: str) -> model.Tensors:
        """Return the tensors of the global model, if they can be the next round's."""
        path = files.global_model
        try:
            format_ = model.opened(path)
            tensors = read(path, format_).tensors
        except CheckpointError as error:
            life.fail(LOADABLE, f"{where}: {_without(error, path)}")
        converted = "" if format_ is self._format else f"; the trainer is given it as {self._format}"
        life.report.passed(LOADABLE, format_ + converted)
        if bad := model.nonfinite(tensors):
            life.fail(FINITE, f"{where}: NaN or infinity in {bad}")
        life.report.passed(FINITE)
        if changed := structure_problems(tensors, self._local.tensors, "a local model"):
            life.fail(SHAPES, f"{where}: in the global model {changed}")
        life.report.passed(SHAPES)
        return tensors

    def try_changes(self, life: Life, trial: Trial[model.Tensors], made: model.Tensors) -> None:
        """Run the round again: on the same models, then with each of them doubled in turn."""
        changed = [model.doubled(tensors) for tensors in self._models]
        if all(model.distance(*pair) == 0.0 for pair in zip(self._models, changed, strict=True)):
            nothing = "there is no tensor of floating-point numbers to change"
            life.report.unclear(FOLLOWS, nothing)
            life.report.unclear(WEIGHS, nothing)
            return
        noise = model.distances(made, trial("unchanged", {}))
        moves = [
            model.distances(made, trial(f"{client}-changed", {index: functools.partial(self._write, changed[index])}))
            for index, client in enumerate(CLIENTS)
        ]
        unchanged, moved = math.hypot(*noise.values()), [math.hypot(*each.values()) for each in moves]
        if all(move == 0.0 for move in moved) and unchanged == 0.0:
            life.fail(FOLLOWS, "the same global model came out, whichever local model was changed")
        noisy = f"; two runs on the same models differ by {unchanged:.3g}" if unchanged else ""
        deaf = [f"{i + 1}" for i, move in enumerate(moved) if move <= _CLEARLY * unchanged]
        if not deaf:
            self._look_at_each(life, moves, noise, made)
            life.report.passed(FOLLOWS, f"a change in any of {len(CLIENTS)} shows in it{noisy}")
        elif unchanged:
            life.report.unclear(FOLLOWS, f"a change in local model {', '.join(deaf)} does not stand out{noisy}")
        else:
            twins = [i + 1 for i, each in enumerate(self._models) if model.distance(made, each) == 0.0]
            twin = f"; it is local model {twins[0]} itself" if twins else ""
            life.fail(FOLLOWS, f"a change in local model {' or '.join(deaf)} of {len(CLIENTS)} changes nothing{twin}")
        self._look_at_weights(life, trial, made, unchanged)

    def _look_at_each(
        self, life: Life, moves: list[dict[str, float]], noise: dict[str, float], made: model.Tensors
    ) -> None:
        """Check whether each tensor follows the local models, and the tensor of the same name in them."""
        if (pair := exchanged(self._models, made)) is not None:
            life.fail(FOLLOWS, f"{pair[0]} of the global model is made of {pair[1]} of the local models")
        still = [name for name, each in noise.items() if each == 0.0 and made[name].size]
        constant = [name for name in still if not any(move[name] for move in moves)]
        partly = {
            name: " or ".join(str(i + 1) for i, move in enumerate(moves) if not move[name])
            for name in still
            if name not in constant and not all(move[name] for move in moves)
        }
        if large := [name for name in partly if made[name].size >= _TELLING]:
            life.fail(
                FOLLOWS,
                f"a change in local model {partly[large[0]]} of {len(CLIENTS)} does not show in {model.some(large)}",
            )
        if constant:
            life.report.warned(FOLLOWS, f"no change in any local model shows in {model.some(constant)}")
        elif partly:
            names = list(partly)
            which = f"a change in local model {partly[names[0]]} of {len(CLIENTS)}"
            life.report.warned(FOLLOWS, f"{which} does not show in {model.some(names)}; a rule by order may be so")

    def _look_at_weights(self, life: Life, trial: Trial[model.Tensors], made: model.Tensors, unchanged: float) -> None:
        """Check whether the local models count by their clients' examples; try other sizes where it is unclear."""
        sizes = self._sizes
        if (sum_ := self.total(made)) is not None and not is_about_one(sum_):
            life.report.warned(WEIGHS, self._out_of_scale(sum_), hint=_SCALE)
            return
        how, name, shares = weighing(self._models, made, sizes)
        told = f"of datasetSize {', '.join(map(str, sizes))} the shares are {', '.join(f'{s:.3f}' for s in shares)}"
        told += f" in {name}" if name and how is not Weighing.BY_SIZE else ""
        match how:
            case Weighing.BY_SIZE:
                life.report.passed(WEIGHS, told)
            case Weighing.ALIKE:
                life.report.warned(WEIGHS, f"the local models count alike: {told}")
            case Weighing.EXCHANGED:
                life.fail(WEIGHS, f"the weights are those of other clients: {told}")
            case Weighing.UNKNOWN | Weighing.OTHERWISE:  # of three models even a median may look like a mean
                same = {i: functools.partial(self._write, tensors) for i, tensors in enumerate(self._models)}
                moved = model.distance(made, trial("other-sizes", same, sizes[::-1]))
                if moved == 0.0:
                    life.report.warned(WEIGHS, "with other sizes the same model comes out")
                elif moved <= _CLEARLY * unchanged:
                    life.report.unclear(WEIGHS, f"two runs on the same models differ by {unchanged:.3g}")
                elif how is Weighing.OTHERWISE:
                    life.report.warned(WEIGHS, told)
                else:
                    life.report.passed(WEIGHS, "with other sizes another model comes out")

    def total(self, made: model.Tensors) -> float | None:
        """Return the sum of the local models' shares; None if it cannot be determined."""
        return total(self._models, made)

    def fail_scale(self, life: Life, where: str, sum_: float) -> None:
        """Fail because the shares sum to `sum_`."""
        life.fail(WEIGHS, f"{where}: {self._out_of_scale(sum_)}", hint=_SCALE)

    @property
    def _sizes(self) -> tuple[int, ...]:
        return sizes_of(self._info)[: len(self._models)]

    def _out_of_scale(self, sum_: float) -> str:
        return f"the shares of the local models sum to {sum_:.4g}, not to 1{explained(sum_, self._sizes)}"

    def hand_over(self, life: Life, where: str, target: Path) -> None:
        """Write the global model as the trainer will find it: through safetensors to the trainer's format."""
        made = self.files.global_model
        wire = target.with_name("wire.safetensors")
        try:
            to_safetensors(made, wire, detect(made))
            if self._format is Format.SAFETENSORS:
                shutil.copyfile(wire, target)
            else:
                from_safetensors(wire, target, self._format, self._local.structure, beside=self._local.beside)
        except (CheckpointError, StoreError) as error:
            reason = _without(_without(error, made), target)
            life.fail(LOADABLE, f"{where}: it cannot be given to the trainer as {self._format}: {reason}")

    def made(self, made: model.Tensors) -> Made:
        """Return what the trainer's next model is compared with."""
        return Made(made, model.mean(self._models))

    def _write(self, tensors: model.Tensors, path: Path) -> None:
        """Write a local model as `flavor-agg` does: only what crosses the wire, in the trainer's format."""
        structure = self._local.structure and self._local.structure.shared()
        write(path, Checkpoint(dict(tensors), structure), self._format)


def _without(error: Exception | str, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")
