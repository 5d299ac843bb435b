"""Exports a run as event files of TensorBoard: one folder for the merged metrics, and one for each site.

TensorBoard draws what has one tag into one chart, a line for each folder: a metric of all sites and both means are in
one chart. All values of a round at one place are one event, so that an interruption leaves a round whole or out.
Numbers have 32 bits, as TensorBoard's own writers write them: its server leaves out scalars of 64 bits without a word.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flavor.atomic import write_json
from flavor.errors import InvalidSetting, LocalFault
from flavor.printable import printable
from flavor.records.counts import CENTRAL_PREFIX
from flavor.records.merging import WEIGHTED
from flavor.records.run import RunView
from flavor.results.evaluated import Evaluated
from flavor.results.evaluation_tables import values_of
from flavor.results.rounds import for_charts
from flavor.trackers.tracker import JUDGED, ClosedRound, Held, by_round, settings_of

MARK = ".flavor-export.json"
OWN = "flavor/"
"""The tags of what flavor itself says of a round begin so, as no metric's tag does."""
_MERGED, _WEIGHTED, _SITES = "merged", "merged-weighted", "sites"
_JUDGED, _CENTRAL = "evaluation", "evaluation-central"
_OPTION = "--to tensorboard"
_HEAD, _TAIL = struct.Struct("<Q4x"), struct.Struct("<I")
"""What surrounds the data of a record: its length with a checksum, which is skipped, and the data's checksum."""


class TensorBoardTracker:
    """Event files below `DIR/RUN`."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        """Write below this folder. Raises `InvalidSetting` where the package is not installed."""
        try:
            import tensorboard  # noqa: F401
        except ImportError:
            raise InvalidSetting(
                f"{_OPTION} needs a library that is not installed: pip install '.[tensorboard]' in flavor's folder"
            ) from None
        self._folder = folder
        self.where = str(folder)
        self._own = f"{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}"
        self._newest: dict[str, int] = {}
        self._mark: dict[str, Any] = {}

    def begin(self, view: RunView) -> Held:
        """See `Tracker`."""
        self._place = self._folder / view.run
        self.where = str(self._place)
        try:
            self._place.mkdir(parents=True, exist_ok=True)
            self._mark = self._read_mark(self._place / MARK)
            if not self._mark and any(self._place.iterdir()):
                raise InvalidSetting(
                    f"{_OPTION} {self._folder}: {self._place} is not empty and is no export of flavor: name another "
                    "folder"
                )
            if self._mark and self._mark["run_id"] != view.run_id:
                raise InvalidSetting(
                    f"{_OPTION} {self._folder}: {self._place} holds another run {view.run!r}: name another folder"
                )
            if not self._mark:
                self._mark = {"run": view.run, "run_id": view.run_id, "round": 0, "manifest": ""}
                write_json(self._place / MARK, self._mark)
            held = self._last(_MERGED)
            if held == 0 and not (self._place / _MERGED).exists():
                self._write_settings(view)
        except OSError as error:
            raise InvalidSetting(f"{_OPTION} {self._folder}: {error.filename}: {error.strerror}") from None
        return Held(held, str(self._mark.get("manifest", "")) if self._mark.get("round") == held else "")

    def _read_mark(self, path: Path) -> dict[str, Any]:
        """Read which run the folder belongs to, and how far it goes; {} for a new folder."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return {**found, "run_id": str(found["run_id"])}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InvalidSetting(
                f"{_OPTION} {self._folder}: {path} cannot be read, which names the run: name another folder"
            ) from None

    def write(self, rounds: Sequence[ClosedRound]) -> int:
        """See `Tracker`. The merged metrics come last: they say that a round is complete."""
        try:
            for each in rounds:
                self._write_round(each)
            for each in rounds[-1:]:
                self._mark |= {"round": each.round, "manifest": each.manifest}
                write_json(self._place / MARK, self._mark)
        except OSError as error:
            raise LocalFault(f"{_OPTION} {self._folder}: {error.filename}: {error.strerror}") from None
        return len(rounds)

    def write_evaluations(self, every: Sequence[Evaluated]) -> int:
        """See `Tracker`: into folders of their own, by round. An evaluation that somebody asks for makes no curve."""
        new = 0
        try:
            for each in by_round(every):
                if self._last(_JUDGED) >= each.round:
                    continue
                when, new = each.closed_ms / 1000, new + 1
                for site, of in each.sites.items():
                    numbers: dict[str, float] = {f"{OWN}examples": of.examples}
                    self._add(f"{_JUDGED}-{_SITES}/{site}", each.round, when, {**_judged(of.metrics), **numbers})
                plain, weighted = _told_apart(values_of(each))
                if weighted:
                    self._add(f"{_JUDGED}-weighted", each.round, when, _judged(weighted))
                numbers = {f"{OWN}sites": len(each.sites), f"{OWN}examples": each.examples}
                self._add(_JUDGED, each.round, when, {**_judged(plain), **numbers})
            there = self._steps(_CENTRAL)
            for each in by_round(every, is_central=True):
                if each.round in there:
                    continue
                new += 1
                metrics = {name.removeprefix(CENTRAL_PREFIX): value for name, value in values_of(each).items()}
                values = {**_judged(metrics), f"{OWN}examples": each.examples}
                self._append(_CENTRAL, _scalars(each.round, each.closed_ms / 1000, values))
        except OSError as error:
            raise LocalFault(f"{_OPTION} {self._folder}: {error.filename}: {error.strerror}") from None
        return new

    def end(self, view: RunView, reason: str, model: Callable[[Path], Path]) -> None:
        """See `Tracker`: TensorBoard has no place for that."""

    def _write_round(self, each: ClosedRound) -> None:
        result, when = each.result, each.closed_ms / 1000
        for site in result.sites:
            numbers: dict[str, float] = {f"{OWN}examples": site.examples, f"{OWN}bytes": site.bytes}
            self._add(f"{_SITES}/{site.site}", each.round, when, {**_tags(for_charts(site.metrics)), **numbers})
        plain, weighted = _told_apart(result.metrics_and_sites)
        if weighted:
            self._add(_WEIGHTED, each.round, when, _tags(weighted))
        numbers = {
            f"{OWN}seconds": result.seconds,
            f"{OWN}sites": len(result.clients),
            f"{OWN}examples": result.examples,
            f"{OWN}bytes": result.bytes,
        }
        self._add(_MERGED, each.round, when, {**_tags(plain), **numbers})

    def _add(self, place: str, round_: int, when: float, values: Mapping[str, float]) -> None:
        """Write the values of a round as one event, unless they are there."""
        if self._last(place) >= round_:
            return
        self._append(place, _scalars(round_, when, values))
        self._newest[place] = round_

    def _write_settings(self, view: RunView) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        lines = ["| setting | value |", "|---|---|"]
        lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in settings_of(view).items()]
        value = Summary.Value(
            tag=f"{OWN}settings",
            metadata=create_summary_metadata("", ""),
            tensor=make_tensor_proto("\n".join(lines)),
        )
        self._append(_MERGED, Event(wall_time=view.created_ms / 1000, step=0, summary=Summary(value=[value])))

    def _append(self, place: str, event: Any) -> None:
        """Append an event to this process's own file: the end of another's may be torn."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        path = self._place / place / f"events.out.tfevents.{self._own}"
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        with path.open("ab") as file:
            writer = RecordWriter(file)
            if is_new:
                writer.write(Event(wall_time=event.wall_time, file_version="brain.Event:2").SerializeToString())
            writer.write(event.SerializeToString())

    def _last(self, place: str) -> int:
        """Return the newest round of a place."""
        if place not in self._newest:
            steps = (next(_steps_back(path), 0) for path in self._files(place))  # of one file they only grow
            self._newest[place] = max(steps, default=0)
        return self._newest[place]

    def _steps(self, place: str) -> set[int]:
        """Return all rounds of a place to which they come in any order."""
        return {step for path in self._files(place) for step in _steps_back(path)}

    def _files(self, place: str) -> Iterable[Path]:
        return (self._place / place).glob("events.out.tfevents.*")


def _scalars(round_: int, when: float, values: Mapping[str, float]) -> Any:
    """Return an event with these values by tag."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    made = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return Event(wall_time=when, step=round_, summary=Summary(value=made))


def _steps_back(path: Path) -> Iterator[int]:
    """Yield the steps of the whole events of a file that this module has written, the last one first.

    The records are skipped by their lengths, because a run has many files with many events.
    """
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    starts, size = list[tuple[int, int]](), path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            length = _HEAD.unpack(head)[0]
            if (end := at + _HEAD.size + length + _TAIL.size) > size:
                break  # torn
            starts.append((at, length))
            file.seek(at := end)
        for at, length in reversed(starts):
            file.seek(at + _HEAD.size)
            data, tail = file.read(length), file.read(_TAIL.size)
            with contextlib.suppress(DecodeError):
                if _TAIL.unpack(tail)[0] == masked_crc32c(data):
                    yield int(Event.FromString(data).step)


def _told_apart(values: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the values that are no means weighted by examples, and those that are, by the names of the plain ones."""
    plain = {name: value for name, value in values.items() if not name.endswith(WEIGHTED)}
    return plain, {name.removesuffix(WEIGHTED): value for name, value in values.items() if name not in plain}


def _judged(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics of an evaluation by tag."""
    return {f"{JUDGED}{printable(name)}": value for name, value in metrics.items()}


def _tags(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics by tag: one whose name looks like flavor's own numbers, or an evaluation's, is marked."""
    own = (OWN, JUDGED)
    return {printable(f"{name} (metric)" if name.startswith(own) else name): value for name, value in metrics.items()}


def _cell(text: str) -> str:
    """A cell of a table in Markdown."""
    return printable(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
