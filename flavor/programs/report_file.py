"""What a training script has reported last, in a hidden file beside `$LOCAL_MODEL_PATH`.

The script writes a file and does not send to Redis, so that no network ever slows or stops its training, and its edge
decides what leaves the site. A link or a FIFO in its place is not read.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from flavor.atomic import write_json, write_whole
from flavor.records.reported import MOST_BYTES, Reported

_NAME = ".flavor-report.json"
_FAULT = "fault"
_LONGEST_FAULT = 500

Stamp = tuple[int, int, int]
"""Inode, size and time of modification: what changes with each report."""


def report_path(local_model: Path) -> Path:
    """Return the file of the report."""
    return local_model.with_name(_NAME)


def write_report(local_model: Path, reported: Reported) -> None:
    """Write the report in place of the one before, so that a reader sees either. Raises `OSError`."""
    write_whole(report_path(local_model), reported.to_json())


def write_fault(local_model: Path, why: str) -> None:
    """Write why a report could not be made, for `check-fl`. Raises `OSError`."""
    write_json(report_path(local_model), {_FAULT: why[:_LONGEST_FAULT]})


def stamp_of(local_model: Path) -> Stamp | None:
    """Return a stamp that changes with each report; None where there is none."""
    try:
        found = os.lstat(report_path(local_model))
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def read_report(local_model: Path) -> Reported | None:
    """Return what the script has reported last; None where that is nothing, or cannot be read."""
    text = _read(local_model)
    return Reported.from_json(text) if text else None


def read_fault(local_model: Path) -> str:
    """Return why the script's reports could not be made; '' where one was made, or none was tried."""
    try:
        found = json.loads(_read(local_model) or "null")
    except (ValueError, RecursionError):
        return ""
    fault = found.get(_FAULT) if isinstance(found, dict) else None
    return fault if isinstance(fault, str) else ""


def _read(local_model: Path) -> str:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(report_path(local_model), flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return ""
            data = file.read(MOST_BYTES + 1)
    except OSError:
        return ""
    return data.decode("utf-8", "replace") if len(data) <= MOST_BYTES else ""
