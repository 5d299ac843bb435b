"""A store that cannot be used when a process starts."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from flavor.disk import AWAY, FULL
from flavor.edge.consent import in_wait_for_share
from flavor.errors import InvalidSetting, LocalFault, ShareAway, StoreError, StoreFull, StoreUnavailable
from flavor.store.local import LocalStore
from flavor.store.open import open_store
from flavor.store.opening import once_usable, opened_once_usable, passing_fault
from tests.faults.servers import dead_mount, remounted, tmpfs


def failed(number: int, *names: Path) -> OSError:
    return OSError(number, os.strerror(number), *(str(name) for name in names[:1]))


def broken(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every folder is found, and gives this error, as one of a share does that is away."""

    def resolve(path: Path, strict: bool = False) -> Path:
        raise failed(number, path)

    monkeypatch.setattr(Path, "resolve", resolve)


@pytest.mark.parametrize("create", [True, False])
def test_a_folder_that_gives_errors_for_now_is_no_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, create: bool
) -> None:
    def opened(number: int) -> None:
        with monkeypatch.context() as patch:
            broken(number, patch)
            open_store(str(tmp_path), create=create)

    for number in AWAY:
        with pytest.raises(ShareAway) as away:
            opened(number)
        assert str(away.value) == (
            f"store {str(tmp_path)!r} cannot be used ({os.strerror(number)}): check its disk and its mount"
        )
        assert away.value.passing
    for number in FULL:
        with pytest.raises(StoreFull, match="free some space on the disk at"):
            opened(number)
    for number in (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP):
        with pytest.raises(InvalidSetting, match="name a folder that exists and can"):
            opened(number)


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="root alone mounts a file system")
def test_a_share_whose_server_is_gone_is_waited_for_by_all(tmp_path: Path) -> None:
    with dead_mount(tmp_path / "share") as share:
        for create in (True, False):
            with pytest.raises(ShareAway, match="Transport endpoint is not connected"):
                open_store(str(share), create=create)
        with pytest.raises(ShareAway, match="Transport endpoint is not connected"), in_wait_for_share(str(share)):
            open_store(str(share))


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone mounts a file system")
def test_a_folder_that_is_not_there_on_a_read_only_disk_is_the_wrong_one(tmp_path: Path) -> None:
    """And one that is there can be read, also by what never writes to it: a copy of a store on another disk."""
    with tmpfs(tmp_path / "disk", "1m") as disk:
        (disk / "copy").mkdir()
        remounted(disk, "ro")
        with pytest.raises(InvalidSetting, match=r"Read-only file system\): name a folder that exists"):
            open_store(str(disk / "typo"), create=True)
        with pytest.raises(ShareAway, match="Read-only file system"):
            open_store(str(disk / "copy"), create=True)
        assert open_store(str(disk / "copy")).list("runs/r/global/") == []


def test_what_is_waited_for_is_told_again_and_again_but_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, now = list[str](), 0.0
    monkeypatch.setattr("flavor.store.opening.time.monotonic", lambda: now + 1)

    def pause(seconds: float) -> bool:
        nonlocal now
        now += seconds
        return False

    def work() -> str:
        if now < 1000:
            raise ShareAway("store '/s' cannot be used")
        return "done"

    assert once_usable(str(tmp_path), work, tell=told.append, pause=pause) == "done"
    assert told == [
        *["waiting: store '/s' cannot be used; trying again until it can be used"] * 6,
        "the store can be used again: going on",
    ]
    now = 0.0
    with pytest.raises(ShareAway):
        once_usable(str(tmp_path), work, tell=told.append, pause=lambda _: True)


def test_what_does_not_pass_ends_at_once(tmp_path: Path) -> None:
    told = list[str]()
    with pytest.raises(InvalidSetting, match="name a folder that exists"):
        opened_once_usable(str(tmp_path / "absent"), tell=told.append)
    with pytest.raises(InvalidSetting, match="ftp"):
        opened_once_usable("ftp://bucket", create=True, tell=told.append)
    assert told == []


def test_only_what_is_wrong_with_the_store_passes(tmp_path: Path) -> None:
    root, model = tmp_path / "store", tmp_path / "model.pt"
    url = LocalStore(root, create=True).url

    def fault(number: int, file: Path) -> LocalFault:
        made = LocalFault(f"{file}: {os.strerror(number)}", path=file)
        made.__cause__ = failed(number)
        return made

    errors: list[tuple[StoreError | OSError, type[StoreUnavailable] | None]] = [
        (failed(errno.EIO, root / "x"), ShareAway),
        (failed(errno.EIO, model), None),
        (failed(errno.EIO), None),
        (failed(errno.ENOSPC, root / "x"), StoreFull),
        (failed(errno.EACCES, root / "x"), None),
        (fault(errno.EROFS, root / "x"), ShareAway),
        (fault(errno.EROFS, model), None),
        (fault(errno.ENOENT, root / "x"), None),
        (StoreFull("full", path=root / "x"), StoreFull),
        (StoreFull("full", path=model), None),
        (StoreUnavailable("away", passing=True), StoreUnavailable),
        (StoreUnavailable("no such bucket"), None),
    ]
    for error, kind in errors:
        found = passing_fault(url, error)
        assert (found and type(found)) is kind, repr(error)
    assert passing_fault("s3://bucket/runs", StoreFull("full", path=root / "x")) is None
    assert passing_fault("s3://bucket/runs", StoreUnavailable("503", passing=True)) is not None
