"""Where servers of this project listen: a unix socket in a folder that only this user can enter."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from urllib.parse import quote

LONGEST_PATH = 100
"""Bytes of a socket's path; the kernel takes 107, and 103 on macOS."""
_NAME = "s"
_SHORT_PLACE = Path("/tmp")


def private_folder(prefix: str) -> Path:
    """A new folder of mode 0700 in which `socket_in` is short enough: below `$TMPDIR`, or where that is too long /tmp.

    The caller removes it.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    if fits(socket_in(folder)):
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix=prefix, dir=_SHORT_PLACE))


def socket_in(folder: Path) -> Path:
    """The socket of a server in this folder."""
    return folder / _NAME


def fits(socket: Path) -> bool:
    """Whether the kernel takes a path of this length for a socket."""
    return len(os.fsencode(socket)) <= LONGEST_PATH


def socket_url(socket: Path) -> str:
    """The URL of the server that listens there."""
    return f"unix://{quote(os.fspath(socket))}"
