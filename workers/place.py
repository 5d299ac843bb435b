"""The files of one round of a user's aggregator, and how it is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flavor.atomic import write_json
from flavor.errors import AggregatorFailed
from flavor.programs.aggregator_paths import announce
from flavor.records.info import FILE_NAME, Info


@dataclass(frozen=True)
class Place:
    """Where an aggregator finds the local models and leaves the global one, with an info.json beside each."""

    local_models: tuple[Path, ...]
    global_model: Path

    @property
    def global_info(self) -> Path:
        """The merged information."""
        return self.global_model.with_name(FILE_NAME)

    @classmethod
    def prepare(cls, folder: Path, infos: Mapping[str, Mapping[str, Any]], merged: Info, *, extension: str) -> Place:
        """Make the folders of these clients, in this order, and write all information; the models come after."""
        models = []
        for client, info in infos.items():
            path = folder / "clients" / client / f"model{extension}"
            path.parent.mkdir(parents=True)
            write_json(path.with_name(FILE_NAME), info)
            models.append(path)
        place = cls(tuple(models), folder / "global" / f"model{extension}")
        place.global_model.parent.mkdir(parents=True)
        write_json(place.global_info, merged)
        return place

    def announce(self, output: Path) -> None:
        """Write what `GetPaths` reads, into the aggregator's `$OUTPUT_PATH`, where it may have planted anything.

        Each file is a new one that takes its name at once, in place of a link or what else is there; raises
        `AggregatorFailed` where that is a folder.
        """
        try:
            announce(output, self.local_models, self.global_model)
        except IsADirectoryError as error:
            raise AggregatorFailed(f"the aggregator left a folder at {error.filename2}: remove it") from None
