"""Whose fault it is that an object cannot be put or had."""

from __future__ import annotations

import errno
import json
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from flavor.atomic import cannot_write, write_json
from flavor.disk import found_no_room, naming
from flavor.edge.notice import notice_of
from flavor.edge.transfers import Transfers
from flavor.errors import (
    CheckpointError,
    LocalFault,
    ObjectMissing,
    ShareAway,
    StoreFull,
    StoreUnavailable,
    TransferStopped,
)
from flavor.local.waits import Waits
from flavor.store.cache import FileCache
from flavor.store.local import LocalStore
from flavor.store.paths import run_record_path
from flavor.store.trouble import StoreHealth, without_share
from flavor.view.blocked import BlockedNote
from flavor.view.observer import Everyone, Lines, Observer
from tests.faults.servers import filled, tmpfs

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
    in_store = health.trouble(failed(errno.ENOSPC, tmp_path / "store" / "x"), writes=True)
    assert in_store is not None
    assert not in_store.is_own
    for file, is_same_disk in ((ELSEWHERE / "x", False), (tmp_path / "x", True)):
        own = failed(errno.ENOSPC, file)
        for error in (own, StoreFull("full", path=file), cannot_write(file, own)):
            trouble = health.trouble(error, writes=True)
            assert (trouble is not None and trouble.is_own) is is_same_disk
    bucket = StoreHealth(Bucket(tmp_path / "store"), "r", "1", tmp_path)
    assert bucket.trouble(failed(errno.ENOSPC), writes=True) is None, "a bucket has no disk here"


class Bucket(LocalStore):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.url = "s3://bucket/runs"


def test_a_file_without_room_is_named_with_its_disk(tmp_path: Path) -> None:
    mount = next(level for level in (tmp_path, *tmp_path.parents) if level.is_mount())
    line = f"{tmp_path}/x: No space left on device: free some space on the disk at {mount}"
    assert str(found_no_room(failed(errno.ENOSPC), tmp_path / "x")) == line
    assert str(found_no_room(failed(errno.ENOSPC, tmp_path / "from", tmp_path / "x"))) == line
    assert str(found_no_room(failed(errno.ENOSPC))) == "this machine: No space left on device: free some space"


def test_what_is_staged_is_named_by_its_folder_so_that_each_attempt_says_the_same(
    health: StoreHealth, store: LocalStore, tmp_path: Path
) -> None:
    staging = f"{tmp_path}/store/.staging"
    for number in (errno.EROFS, errno.ENOSPC, errno.EDQUOT):
        told = set()
        for _ in range(2):
            with store.stage() as staged:
                for error in (failed(number, staged), failed(number, staged, staged)):
                    told.add(str(health.trouble(error, writes=True).error))  # type: ignore[union-attr]
                assert staged.name not in str(cannot_write(staged, failed(number)))
        assert len(told) == 1, told
        assert f"{staging}: {os.strerror(number)}" in told.pop()


def test_what_this_process_has_too_little_of_is_not_the_stores_for_long(health: StoreHealth, tmp_path: Path) -> None:
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        inside = failed(number, tmp_path / "store" / "x")
        for error in (inside, as_local_fault(inside, tmp_path / "store" / "x")):
            trouble = health.trouble(error, writes=True)
            assert trouble is not None
            assert not trouble.is_sure


def test_an_aggregator_asks_whose_record_it_is(store: LocalStore) -> None:
    StoreHealth(store, "r", "1").require(whose=True)
    StoreHealth(store, "r", "2").require()
    with pytest.raises(LocalFault, match="is another share mounted there"):
        StoreHealth(store, "r", "2").require(whose=True)


def test_an_empty_folder_is_a_share_that_is_not_mounted(tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    why = f"the folder {place} is empty: is the run's share mounted there?"
    assert without_share(str(place)) == without_share(f"file://{place}") == without_share(str(place / "flavor")) == why
    (place / ".staging").mkdir()  # an aggregator was there before
    assert without_share(str(place)) == why
    (place / "runs").mkdir()
    assert without_share(str(place)) == without_share(str(place / "typo")) == ""
    assert without_share("s3://bucket/runs") == ""


def transfers(
    health: StoreHealth,
    told: list[str],
    inbox: queue.SimpleQueue[object],
    patience_s: float,
    awaits: Callable[[str], None] = lambda _: None,
    *,
    note: Observer | None = None,
) -> Transfers:
    found = Transfers(
        inbox,
        broken=lambda _: False,
        report=lambda *_: None,
        observer=Everyone(Lines(told.append), *([note] if note is not None else [])),
        patience_s=patience_s,
        awaits=awaits,
    )
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
            assert seen.wait(60)
            (tmp_path / "away").rename(tmp_path / "store")
        return store.read_unverified(run_record_path("r"), most=1000)

    def awaits(what: str) -> None:
        told.append(f"[{what}]")
        seen.set()

    seen = threading.Event()
    (tmp_path / "store").rename(tmp_path / "away")
    assert transfers(health, told, queue.SimpleQueue(), 60, awaits).carry(fetch, quick=quick)
    assert told[0].endswith("run.json is not there: is the share mounted?")
    assert told[1:] == [
        "[the object store, which cannot be used for now]",
        "the store can be used again: going on",
        "[]",
    ], "the run's operator sees it, too"


def test_the_wait_for_a_share_ends_with_the_patience_or_with_the_round(
    health: StoreHealth, store: LocalStore, tmp_path: Path
) -> None:
    (tmp_path / "store").rename(tmp_path / "away")
    inbox = queue.SimpleQueue[object]()

    def fetch() -> bytes:
        return store.read_unverified(run_record_path("r"), most=1000)

    with pytest.raises(StoreUnavailable, match=r"waited for 0 s \(--patience-s\)") as raised:
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


def test_who_waits_for_a_share_in_vain_is_told_what_was_waited_for(health: StoreHealth) -> None:
    """And the operator that it is the store: nothing says that this is another one."""
    moving = transfers(health, [], queue.SimpleQueue(), 0.1)
    moving.health = None  # there is no store yet
    with pytest.raises(StoreUnavailable, match=r"mounted there\?; waited for 0 s \(--patience-s\)") as raised:
        moving.carry(lambda: fail(ShareAway("store /mnt: the folder /mnt is empty: is the run's share mounted there?")))
    assert raised.value.exit_code == 1
    assert notice_of(raised.value).reason == "its edge cannot use the object store"


def fail(error: Exception) -> None:
    raise error


def test_the_sites_own_disk_is_not_told_to_be_the_store(store: LocalStore, tmp_path: Path) -> None:
    """Where it is the store's as well, room is waited for; it is told as what it was."""
    told, model = list[str](), tmp_path / "model"

    def fetch() -> None:
        raise StoreFull(f"{model}: No space left on device", path=model)

    with pytest.raises(LocalFault, match="model: No space left on device") as full:
        transfers(StoreHealth(store, "r", "1", tmp_path), told, queue.SimpleQueue(), 0.1).carry(fetch, writes=True)
    assert told[0].startswith("waiting for room, for at most 0 s: ")
    assert notice_of(full.value).reason == "a file at the site could not be read or written"


def test_a_local_run_shows_what_its_edges_wait_for(health: StoreHealth, store: LocalStore, tmp_path: Path) -> None:
    told, note = list[str](), BlockedNote(tmp_path / "edge-1.blocked")
    waits = Waits({"edge-1": tmp_path / "edge-1.blocked"})
    for error in (StoreFull("full", path=tmp_path / "store" / "x"), ShareAway("store file:///s: empty"), failed(5)):
        told.clear()
        tries = 0

        def work(error: Exception = error) -> list[str]:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise error
            return waits.blocked()

        while_away = transfers(health, told, queue.SimpleQueue(), 60, note=note).carry(work, writes=True)
        assert while_away == ([f"edge-1: {told[0]}"] if told else []), error
        assert waits.blocked() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone mounts a file system")
def test_a_write_that_finds_no_room_names_its_file_and_the_disk(tmp_path: Path) -> None:
    """Python names none where it opens a file and cannot write it; one that is staged has another name each time."""
    with tmpfs(tmp_path / "small", "64k") as small:
        cache = FileCache(small / "cache", 10**6)
        filled(small)
        with pytest.raises(OSError, match="No space left on device") as full:
            write_json(small / "state.json", {"a": "b" * 10_000})
        assert str(found_no_room(full.value)).startswith(f"{small}/state.json: ")
        told = set()
        for _ in range(2):
            with pytest.raises(LocalFault) as fault, cache.clear(), cache.stage() as staged, naming(staged):
                staged.write_bytes(bytes(10_000))
            told.add(str(fault.value))
        assert told == {
            f"{small}/cache/staging: No space left on device: free some space on the disk at {small}, or name another "
            "folder with --store-cache"
        }


@pytest.mark.parametrize("text", ["[" * 200_000, "[]", "5", "{", "{}"])
def test_a_record_that_is_damaged_is_told(store: LocalStore, health: StoreHealth, text: str) -> None:
    store.local(run_record_path("r")).write_text(text)
    assert health.why_not(writes=False) == f"{run_record_path('r')} cannot be read as a run's record"
