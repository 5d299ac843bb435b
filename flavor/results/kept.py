"""What a result folder keeps of single sites: their information of each round, also once the store has pruned it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from flavor.errors import InvalidInfo, InvalidRecord
from flavor.plain_file import read_plain
from flavor.records.info import MAX_BYTES, Info, parse_info
from flavor.records.names import is_name


def folder_of_round(out: Path, round_: int) -> Path:
    """Return the folder, in the result folder `out`, with the information of this round's sites."""
    return out / "info" / f"round-{round_:04d}"


def kept_infos(folder: Path) -> dict[str, Info]:
    """Return the client information of a round's sites that an earlier process has written."""
    found = {}
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        with contextlib.suppress(InvalidInfo, InvalidRecord, FileNotFoundError):
            found[path.stem] = parse_info(read_plain(path, most=MAX_BYTES), where=str(path))
    return found


def kept_info(out: Path | None, round_: int, site: str) -> Info | None:
    """Return one site's information of a round; None where the result folder `out` does not have it."""
    if out is None or not is_name(site):
        return None
    with contextlib.suppress(InvalidInfo, InvalidRecord, FileNotFoundError):
        path = folder_of_round(out, round_) / f"{site}.json"
        return parse_info(read_plain(path, most=MAX_BYTES), where=str(path))
    return None
