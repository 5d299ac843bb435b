"""Only plain files are read of a folder that may come from somebody else; nothing else is opened."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from flavor.errors import InvalidRecord
from flavor.plain_file import read_plain


def put_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(path.parent, os.O_PATH)  # the path itself may be too long for a socket
        made.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


ODD: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "link to a file": lambda path: path.symlink_to("/etc/passwd"),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link in a circle": lambda path: path.symlink_to(path.name),
    "socket": put_socket,
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_what_is_no_plain_file_is_not_read(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "x.json"
    make(path)
    with pytest.raises(InvalidRecord, match=r"x\.json is (a link|no file), and a plain file is needed$"):
        read_plain(path)


def test_a_file_has_no_more_bytes_than_it_may(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"12345")
    assert read_plain(path, most=5) == b"12345"
    os.truncate(path, 10**12)
    with pytest.raises(InvalidRecord, match=r"x\.json has more than 5 bytes"):
        read_plain(path, most=5)


def test_a_file_that_is_not_there_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file" / "x"):
        with pytest.raises(FileNotFoundError):
            read_plain(path)
