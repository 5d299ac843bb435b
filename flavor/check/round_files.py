"""The files of one round that a check gives an aggregator: its clients' models, made from the trainer's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flavor.check.fake_bus import CLIENT
from flavor.check.folders import Stamp, stamp
from flavor.programs.aggregator_files import RoundFiles
from flavor.records.info import Info
from flavor.records.merging import merge_infos

CLIENTS = (CLIENT, "second", "third")
_FOURTH = (*CLIENTS, "fourth")


def clients_of(round_: int) -> tuple[str, ...]:
    """Return the clients of a round of tensors: three, and four from round three on, as the sites of a run may vary."""
    return CLIENTS if round_ < 3 else _FOURTH


Writer = Callable[[Path], object]
"""Writes a local model to a path."""


def sizes_of(info: Info) -> tuple[int, ...]:
    """Return four clients' numbers of examples: all different, and neither rising nor falling along them."""
    own = max(info["metadata"]["datasetSize"], 1)
    return own, 4 * own, 2 * own, 3 * own


def with_sizes(info: Info, sizes: Sequence[int]) -> tuple[Info, ...]:
    """Return the trainer's information for each client, with the client's number of examples."""
    return tuple({**info, "metadata": {**info["metadata"], "datasetSize": size}} for size in sizes)


@dataclass(frozen=True)
class CheckedFiles(RoundFiles):
    """`RoundFiles` of a model for each client, which can be written again with changes.

    Beside each model lies an info.json: the trainer's, with another datasetSize for each client.
    """

    infos: tuple[Info, ...] = ()

    @classmethod
    def lay_out(cls, folder: Path, writers: Sequence[Writer], info: Info, *, extension: str) -> CheckedFiles:
        """Write all files but the global model, at the places of `flavor-agg`."""
        clients = _FOURTH[: len(writers)]
        sizes = sizes_of(info)[: len(writers)]
        files = replace(cls.below(folder, clients, extension=extension), infos=with_sizes(info, sizes))
        files._write(dict(enumerate(writers)))
        return files

    def again(self, folder: Path, changes: Mapping[int, Writer], sizes: Sequence[int] | None = None) -> CheckedFiles:
        """Write the same local models except for these changes, by index; the result goes into another folder.

        With `sizes`, the clients whose model is written again have these numbers of examples.
        """
        fresh = self.below(folder, _FOURTH[: len(self.infos)], extension=self.global_model.suffix)
        files = replace(
            fresh,
            local_models=tuple(
                new if index in changes else old
                for index, (new, old) in enumerate(zip(fresh.local_models, self.local_models, strict=True))
            ),
            infos=self.infos if sizes is None else with_sizes(self.infos[0], sizes),
        )
        files._write(changes)
        return files

    def moved(self, old: Path, new: Path) -> CheckedFiles:
        """Return the same files after their folder `old` was renamed to `new`."""
        return replace(
            self,
            local_models=tuple(new / path.relative_to(old) for path in self.local_models),
            global_model=new / self.global_model.relative_to(old),
        )

    def stamps(self) -> tuple[Stamp | None, ...]:
        """Return the marks of the local models as they are now."""
        return tuple(stamp(path) for path in self.local_models)

    def _write(self, writers: Mapping[int, Writer]) -> None:
        for index, writer in writers.items():
            self.write_local_info(index, self.infos[index])
            writer(self.local_models[index])
        self.write_global_info(merge_infos(_FOURTH[: len(self.infos)], self.infos))
