"""Aggregation by a user's command: its inputs as files in the trainers' format, its result inspected like an update."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from rq.timeouts import JobTimeoutException

from aggregators.updates import ClientModel
from flavor.checkpoints import (
    Format,
    TensorFile,
    TensorFileWriter,
    detect,
    digest_and_check,
    from_safetensors,
    is_finite,
    to_safetensors,
)
from flavor.checkpoints.compare import same_bits, structure_problems
from flavor.config import COMMAND
from flavor.disk import file_of
from flavor.errors import AggregatorFailed, CheckpointError, FlavorError, InvalidSetting, LocalFault
from flavor.locks import take
from flavor.programs.confinement import UNLIMITED, Account, Confinement
from flavor.programs.process import ChildProcess, obituary, quoted
from flavor.records.info import Info
from flavor.records.update import Update
from flavor.store.digests import sha256_file
from workers.combiner import Combined, Work
from workers.environment import user_environment
from workers.folder import RunFolder
from workers.place import Place
from workers.structure import structure
from workers.updates import open_updates, place_update

_GRACE_S = 2.0
_MOST_INFO_BYTES = 1 << 28


@dataclass(frozen=True)
class UserCommand:
    """What `flavor-agg -m` was told."""

    words: tuple[str, ...]
    workspace: Path
    """Below it lie the folders of each run."""
    passed: tuple[str, ...] = ()
    """Environment variables that the command is given in any case."""
    confinement: Confinement = UNLIMITED
    only: bool = False
    """Of the others it is given those that every program needs."""
    output: Path | None = None
    """Its `$OUTPUT_PATH`, in place of a folder in the workspace; no other worker has it."""
    log: Path | None = None
    """Its `$LOG_PATH`, likewise."""

    def start(
        self,
        folder: RunFolder,
        run: str,
        rounds: int,
        *,
        extra: Mapping[str, str] | None = None,
        ended: Callable[[int], None] | None = None,
    ) -> ChildProcess:
        """Start it for this run; raises `CommandNotFound`."""
        environment = {
            **user_environment(os.environ, self.passed, only=self.only),
            **self.confinement.environment(),
            "OUTPUT_PATH": os.fspath(self.output or folder.output),
            "LOG_PATH": os.fspath(self._logs(folder)),
            "TOTAL_ROUNDS": str(rounds),
            "FLAVOR_ROLE": "aggregator",
            "FLAVOR_RUN": run,
            **(extra or {}),
        }
        return ChildProcess(
            self.words,
            environment=environment,
            log=(self._logs(folder) if self.account is None else folder.logs) / "aggregator.log",
            prefix=f"[{run} aggregator] ",
            echo=sys.stderr,
            ended=ended,
            inherited=(folder.lock,),
            confinement=self.confinement,
        )

    @property
    def account(self) -> Account | None:
        """The user that it runs as, unless it is the worker's own."""
        return self.confinement.account

    def open_to_account(self, folder: RunFolder) -> None:
        """Make what is the command's in a run's folder its account's; all around it stays ours."""
        for place in (self.output, self.log):
            if place is not None:
                place.mkdir(parents=True, exist_ok=True)
        if self.account is not None:
            self.account.let_through(folder.path, folder.logs)
            self._logs(folder).mkdir(exist_ok=True)
            self.account.give(self._logs(folder))
            self.account.give(self.output or folder.output)

    def _logs(self, folder: RunFolder) -> Path:
        if self.log is not None:
            return self.log
        return folder.logs if self.account is None else folder.logs / "own"  # our log is in no folder of another's

    def check_way(self) -> None:
        """Make the workspace, `$OUTPUT_PATH` and `$LOG_PATH`.

        Raises `InvalidSetting` where the user that the command runs as cannot come there, or can put something in place
        of them, or of the runs' folders in the workspace: root works in them; and where another worker has them.
        """
        account = self.account
        for name, folder in (("--workspace", self.workspace), ("OUTPUT_PATH", self.output), ("LOG_PATH", self.log)):
            if folder is None:
                continue
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass
            except OSError as error:
                raise InvalidSetting(f"{name} {folder}: {error.strerror}") from None
            if account is not None:
                _check_way(account, name, folder, within=name == "--workspace")

    def take_output(self) -> None:
        """Keep other workers away from `$OUTPUT_PATH` as long as this process lives; `InvalidSetting` if one has it."""
        if self.output is not None:
            handle = os.open(self.output, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if not take(handle):
                os.close(handle)
                raise InvalidSetting(
                    f"OUTPUT_PATH {self.output} is another flavor-agg's on this machine: give each its own, or none"
                )

    def obituary(self, code: int, lines: Sequence[str], where: str = "") -> str:
        """One line about its end, and which limit it reached."""
        limit = self.confinement.explained(code, lines)
        return obituary(f"the aggregator {limit} and" if limit else "the aggregator", code, lines, where)


def _check_way(account: Account, name: str, folder: Path, *, within: bool) -> None:
    """Raise `InvalidSetting` if the account cannot come to a folder, or can replace it; `within`: or what is in it."""
    for each in (folder, *folder.parents):
        if not account.may_enter(each) and (within or each != folder):
            raise InvalidSetting(
                f"--user {account.name} may not enter {each}, on the way to {name} {folder}: "
                "name another folder, or let others enter (chmod o+x)"
            )
    for each in dict.fromkeys((*_way(folder.absolute()), *_way(folder.resolve()))):
        if not within and each in (folder.absolute(), folder.resolve()):
            continue  # it is given to the account
        sticky = each != folder.resolve() and each.stat().st_mode & stat.S_ISVTX  # as /tmp is
        if account.may_change(each) and (not sticky or each.stat().st_uid == account.uid):
            raise InvalidSetting(
                f"--user {account.name} may change {each}, on the way to {name} {folder}: "
                "name a folder that only root can replace"
            )


def _way(folder: Path) -> tuple[Path, ...]:
    return (folder, *folder.parents)


class Runner(Protocol):
    """Has the command aggregate the round whose files are announced in its `$OUTPUT_PATH`."""

    def folder(self, run: str) -> AbstractContextManager[RunFolder]:
        """Where the command works for this run."""

    def __call__(self, work: Work, folder: RunFolder) -> str:
        """Return once it says that it is done, with its last lines, quoted; raises `AggregatorFailed`."""

    def discard(self, run: str) -> None:
        """What it said to be done could not be used."""


@dataclass(frozen=True)
class StartedAnew:
    """`Runner` that starts the command for every round, and waits for its end."""

    command: UserCommand

    def folder(self, run: str) -> RunFolder:
        """See `Runner`."""
        return RunFolder(self.command.workspace, run)

    def __call__(self, work: Work, folder: RunFolder) -> str:
        """See `Runner`."""
        process = self.command.start(folder, work.run, work.config.rounds)
        try:
            code = process.wait()
            assert code is not None
            if code != 0:
                raise AggregatorFailed(self.command.obituary(code, process.last_lines))
            return quoted(process.last_lines)
        except JobTimeoutException:
            raise overdue(work, process) from None
        finally:
            process.stop(_GRACE_S)

    def discard(self, run: str) -> None:
        """Nothing is left of it."""


def overdue(work: Work, process: ChildProcess) -> AggregatorFailed:
    """What is said of a command that is stopped because it takes too long."""
    limit = f"{work.config.aggregation_timeout_s:g} s (--aggregation-timeout-s)"
    return AggregatorFailed(f"the aggregator was still at it after {limit} and is stopped{quoted(process.last_lines)}")


@dataclass(frozen=True)
class CommandCombiner:
    """`Combiner` by a user's command."""

    command: UserCommand
    runner: Runner

    def combine(self, work: Work, target: Path) -> Combined:
        """See `Combiner`. The round's folder stays for a look when the attempt fails, until the next one."""
        config = work.config
        if config.aggregator not in (None, COMMAND):
            raise AggregatorFailed(
                f"run {work.run!r} was started with --aggregator {config.aggregator}, and this worker has an "
                "aggregator of its own (-m): use workers without -m, on another --queue if need be, "
                "or leave out --aggregator"
            )
        if reason := config.not_for_command:
            raise AggregatorFailed(f"run {work.run!r} cannot be aggregated by this worker's -m: {reason}")
        with contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(self.runner.folder(work.run))
                self.command.open_to_account(folder)
                for old in folder.path.glob("round-*"):
                    shutil.rmtree(old, ignore_errors=True)
                # Never one that was there: what another user's process may still write to is no place for us to write.
                of_round = Path(tempfile.mkdtemp(prefix=f"round-{work.round}-", dir=folder.path))
                place = _laid_out(work, of_round)
                if (account := self.command.account) is not None:
                    for part in ("clients", "global"):
                        account.give_tree(of_round / part)
                    account.let_through(of_round)
                place.announce(self.command.output or folder.output)
            except OSError as error:
                where = file_of(error, f"the folder {self.command.workspace}, or an object of the store")
                raise LocalFault(
                    f"{where}: {error.strerror}: check the disk and the aggregator's --workspace"
                ) from error
            said = self.runner(work, folder)
            try:
                if self.command.account is not None:
                    place = _brought_home(place, self.command.account, said)
                combined = _taken(work, place, target, said)
            except FlavorError:
                self.runner.discard(work.run)
                raise
            shutil.rmtree(of_round, ignore_errors=True)
            return combined


def _brought_home(place: Place, account: Account, said: str) -> Place:
    """Copies of what another user's process left, in a folder of ours: it can neither change them nor lead us astray.

    Only plain files of its own are taken, not links, pipes, nor what belongs to somebody else.
    """
    home = place.global_model.parent.parent / "taken"
    home.mkdir(mode=0o700)
    for source in (place.global_model, place.global_info):
        try:
            handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError:
            raise AggregatorFailed(f"the aggregator left no plain file at {source}{said}") from None
        with open(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != account.uid:
                raise AggregatorFailed(f"the aggregator left no plain file of its own at {source}{said}")
            with (home / source.name).open("xb") as copy:
                shutil.copyfileobj(file, copy)
    return replace(place, global_model=home / place.global_model.name)


def _laid_out(work: Work, folder: Path) -> Place:
    """The contributors' models as their trainers saved them, and all information."""
    extension = ".ckpt" if not work.config.kind.has_tensors else Format(work.format).extension
    place = Place.prepare(folder, work.infos, work.info, extension=extension)
    for update, path in zip(work.updates.values(), place.local_models, strict=True):
        if not work.config.kind.has_tensors:
            _fetch(work, update, path)
        else:
            _lay_out_tensors(work, update, path)
    work.opened.finish()  # the command takes its time, in which a site may do with its object what it likes
    return place


def _lay_out_tensors(work: Work, update: Update, path: Path) -> None:
    model = _opened(work, update)
    if model.encoding is None and update.format == Format.SAFETENSORS:
        _fetch(work, update, path)
    elif model.encoding is None:
        ours = path.with_name(f".{path.name}.wire")
        place_update(work.store, update, ours)
        from_safetensors(ours, path, Format(update.format))
        ours.unlink()
    else:
        with TensorFileWriter(path, model.specs, model.metadata) as writer:
            for spec in writer.specs:
                writer.write(spec.name, np.asarray(model.tensors[spec.name]))
        if update.format != Format.SAFETENSORS:
            from_safetensors(path, path, Format(update.format))


def _fetch(work: Work, update: Update, path: Path) -> None:
    place_update(work.store, update, path)


def _opened(work: Work, update: Update) -> ClientModel:
    (model,) = open_updates(work.opened, [update], work.old)
    return model


def _taken(work: Work, place: Place, target: Path, said: str) -> Combined:
    """Inspect what the command left, and put it at `target`."""
    made = place.global_model
    if not made.is_file() or not made.stat().st_size:
        how = "is empty" if made.is_file() else "was not written"
        raise AggregatorFailed(f"the aggregator finished, but the file at GetPaths('globalModel')[0] {how}{said}")
    info = _info(work, place)
    if not work.config.kind.has_tensors:
        digest, size = sha256_file(made)
        shutil.move(made, target)
        return Combined(digest, size, info, notes=_notes(work, digest))
    client, first = next(iter(work.updates.items()))
    constants = work.constants.get(client, ())
    try:
        wire = to_safetensors(made, target, detect(made))
        found, update, model = digest_and_check(target), _opened(work, first), TensorFile.open(target)
        if problems := structure_problems(structure(model.specs), structure(update.specs), "the local models"):
            raise CheckpointError(problems)
        for name in found.odd if found.nonfinite else ():
            constant = name in constants and same_bits(np.asarray(update.tensors[name]), model.tensor(name))
            if not constant and not is_finite(model.tensor(name)):
                raise CheckpointError(f"tensor {name!r} has NaN or infinite values")
    except CheckpointError as error:
        message = str(error).removeprefix(f"{made}: ")
        raise AggregatorFailed(f"the aggregator's global model cannot be used: {message}{said}") from None
    return Combined(wire.sha256, wire.size_bytes, info, notes=_notes(work, wire.sha256))


def _notes(work: Work, digest: str) -> tuple[str, ...]:
    """That the model did not change, told by its bytes alone."""
    same = work.old is not None and digest == work.old.model.digest
    return (f"warning: the model did not change in round {work.round}",) if same else ()


def _info(work: Work, place: Place) -> Info:
    """The merged information, with the command's own metrics where it changed them."""
    try:
        with place.global_info.open(encoding="utf-8") as file:
            metrics = json.loads(file.read(_MOST_INFO_BYTES), parse_constant=_refuse_constant)["metrics"]
        if not isinstance(metrics, dict) or not all(_is_metric(value) for value in metrics.values()):
            raise ValueError("a metric is neither a number nor a list of numbers, or is not finite")
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise AggregatorFailed(
            f"the aggregator changed the file at GetPaths('globalInfo')[0] to something that cannot be used ({error}): "
            "it may change numbers under 'metrics', or leave the file alone"
        ) from None
    return {**work.info, "metrics": metrics}


def _is_metric(value: object) -> bool:
    """Whether it is a number or a list of them, null where one is missing; 1e999 is read as inf, and is none."""
    values = value if isinstance(value, list) else [value]
    return all(
        each is None or (isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each))
        for each in values
    )


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} in it")
