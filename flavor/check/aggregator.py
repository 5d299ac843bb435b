"""The user's aggregator between the rounds of a trainer: what `check-agg` adds to `check-fl`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from flavor.check import model
from flavor.check.aggregation import Made, Sent
from flavor.check.aggregator_checks import (
    ACCEPTED,
    ANEW_CHECKS,
    EXITS,
    FINITE,
    FOLLOWS,
    LOADABLE,
    SHAPES,
    STARTS,
    WRITES,
)
from flavor.check.bus import CLIENT, RUN, FakeBus
from flavor.check.folders import Folders, stamp
from flavor.check.report import Check, Report
from flavor.check.screen import Screen
from flavor.check.script import Ended, Late, Over, Script
from flavor.command import search_path
from flavor.errors import CheckpointError
from flavor.store.formats import Checkpoint, Format, read, write
from flavor.store.info import FILE_NAME, Info, merge_infos, write_json

CLIENTS = (CLIENT, "second", "third")
_SPREAD = 0.5
_CLEARLY = 10.0
"""A change shows if it moves the result this many times as far as running again on the same inputs does."""


@dataclass(frozen=True)
class _Place:
    """Where one aggregation finds its inputs and leaves its result."""

    locals: list[Path]
    target: Path


class CommandAggregation:
    """Three clients, the trainer and two made of it, and the user's command, started anew in each round."""

    def __init__(
        self,
        command: Sequence[str],
        folders: Folders,
        *,
        rounds: int,
        timeout_s: float,
        environment: Mapping[str, str],
        screen: Screen,
    ) -> None:
        self.report = Report(ANEW_CHECKS)
        self._command, self._rounds, self._timeout_s = command, rounds, timeout_s
        self._root, self._log = folders.root / "aggregator", folders.workspace.log / "aggregator.log"
        self._base, self._screen = environment, screen
        self._bus: FakeBus | None = None
        self._script: Script | None = None

    def start(self, bus: FakeBus) -> None:
        """Nothing runs before the first round."""
        self._bus = bus
        self._script = Script(bus, self._screen, self._timeout_s, mark="agg| ")

    def make(self, round_: int, sent: Sent, target: Path) -> Made | None:
        """Aggregate the round with the command, and look at what it makes; in round one, run it again, too."""
        assert sent.content is not None
        if sent.info is None:
            raise Over  # the trainer's checks say why
        local, format_ = sent.content
        others = [model.other(local.tensors, seed=10 * round_ + i, spread=_SPREAD) for i in range(1, len(CLIENTS))]
        models = [local.tensors, *others]
        place = self._place(self._root / f"round-{round_}", local, format_, models, sent.info)
        shutil.copyfile(sent.path, place.locals[0])
        self._screen.tell(f"aggregating round {round_}")
        self._run(self._root / "output", place, f"round {round_}")
        made = self._look_at(place.target, local, format_, f"round {round_}")
        if round_ == 1:
            self._try_changes(local, format_, models, sent.info, made)
        shutil.copyfile(place.target, target)
        shutil.copyfile(place.target.with_name(FILE_NAME), target.with_name(FILE_NAME))
        return Made(made, model.mean(models))

    def taken_up(self, round_: int, *, finished: bool) -> None:
        """Record whether the trainer could go on from the global model."""
        if finished:
            self.report.passed(ACCEPTED, f"round {round_} was trained from it")
        else:
            self.report.failed(ACCEPTED, f"the trainer did not finish round {round_}: its own checks say how")

    def end(self) -> None:
        """Nothing runs after the last round."""

    def stop(self) -> None:
        """Stop the command if it runs."""
        if self._script is not None:
            self._script.stop()

    def _place(
        self, folder: Path, local: Checkpoint, format_: Format, models: Sequence[model.Tensors], info: Info
    ) -> _Place:
        """Write each client's model and info, and the merged info where the result goes."""
        paths = []
        for client, tensors in zip(CLIENTS, models, strict=True):
            path = folder / client / "model.ckpt"
            path.parent.mkdir(parents=True)
            write(path, Checkpoint(dict(tensors), local.structure, local.metadata), format_)
            write_json(path.with_name(FILE_NAME), info)
            paths.append(path)
        target = folder / "global" / "model.ckpt"
        target.parent.mkdir()
        write_json(target.with_name(FILE_NAME), merge_infos(CLIENTS, [info] * len(CLIENTS)))
        return _Place(paths, target)

    def _run(self, output: Path, place: _Place, where: str) -> None:
        """Run the command to its end."""
        assert self._script is not None
        assert self._bus is not None
        output.mkdir(parents=True, exist_ok=True)
        paths = {
            "localModels": place.locals,
            "localInfos": [path.with_name(FILE_NAME) for path in place.locals],
            "globalModel": [place.target],
            "globalInfo": [place.target.with_name(FILE_NAME)],
        }
        for kind, chosen in paths.items():
            write_json(output / f"{kind}.json", [str(path) for path in chosen])
        environment = {
            **self._base,
            "PATH": search_path(self._base),
            "PYTHONUNBUFFERED": "1",
            "OUTPUT_PATH": str(output),
            "LOG_PATH": str(self._log.parent),
            "TOTAL_ROUNDS": str(self._rounds),
            "FLAVOR_RUN": RUN,
            "FLAVOR_REDIS_URL": self._bus.url,
        }
        self._script.launch(self._command, environment, self._log)
        self.report.passed(STARTS)
        try:
            self._script.wait(f"the aggregator ({where})", lambda: False)
        except Late:
            self._give_up(EXITS, f"{where}: still running after {self._script.limit}")
        except Ended:
            if self._script.exit_code() != 0:
                hint = "repair what its last lines say"
                self._give_up(EXITS, self._script.obituary("the aggregator", f"in {where}"), hint=hint)
        self.report.passed(EXITS)

    def _look_at(self, path: Path, local: Checkpoint, format_: Format, where: str) -> model.Tensors:
        if stamp(path) is None:
            self._give_up(WRITES, f"{where}: there is no file at GetPaths('globalModel')[0]")
        self.report.passed(WRITES, f"{path.stat().st_size} bytes")
        try:
            found = model.opened(path)
            tensors = read(path, found).tensors
        except CheckpointError as error:
            self._give_up(LOADABLE, f"{where}: {str(error).removeprefix(f'{path}: ')}")
        if found is not format_:
            self._give_up(LOADABLE, f"{where}: the format is {found}, and that of the local models {format_}")
        self.report.passed(LOADABLE, found)
        if bad := model.nonfinite(tensors):
            self._give_up(FINITE, f"{where}: NaN or infinity in {bad}")
        self.report.passed(FINITE)
        if changed := model.differences(local.tensors, tensors):
            self._give_up(SHAPES, f"{where}, from the local models to the global one: {changed}")
        self.report.passed(SHAPES)
        return tensors

    def _try_changes(
        self, local: Checkpoint, format_: Format, models: Sequence[model.Tensors], info: Info, made: model.Tensors
    ) -> None:
        """Run round one again in folders of its own: on the same models, then with each of them changed in turn."""

        def again(name: str, changed: Sequence[model.Tensors]) -> float:
            folder = self._root / name
            place = self._place(folder, local, format_, changed, info)
            self._run(folder / "output", place, f"round 1, run again ({name})")
            tensors = self._look_at(place.target, local, format_, f"round 1, run again ({name})")
            return model.distance(made, tensors)

        self._screen.tell("aggregating round 1 again, with one local model changed at a time")
        unchanged = again("unchanged", models)
        moved = []
        for index, client in enumerate(CLIENTS):
            changed = [model.shaken(each, seed=1) if i == index else each for i, each in enumerate(models)]
            moved.append(again(f"{client}-changed", changed))
        if all(move == 0.0 for move in moved) and unchanged == 0.0:
            self._give_up(FOLLOWS, "the same global model came out, whichever local model was changed")
        noisy = f"; two runs on the same models differ by {unchanged:.3g}" if unchanged else ""
        deaf = [f"{i + 1}" for i, move in enumerate(moved) if move <= _CLEARLY * unchanged]
        if not deaf:
            self.report.passed(FOLLOWS, f"a change in any of {len(CLIENTS)} shows in it{noisy}")
        elif unchanged:
            self.report.skipped(FOLLOWS, f"a change in local model {', '.join(deaf)} does not stand out{noisy}")
        else:
            self._give_up(FOLLOWS, f"a change in local model {' or '.join(deaf)} of {len(CLIENTS)} changes nothing")

    def _give_up(self, check: Check, detail: str, *, hint: str | None = None) -> NoReturn:
        self.report.failed(check, detail, hint=hint)
        raise Over
