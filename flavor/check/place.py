"""The files of one aggregation: what `GetPaths` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flavor.atomic import write_json
from flavor.check.fake_bus import CLIENT
from flavor.check.folders import Stamp, stamp
from flavor.programs.aggregator_paths import announce
from flavor.records.info import FILE_NAME, Info, merge_infos

CLIENTS = (CLIENT, "second", "third")

Writer = Callable[[Path], object]
"""Writes a local model to a path."""


def sizes_of(info: Info) -> tuple[int, ...]:
    """The clients' numbers of examples: all different, and neither rising nor falling along `CLIENTS`."""
    own = max(info["metadata"]["datasetSize"], 1)
    return own, 4 * own, 2 * own


def with_sizes(info: Info, sizes: Sequence[int]) -> tuple[Info, ...]:
    """The trainer's information for each client, with its number of examples."""
    return tuple({**info, "metadata": {**info["metadata"], "datasetSize": size}} for size in sizes)


@dataclass(frozen=True)
class Place:
    """Where an aggregator finds the local models, one for each of `CLIENTS`, and leaves the global one.

    Beside each model lies an info.json: the trainer's, with another datasetSize for each client.
    """

    locals: tuple[Path, ...]
    target: Path
    infos: tuple[Info, ...]

    @classmethod
    def lay_out(cls, folder: Path, writers: Sequence[Writer], info: Info, *, extension: str) -> Place:
        """Make the folders and all files but the global model, in the layout of `flavor-agg`."""
        place = cls(
            tuple(folder / "clients" / client / f"model{extension}" for client in CLIENTS),
            folder / "global" / f"model{extension}",
            with_sizes(info, sizes_of(info)),
        )
        for index, writer in enumerate(writers):
            place._write(index, writer)
        place._prepare_target()
        return place

    def again(self, folder: Path, changes: Mapping[int, Writer], sizes: Sequence[int] | None = None) -> Place:
        """The same local models but for these changes, by index; the result goes into another folder.

        With `sizes` the clients whose model is written again have these many examples.
        """
        paths = [
            folder / "clients" / client / path.name if index in changes else path
            for index, (client, path) in enumerate(zip(CLIENTS, self.locals, strict=True))
        ]
        infos = self.infos if sizes is None else with_sizes(self.infos[0], sizes)
        place = Place(tuple(paths), folder / "global" / self.target.name, infos)
        for index, writer in changes.items():
            place._write(index, writer)
        place._prepare_target()
        return place

    def moved(self, old: Path, new: Path) -> Place:
        """The same place after its folder `old` became `new`."""
        return Place(
            tuple(new / path.relative_to(old) for path in self.locals), new / self.target.relative_to(old), self.infos
        )

    def announce(self, output: Path) -> None:
        """Write what `GetPaths` reads, into the aggregator's `$OUTPUT_PATH`."""
        announce(output, self.locals, self.target)

    @property
    def merged(self) -> Path:
        """The merged information, which is there before the aggregation."""
        return self.target.with_name(FILE_NAME)

    def stamps(self) -> tuple[Stamp | None, ...]:
        """The local models as they are now."""
        return tuple(stamp(path) for path in self.locals)

    def _write(self, index: int, writer: Writer) -> None:
        path = self.locals[index]
        path.parent.mkdir(parents=True)
        writer(path)
        write_json(path.with_name(FILE_NAME), self.infos[index])

    def _prepare_target(self) -> None:
        self.target.parent.mkdir(parents=True)
        write_json(self.merged, merge_infos(CLIENTS, self.infos))
