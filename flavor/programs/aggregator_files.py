"""The files of one round for a user's aggregator: the local models, the global model, and their information.

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
    """The paths of the local models, in the order of the clients, and of the global model that an aggregator writes."""

    local_models: tuple[Path, ...]
    global_model: Path

    @classmethod
    def below(cls, folder: Path, clients: Iterable[str], *, extension: str) -> Self:
        """The paths of these clients' files below `folder`. Makes no file."""
        return cls(
            tuple(folder / "clients" / client / f"model{extension}" for client in clients),
            folder / "global" / f"model{extension}",
        )

    @property
    def local_infos(self) -> tuple[Path, ...]:
        """The paths of the clients' information."""
        return tuple(path.with_name(FILE_NAME) for path in self.local_models)

    @property
    def global_info(self) -> Path:
        """The path of the merged information."""
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
        """Write the files that `GetPaths` reads into the aggregator's `$OUTPUT_PATH`.

        The aggregator may have put anything there. Each file is a new one that replaces what has its name, a link for
        instance, in one step. Raises `AggregatorFailed` where a folder has the name.
        """
        try:
            write_paths(output, "localModels", self.local_models)
            write_paths(output, "localInfos", self.local_infos)
            write_paths(output, "globalModel", [self.global_model])
            write_paths(output, "globalInfo", [self.global_info])
        except IsADirectoryError as error:
            raise AggregatorFailed(f"the aggregator left a folder at {error.filename2}: remove it") from None
