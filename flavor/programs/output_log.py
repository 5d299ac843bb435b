"""The log file of a program of the user's: within a limit, where a program is started again and again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

EVALUATOR_LOG_BYTES = 16 * 2**20
"""How much of the output of one start of an evaluator is kept, and from which size on its log is begun anew."""


class OutputLog:
    """Appends lines to a file.

    With `most` bytes, no more than that is written by this object, and a file that has reached it is renamed at the
    beginning: to the same name with `.1` behind it, which replaces the one before. With `private`, only this user can
    read the file. Raises `OSError` where the file cannot be opened.
    """

    def __init__(self, path: Path, *, private: bool = False, most: int | None = None) -> None:
        self._left, self._most = most, most
        if most is not None:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size >= most:
                    path.replace(path.with_name(f"{path.name}.1"))
        # Without a buffer: bytes that a full disk refused would fail again when it is closed.
        self._file = open(path, "ab", buffering=0, opener=_private if private else None)  # noqa: SIM115 - by `close`

    def write(self, line: bytes) -> str:
        """Write a line, and return what is to be shown of it elsewhere: nothing of what is beyond the limit.

        A full disk loses the line without an error; so does a file that was closed, as the program is gone.
        """
        shown = line
        if self._left is not None:
            if self._left <= 0:
                return ""
            self._left -= len(line) + 1
            if self._left <= 0:
                shown = f"[more than {self._most} bytes of output: the rest is left out]".encode()
        with contextlib.suppress(OSError, ValueError):
            self._file.write(shown + b"\n")
        return shown.decode(errors="replace").rstrip("\r") + "\n"

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # a disk of the network may refuse only now
            self._file.close()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)  # a link that lay there would lead the output elsewhere
