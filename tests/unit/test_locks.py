"""Locks between processes: one holder at a time, and none once it is gone."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

import pytest

from flavor.locks import held, is_at, locked, take, waited_for


def test_a_file_is_locked_once_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path) as first, locked(path) as second:
        assert (first, second) == (True, False)
    with locked(path) as third:
        assert third


def test_a_folder_is_locked_as_long_as_a_copy_of_its_descriptor_is_open(tmp_path: Path) -> None:
    mine, other = (os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY) for _ in range(2))
    assert take(mine)
    inherited = os.dup(mine)
    os.close(mine)
    assert not take(other)
    os.close(inherited)
    assert take(other)
    os.close(other)


def test_one_that_is_held_is_not_held_again_and_a_link_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    mine = held(path)
    assert mine is not None
    assert path.stat().st_mode & 0o777 == 0o600
    assert held(path) is None
    path.unlink()
    theirs = held(path)  # the name was taken away from who had it
    assert theirs is not None
    assert is_at(theirs, path)
    assert not is_at(mine, path)
    os.close(mine)
    os.close(theirs)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        held(tmp_path / "link")


@pytest.mark.parametrize("opened", ["held", "waited_for"])
def test_a_file_that_was_removed_before_it_was_locked_is_not_taken_for_the_one_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: str
) -> None:
    """Its holder removed it between the two calls, and another process has made a new one."""
    path = tmp_path / "entry"
    path.write_text("of before")
    locks = fcntl.flock

    def flock(file: int | IO[str], operation: int) -> None:
        if path.read_text() == "of before":
            path.unlink()
            path.write_text("of now")
        locks(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    if opened == "held":
        handle = held(path)
        assert handle is not None
        assert os.read(handle, 99) == b"of now"
        os.close(handle)
        return
    with waited_for(path) as file:
        assert file.read() == "of now"


@pytest.mark.parametrize("error", [OSError(37, "No locks available"), KeyboardInterrupt()])
def test_a_file_that_cannot_be_locked_is_closed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    handles = list[int]()

    def flock(file: int, operation: int) -> None:
        handles.append(file)
        raise error

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(type(error)):
        held(tmp_path / "lock")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handles[0])
