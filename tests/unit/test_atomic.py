"""Files that appear whole or not at all, with the mode that they should have."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from flavor.atomic import replacing, taking_place, write_json, write_once, write_whole
from flavor.errors import LocalFault, TransferStopped
from flavor.watch import Watch, watched


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_a_file_has_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"secret", mode=0o600)
    assert (path.read_bytes(), mode(path)) == (b"secret", 0o600)
    write_whole(path, "ä\udcff")  # a name that is no UTF-8
    assert (path.read_bytes(), mode(path)) == ("ä".encode() + b"\xff", 0o644)
    write_json(path, {"a": 1})
    assert path.read_text() == '{"a": 1}'
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, float("nan"))
    assert path.read_text() == '{"a": 1}'
    assert os.listdir(tmp_path) == ["file"]


def test_what_fails_leaves_what_was_there_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), taking_place(path) as temporary:
        fail(temporary)
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"%d" % (1 // 0))
    watch = Watch()
    watch.stop()
    with pytest.raises(TransferStopped), watched(watch), replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    with (
        pytest.raises(LocalFault, match="absent/file: cannot be written: No such file"),
        replacing(tmp_path / "absent/file"),
    ):
        pass


def test_what_is_made_once_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError

    for number in range(2):
        path = tmp_path / f"key-{number}"
        for content in (b"first", b"second"):
            write_once(path, content)
            assert (path.read_bytes(), mode(path)) == (b"first", 0o600)
        monkeypatch.setattr(os, "link", no_links)
    assert sorted(os.listdir(tmp_path)) == ["key-0", "key-1"]
