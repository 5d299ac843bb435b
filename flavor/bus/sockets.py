"""Unix sockets of this project's own servers, in a folder that only this user can enter."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from urllib.parse import quote

LONGEST_PATH = 100
"""Longest path of a socket in bytes; Linux takes 107, macOS 103."""
_NAME = "s"
_SHORT_PLACE = Path("/tmp")


def private_folder(prefix: str) -> Path:
    """Make a folder of mode 0700 in which the path of `socket_in` is short enough: below `$TMPDIR`, or below /tmp.

    The caller removes the folder.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    if fits(socket_in(folder)):
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix=prefix, dir=_SHORT_PLACE))


def socket_in(folder: Path) -> Path:
    """Return the path of a server's socket in this folder."""
    return folder / _NAME


def fits(socket: Path) -> bool:
    """Whether the path is short enough for a socket."""
    return len(os.fsencode(socket)) <= LONGEST_PATH


def socket_url(socket: Path) -> str:
    """Return the URL of the server that listens on this socket."""
    return f"unix://{quote(os.fspath(socket))}"
