"""Names in a result.json that flavor does not know, and so leaves out: most often misspelt ones."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from flavor.records.evaluation_report import FILE_NAME, Heatmap, Image, Plot, Report, Table

_TABLE = Table("", (), ())
_EVERY = Report(0, (_TABLE,), (_TABLE,), (Heatmap("", (), (), ()),), (Plot("", (), (), ()),), (Image("", ""),))
_WRITTEN_BY_EDGES = ("digest", "size_bytes", "extension")
_RESULTS: Mapping[str, list[Mapping[str, Any]]] = _EVERY.to_plain()["results"]
_KNOWN = {kind: [name for name in entry if name not in _WRITTEN_BY_EDGES] for kind, (entry,) in _RESULTS.items()}
"""The names of an entry, by its kind."""


def unknown_names(output: Path) -> list[str]:
    """Return the names in the result.json of this folder that mean nothing, with their places.

    `metadata` may have any names. The file has been read before: where it is not there or wrong, none is returned.
    """
    try:
        value = json.loads((output / FILE_NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    return _of_report(value) if isinstance(value, Mapping) and isinstance(value.get("results"), Mapping) else []


def _of_report(value: Mapping[str, Any]) -> list[str]:
    found = _unknown("", value, ("metadata", "results"), _KNOWN)
    results: Mapping[str, Any] = value["results"]
    found += _unknown("results.", results, _KNOWN)
    for kind, known in _KNOWN.items():
        for number, entry in enumerate(results.get(kind) or ()):
            found += _unknown(f"results.{kind}[{number}].", entry, known) if isinstance(entry, Mapping) else []
    return found


def _unknown(where: str, entry: Mapping[str, Any], known: Collection[str], inner: Collection[str] = ()) -> list[str]:
    """Return the names of `entry` that are not among `known`; those of `inner` belong into `results`."""
    there = f" (known are {', '.join(known)})"
    return [
        f"{where}{name}{' (it belongs into results)' if name in inner else there}"
        for name in entry
        if name not in known
    ]
