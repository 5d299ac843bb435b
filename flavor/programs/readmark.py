"""Tells by a file's access time whether a program has read the file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_LONG_AGO_NS = 3600 * 10**9


class ReadMark:
    """Notices by a file's access time whether the file is read from now on.

    Most file systems set that time at the first read after a change (Linux's relatime). Whether this one does is tried
    first with a small file beside it, unless `told` says so. `was_read` is None where the file system does not.
    """

    def __init__(self, path: Path, *, told: bool | None = None) -> None:
        self._path = path
        self._mark: int | None = None
        if is_told(path.parent) if told is None else told:
            self._mark = _mark(path)

    def was_read(self, *, at_ns: int | None = None) -> bool | None:
        """Whether a program has read the file since then; None where this file system does not tell.

        `at_ns` is the file's access time at an earlier moment, for which the answer holds then.
        """
        if self._mark is None:
            return None
        if at_ns is not None:
            return at_ns != self._mark
        try:
            return self._path.stat().st_atime_ns != self._mark
        except OSError:
            return None


def is_told(folder: Path) -> bool:
    """Whether the file system of this folder tells when a file was read."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".flavor-") as probe:
            probe.write(b"?")
            probe.flush()
            trial = Path(probe.name)
            mark = _mark(trial)
            trial.read_bytes()
            return mark is not None and trial.stat().st_atime_ns != mark
    except OSError:
        return False


def _mark(path: Path) -> int | None:
    try:
        changed_ns = path.stat().st_mtime_ns
        os.utime(path, ns=(changed_ns - _LONG_AGO_NS, changed_ns))
        return path.stat().st_atime_ns
    except OSError:
        return None
