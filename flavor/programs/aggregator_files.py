"""The files of one round of a user's aggregator: the local models, the global model, and the information about each.

FOLDER/clients/CLIENT/model.EXT   a local model for each client, and its info.json beside it
FOLDER/global/model.EXT           the global model, which the aggregator writes; its info.json holds the merged
                                  information and is there before the aggregation
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from flavor.atomic import write_json
from flavor.errors import AggregatorFailed
from flavor.programs.aggregator_paths import write_paths
from flavor.records.info import FILE_NAME, Info


@dataclass(frozen=True)
class RoundFiles:
    """Where an aggregator finds the local models, in the order of the clients, and where it leaves the global model."""

    local_models: tuple[Path, ...]
    global_model: Path

    @classmethod
    def below(cls, folder: Path, clients: Iterable[str], *, extension: str) -> Self:
        """Name the files of these clients below `folder`; nothing is made."""
        return cls(
            tuple(folder / "clients" / client / f"model{extension}" for client in clients),
            folder / "global" / f"model{extension}",
        )

    @property
    def local_infos(self) -> tuple[Path, ...]:
        """Each client's information."""
        return tuple(path.with_name(FILE_NAME) for path in self.local_models)

    @property
    def global_info(self) -> Path:
        """The merged information."""
        return self.global_model.with_name(FILE_NAME)

    def write_local_info(self, index: int, info: Info) -> None:
        """Make the folder of one client, and write its information there."""
        self.local_models[index].parent.mkdir(parents=True)
        write_json(self.local_infos[index], info)

    def write_global_info(self, merged: Info) -> None:
        """Make the folder of the global model, and write the merged information there."""
        self.global_model.parent.mkdir(parents=True)
        write_json(self.global_info, merged)

    def announce(self, output: Path) -> None:
        """Write what `GetPaths` reads into the aggregator's `$OUTPUT_PATH`, where it may have put anything.

        Each file is a new one that takes its name at once, in place of a link or what else is there; raises
        `AggregatorFailed` where that is a folder.
        """
        try:
            write_paths(output, "localModels", self.local_models)
            write_paths(output, "localInfos", self.local_infos)
            write_paths(output, "globalModel", [self.global_model])
            write_paths(output, "globalInfo", [self.global_info])
        except IsADirectoryError as error:
            raise AggregatorFailed(f"the aggregator left a folder at {error.filename2}: remove it") from None
