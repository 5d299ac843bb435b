"""Whose fault it is that an object cannot be put or had."""

from __future__ import annotations

import errno
import json
import os
import queue
from pathlib import Path

import pytest

from flavor.edge.notice import notice_of
from flavor.edge.transfers import Transfers
from flavor.errors import CheckpointError, LocalFault, ObjectMissing, StoreFull, StoreUnavailable, TransferStopped
from flavor.store.local import LocalStore
from flavor.store.paths import run_record_path
from flavor.store.trouble import StoreHealth

ELSEWHERE = Path("/proc")
"""Another disk than that of any store."""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "store", create=True)
    record = tmp_path / "store" / run_record_path("r")
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"run_id": "1"}))
    return store


@pytest.fixture
def health(store: LocalStore) -> StoreHealth:
    return StoreHealth(store, "r", "1", ELSEWHERE)


def failed(number: int, *names: Path) -> OSError:
    error = OSError(number, os.strerror(number))
    if names:
        error.filename = str(names[0])
    if len(names) > 1:
        error.filename2 = str(names[1])
    return error


def as_local_fault(error: OSError, path: Path | None = None) -> LocalFault:
    fault = LocalFault(str(error), path=path)
    fault.__cause__ = error
    return fault


def test_what_names_a_file_of_the_store_is_the_stores(health: StoreHealth, tmp_path: Path) -> None:
    inside, outside = tmp_path / "store" / "runs" / "x", tmp_path / "local" / "model.ckpt"
    for error in (failed(errno.EIO, inside), as_local_fault(failed(errno.ESTALE), inside)):
        trouble = health.trouble(error, writes=True)
        assert trouble is not None
        assert trouble.is_sure
        assert "Input/output error" in str(trouble.error) or "Stale file handle" in str(trouble.error)
    for error in (
        failed(errno.EIO, outside),
        failed(errno.EACCES, outside),
        as_local_fault(failed(errno.EIO), outside),
        as_local_fault(failed(errno.EACCES, outside), inside),
    ):
        assert health.trouble(error, writes=True) is None, error
    for error in (failed(errno.EIO), failed(errno.EROFS, outside, inside)):  # a read, and a link from here to there
        trouble = health.trouble(error, writes=True)
        assert trouble is not None
        assert not trouble.is_sure


def test_whatever_goes_wrong_without_the_runs_record_is_the_stores(
    health: StoreHealth, store: LocalStore, tmp_path: Path
) -> None:
    for error in (ObjectMissing("x"), CheckpointError("x"), failed(errno.EACCES, ELSEWHERE)):
        assert health.trouble(error, writes=True) is None
    health.require()
    (tmp_path / "store").rename(tmp_path / "away")
    for why in ("run.json is not there: is the share mounted?",) * 2:
        for error in (ObjectMissing("x"), CheckpointError("x"), failed(errno.EACCES, ELSEWHERE)):
            trouble = health.trouble(error, writes=True)
            assert trouble is not None
            assert str(trouble.error).endswith(why)
        with pytest.raises(LocalFault, match="is the share mounted"):
            health.require()
        (tmp_path / "store").mkdir(exist_ok=True)
    assert not [*(tmp_path / "store").iterdir()], "nothing is written where the share belongs"
    other = StoreHealth(LocalStore(tmp_path / "away"), "r", "2").trouble(ObjectMissing("x"), writes=False)
    assert other is not None
    assert "another run" in str(other.error)


def test_a_full_disk_is_the_stores_if_it_is_the_one(health: StoreHealth, store: LocalStore, tmp_path: Path) -> None:
    for error in (StoreFull("full"), failed(errno.ENOSPC), failed(errno.EDQUOT)):
        assert isinstance(health.trouble(error, writes=True).error, StoreFull)  # type: ignore[union-attr]
        assert health.trouble(error, writes=False) is None
        assert StoreHealth(store, "r", "1", tmp_path).trouble(error, writes=False) is not None


def transfers(health: StoreHealth, told: list[str], inbox: queue.SimpleQueue[object], patience_s: float) -> Transfers:
    found = Transfers(inbox, broken=lambda _: False, report=lambda _: None, tell=told.append, patience_s=patience_s)
    found.health = health
    return found


@pytest.mark.parametrize("quick", [True, False])
def test_a_share_that_is_away_is_waited_for_in_a_download(
    health: StoreHealth, store: LocalStore, tmp_path: Path, quick: bool
) -> None:
    told, tries = list[str](), 0

    def fetch() -> bytes:
        nonlocal tries
        tries += 1
        if tries == 3:
            (tmp_path / "away").rename(tmp_path / "store")
        return store.read(run_record_path("r"), most=1000)

    (tmp_path / "store").rename(tmp_path / "away")
    assert transfers(health, told, queue.SimpleQueue(), 60).carry(fetch, quick=quick)
    assert [line.partition(" ")[0] for line in told] == ["waiting", "the"]
    assert told[0].endswith("run.json is not there: is the share mounted?")
    assert told[1] == "the store can be used again: going on"


def test_the_wait_for_a_share_ends_with_the_patience_or_with_the_round(
    health: StoreHealth, store: LocalStore, tmp_path: Path
) -> None:
    (tmp_path / "store").rename(tmp_path / "away")
    inbox = queue.SimpleQueue[object]()

    def fetch() -> bytes:
        return store.read(run_record_path("r"), most=1000)

    with pytest.raises(StoreUnavailable, match=r"waited for 0.1 s \(--patience-s\)") as raised:
        transfers(health, [], inbox, 0.1).carry(fetch)
    assert notice_of(raised.value).reason == "its edge cannot use the object store"
    inbox.put("round 2 is open")
    with pytest.raises(TransferStopped):
        transfers(health, [], inbox, 600).carry(fetch, over=lambda _: True)


@pytest.mark.parametrize("quick", [True, False])
def test_a_fault_of_the_sites_own_file_is_its_own_and_ends_at_once(health: StoreHealth, quick: bool) -> None:
    told, tries = list[str](), 0

    def collect(error: Exception) -> None:
        nonlocal tries
        tries += 1
        raise error

    moving = transfers(health, told, queue.SimpleQueue(), 600)
    for error in (as_local_fault(failed(errno.EIO, ELSEWHERE / "model.ckpt")), failed(errno.EACCES, ELSEWHERE / "x")):
        tries = 0
        with pytest.raises(type(error)) as raised:
            moving.carry(lambda error=error: collect(error), quick=quick, writes=True)
        assert tries == 1
        assert notice_of(raised.value).reason == "a file at the site could not be read or written"
    with pytest.raises(LocalFault, match="no room here") as full:
        moving.carry(lambda: collect(StoreFull("no room here")), quick=quick)
    assert notice_of(full.value).reason == "a file at the site could not be read or written"
    assert told == []
