"""The bytes of a cache's folder are counted as files come, and the folder is read only when it may have too many."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flavor.errors import LocalFault
from flavor.store import cache as cache_module
from flavor.store.cache import FileCache
from flavor.store.cache_total import LOOK_S, CacheTotal, Total
from tests.faults.servers import filled, tmpfs

KEEPS = """
import hashlib, sys
from pathlib import Path
from flavor.store import cache
from tests.unit.store.test_cache_total import keep, on_disk
cache._IN_USE_S = 0
shared = cache.FileCache(Path(sys.argv[1]), 50_000)
largest = 0
for number in range(150):
    keep(shared, f"{sys.argv[2]} {number}", 1000)
    largest = max(largest, on_disk(shared))
print(largest)
"""


def keep(cache: FileCache, name: str, size: int) -> Path:
    data = name.encode().ljust(size, b".")
    with cache.stage() as staged:
        staged.write_bytes(data)
        with cache.entry(name) as entry:
            path = entry.keep(staged, digest=hashlib.sha256(data).hexdigest(), mark="m")
    cache.trim()
    return path


def on_disk(cache: FileCache) -> int:
    """Read while other processes remove files."""
    found = 0
    for path in (cache.folder / "objects").glob("*/*"):
        try:
            found += path.stat().st_size
        except FileNotFoundError:
            continue
    return found


def total_of(cache: FileCache) -> Total:
    with CacheTotal(cache.folder / "total").taken() as taken:
        assert taken.total is not None
        return taken.total


def stray(cache: FileCache, size: int) -> Path:
    """A file that was not counted, as an earlier release puts it there; it was used long ago."""
    path = cache.path_of("f" * 64)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (1, 1))
    return path


def put_back(cache: FileCache, **fields: object) -> None:
    path = cache.folder / "total"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_the_folder_is_read_once_it_may_have_too_much_or_an_hour_has_passed(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", 10_000)
    keep(cache, "a", 3000)
    uncounted = stray(cache, 9000)
    keep(cache, "b", 3000)
    assert uncounted.exists(), "the folder was not read"
    assert total_of(cache).size_bytes == 6000
    put_back(cache, look_at=time.time() - 1)
    cache.trim()
    assert not uncounted.exists()
    assert total_of(cache).size_bytes == 6000
    assert time.time() + LOOK_S - 60 < total_of(cache).look_at <= time.time() + LOOK_S

    again = stray(cache, 9000)
    keep(cache, "c", 4001)
    assert not again.exists(), "three files have more than the cache takes by the count"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"size_bytes": 1}', '{"size_bytes": "x", "look_at": 0, "is_held": 0}']
)
def test_a_count_that_cannot_be_read_is_made_anew(tmp_path: Path, text: str) -> None:
    cache = FileCache(tmp_path / "cache", 10_000)
    keep(cache, "a", 3000)
    (cache.folder / "total").write_text(text)
    uncounted = stray(cache, 9000)
    keep(cache, "b", 3000)
    assert not uncounted.exists()
    assert total_of(cache).size_bytes == 6000


def test_a_full_cache_whose_files_are_all_in_use_is_read_again_when_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FileCache(tmp_path / "cache", 5000)
    first = keep(cache, "a", 3000)
    keep(cache, "b", 3000)
    held = total_of(cache)
    assert (held.size_bytes, held.is_held) == (6000, True)
    assert held.look_at == pytest.approx(first.stat().st_atime + cache_module._IN_USE_S, abs=1)
    os.utime(first, (1, 1))
    keep(cache, "c", 1000)
    assert first.exists(), "until then nothing could be removed"
    monkeypatch.setattr(time, "time", lambda: held.look_at + 1)
    cache.trim()
    assert not first.exists()


def test_a_clock_that_was_put_back_keeps_no_cache_from_being_looked_at() -> None:
    total = Total(10, 1000.0 + LOOK_S)
    assert not total.is_due(10, 1001.0)
    assert total.is_due(9, 1001.0)
    assert total.is_due(10, 1000.0 + LOOK_S)
    assert total.is_due(10, 900.0)


def test_a_file_is_counted_before_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies in between has counted too much, which is seen; too little would break the bound."""
    cache = FileCache(tmp_path / "cache", 10_000)
    keep(cache, "a", 3000)

    def dies(*paths: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        keep(cache, "b", 3000)
    assert total_of(cache).size_bytes == 6000


def test_processes_that_share_a_cache_keep_its_bound_together(tmp_path: Path) -> None:
    """Each may have one file in its hands that the others do not yet make room for."""
    words = [sys.executable, "-c", KEEPS, str(tmp_path / "cache")]
    four = [subprocess.Popen([*words, str(name)], stdout=subprocess.PIPE, text=True) for name in range(4)]
    largest = [int(process.communicate(timeout=120)[0]) for process in four]
    assert max(largest) <= 50_000 + 4 * 1000
    assert on_disk(FileCache(tmp_path / "cache", 50_000)) > 40_000


needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a tmpfs")


def fetched(cache: FileCache, name: str, size: int, *, asks: bool = True) -> Path:
    """Keep a file that comes from elsewhere, as a store does; without `asks`, the write itself meets the full disk."""
    data = name.encode().ljust(size, b".")
    with cache.entry(name) as entry, cache.stage() as staged:
        if asks:
            cache.make_room(size, name)
        cache.retried(lambda: staged.write_bytes(data))
        path = entry.keep(staged, digest=hashlib.sha256(data).hexdigest(), mark="m")
    cache.trim()
    return path


@needs_mounts
class TestADiskThatIsSmallerThanTheCacheMayBecome:
    @pytest.fixture
    def disk(self, tmp_path: Path) -> Iterator[Path]:
        with tmpfs(tmp_path / "disk", "1m") as disk:
            yield disk

    @pytest.mark.parametrize("asks", [True, False])
    def test_takes_any_number_of_files_one_after_the_other(
        self, disk: Path, asks: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cache_module, "_IN_USE_S", 0.05)
        cache = FileCache(disk / "cache", 2**30)
        last = [fetched(cache, str(number), 300_000, asks=asks) for number in range(10)][-1]
        assert last.exists()
        assert on_disk(cache) <= 900_000

    def test_is_kept_free_for_two_files_as_large_as_the_largest(
        self, disk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = FileCache(disk / "cache", 2**30)
        files = [fetched(cache, str(number), 200_000) for number in range(4)]
        for number, file in enumerate(files):
            os.utime(file, (1 + number, file.stat().st_mtime))
        free = cache._free_bytes()
        put_back(cache, is_held=False)  # all were in use
        cache.trim()
        assert [file.exists() for file in files] == [False, True, True, True]
        assert free < 400_000 <= cache._free_bytes()
        monkeypatch.setattr(FileCache, "_evict", lambda *_, **__: pytest.fail("the folder is read where there is room"))
        cache.keep_room()

    def test_is_made_room_on_at_the_start(self, disk: Path) -> None:
        """As after an earlier release, which has filled it."""
        cache = FileCache(disk / "cache", 2**30)
        file = fetched(cache, "a", 300_000)
        os.utime(file, (1, 1))
        rest = filled(disk)
        FileCache(disk / "cache", 2**30)
        assert not file.exists()
        rest.unlink()

    def test_holds_files_that_are_in_use_and_waits_for_them(self, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cache_module, "_IN_USE_S", 0.5)
        cache = FileCache(disk / "cache", 2**30)
        began = time.time()
        first = fetched(cache, "a", 600_000)
        fetched(cache, "b", 600_000)
        assert not first.exists()
        assert time.time() - began > 0.4

    def test_is_told_where_what_is_full_is_none_of_the_caches(self, disk: Path, tmp_path: Path) -> None:
        cache = FileCache(disk / "cache", 2**30)
        file = fetched(cache, "a", 10_000)
        os.utime(file, (1, 1))
        with pytest.raises(LocalFault, match="free some space there"):
            cache.make_room(2**21, "object x")
        cache = FileCache(tmp_path / "cache", 2**30)
        file = fetched(cache, "a", 10_000)
        os.utime(file, (1, 1))
        filled(disk)
        with pytest.raises(OSError, match="No space left"):
            cache.retried(lambda: shutil.copyfile(file, disk / "copy"))
        assert file.exists(), "it lies on another disk"
