"""The lists of paths in `$OUTPUT_PATH` that tell an aggregator where a round's files are.

Two files for each kind have the same content: `KIND.json`, and `KIND` with one path a line, for shells.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from flavor.atomic import write_json, write_whole
from flavor.errors import InvalidSetting

KINDS = ("localModels", "localInfos", "globalModel", "globalInfo")


def write_paths(output: Path, kind: str, paths: Sequence[str | os.PathLike[str]]) -> None:
    """Write the paths of this kind, one of `KINDS`. Raises `InvalidSetting` for a path of several lines."""
    file = _file(output, kind)
    names = [os.fspath(path) for path in paths]
    if odd := [name for name in names if "\n" in name]:
        raise InvalidSetting(f"{kind}: the path {odd[0]!r} has a line break in it: choose another folder")
    output.mkdir(parents=True, exist_ok=True)
    write_whole(file.with_suffix(""), "".join(f"{name}\n" for name in names))
    write_json(file, names)


def read_paths(output: Path, kind: str) -> list[str]:
    """Read the paths of this kind. Raises `InvalidSetting` for an unknown kind, and before any were written."""
    file = _file(output, kind)
    try:
        paths: list[str] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidSetting(f"GetPaths({kind!r}): nothing has set these paths yet (no {file})") from None
    return paths


def _file(output: Path, kind: str) -> Path:
    if kind not in KINDS:
        raise InvalidSetting(f"unknown kind of paths {kind!r}: use one of {', '.join(KINDS)}")
    return output / f"{kind}.json"
