"""A store in a bucket: S3 and whatever speaks its protocol, Google Cloud Storage, Azure Blob Storage.

`obstore` speaks to them. Where they are and who we are stands in the environment that their own tools read
(`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, …), never in the URL, a message or a `repr`.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from flavor.errors import DigestMismatch, ObjectExists, ObjectMissing, StoreError, StoreUnavailable
from flavor.sizes import shown_size
from flavor.store.bucket import Bucket, Endurance, already_there, chosen_endurance
from flavor.store.cache import Entry, FileCache, cache_settings, default_folder
from flavor.store.links import placed
from flavor.store.objects import check_bytes, check_size
from flavor.store.paths import checked_path

if TYPE_CHECKING:
    from obstore import ObjectMeta

_PART_BYTES = 8 * 2**20
_PARTS_AT_ONCE = 4
_MOST_PARTS = 9_000
"""S3 takes ten thousand."""
_SINGLE_BYTES = 16 * 2**20
"""Up to this size an object is written by one request, which is conditional by itself."""
_MOST_COPIED_BYTES = 5 * 2**30
"""S3 copies no larger object in one request."""
_REMOVED_AT_ONCE = 10_000
"""Paths that are held in memory while a run is removed."""


class RemoteStore:
    """`ObjectStore` in a bucket, with the files of this process's cache.

    With `create` it is tried whether the bucket can be written and refuses to write an object twice; raises
    `InvalidSetting` if not, and `StoreUnavailable` if that cannot be told.
    """

    private = True

    def __init__(
        self,
        url: str,
        *,
        create: bool = False,
        cache: FileCache | None = None,
        endurance: Endurance | None = None,
    ) -> None:
        self._bucket = Bucket(url, endurance or chosen_endurance())
        self.url = self._bucket.url
        chosen = cache_settings()
        self._cache = cache or FileCache(chosen.folder or default_folder(), chosen.size_bytes)
        if create:
            self._bucket.try_out()

    def __repr__(self) -> str:
        return f"RemoteStore({self.url!r})"

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """See `ObjectStore`. Staged files lie in the cache's folder."""
        with self._cache.stage() as staged:
            yield staged

    def put(self, path: str, source: Path, *, digest: str) -> None:
        """See `ObjectStore`. A large file is uploaded in parts; what was uploaded is in the cache afterwards."""
        key = checked_path(path)
        with self._cache.entry(self._name(path)) as entry:
            try:
                self._upload(key, source)
            except ObjectExists:
                # Perhaps ours: the answer to an earlier attempt may have been lost.
                self._download(key, self._head(path), entry)
                if entry.digest != digest:
                    raise
                source.unlink(missing_ok=True)
                return
            mark = _mark(self._head(path))
            self._take(source, entry, digest, mark)
        self._cache.trim()

    def _take(self, source: Path, entry: Entry, digest: str, mark: str) -> None:
        if source.parent == self._cache.folder / "staging":
            entry.keep(source, digest=digest, mark=mark)
        else:
            source.unlink(missing_ok=True)

    def _upload(self, key: str, source: Path) -> None:
        size = source.stat().st_size
        if size <= _SINGLE_BYTES:
            self._put_once(key, source)
        elif size <= _MOST_COPIED_BYTES:
            # No service here makes an upload in parts conditional for us, but each makes a copy so.
            folder, _, name = key.rpartition("/")
            staged = f"{folder}/.{name}.{secrets.token_hex(6)}".lstrip("/")
            try:
                self._put_parts(staged, source, size)
                self._copy_once(staged, key)
            finally:
                with contextlib.suppress(Exception):
                    self._bucket.writing.delete(staged)
        else:
            if self.exists(key):
                raise ObjectExists(already_there(key))
            self._put_parts(key, source, size)  # the name has a digest in it, so a rival writes the same bytes

    def _put_once(self, key: str, source: Path) -> None:
        data = source.read_bytes()
        self._bucket.persist(key, lambda: self._bucket.writing.put(key, data, mode="create", use_multipart=False))

    def _put_parts(self, key: str, source: Path, size: int) -> None:
        part = max(_PART_BYTES, -(-size // _MOST_PARTS))

        def put() -> object:
            with source.open("rb") as file:
                return self._bucket.writing.put(
                    key, file, use_multipart=True, chunk_size=part, max_concurrency=_PARTS_AT_ONCE
                )

        self._bucket.persist(key, put)

    def _copy_once(self, staged: str, key: str) -> None:
        self._bucket.persist(key, lambda: self._bucket.writing.copy(staged, key, overwrite=False))

    def local(self, path: str, *, digest: str = "", seal: str = "", size_bytes: int | None = None) -> Path:
        """See `ObjectStore`. A file of the cache, which has the digest of what the store held when it was fetched.

        With `digest`, and the object in the cache, the store is not asked.
        """
        key = checked_path(path)
        fetched = False
        with self._cache.entry(self._name(path)) as entry:
            file = entry.file()
            if file is None or not digest or entry.digest != digest:
                meta = self._head(path)
                if file is None or entry.mark != _mark(meta):
                    check_size(meta["size"], size_bytes, f"object {path}")
                    file, fetched = self._download(key, meta, entry), True
            if digest and entry.digest != digest:
                raise DigestMismatch(
                    f"object {path}: the bytes are not those that were recorded (SHA-256 {entry.digest[:12]}… of "
                    f"{file.stat().st_size} bytes, expected {digest[:12]}…): it was changed or cut off in the store"
                )
        if fetched:
            self._cache.trim()
        return file

    def _download(self, key: str, meta: ObjectMeta, entry: Entry) -> Path:
        """Fetch the object in parts, verify each by the object's mark and all by one digest."""
        size = meta["size"]
        if size > self._cache.size_bytes:
            raise StoreError(
                f"object {key} has {shown_size(size)}, and the cache takes {shown_size(self._cache.size_bytes)}: "
                "raise --store-cache-size"
            )
        mark = _mark(meta)
        with self._cache.stage() as staged:
            digest = hashlib.sha256()
            with staged.open("xb") as file, self._bucket.translated(key):
                if size <= _PART_BYTES:
                    _append(self._part(key, meta, 0), file, digest)
                else:
                    self._parts(key, meta, file, digest)
            return entry.keep(staged, digest=digest.hexdigest(), mark=mark)

    def _parts(self, key: str, meta: ObjectMeta, file: IO[bytes], digest: Any) -> None:
        coming: deque[Future[Any]] = deque()
        with ThreadPoolExecutor(_PARTS_AT_ONCE, "download") as pool:
            try:
                for start in range(0, meta["size"], _PART_BYTES):
                    coming.append(pool.submit(self._part, key, meta, start))
                    if len(coming) == _PARTS_AT_ONCE:
                        _append(coming.popleft().result(), file, digest)
                while coming:
                    _append(coming.popleft().result(), file, digest)
            finally:
                for each in coming:
                    each.cancel()

    def _part(self, key: str, meta: ObjectMeta, start: int) -> Any:
        end = min(start + _PART_BYTES, meta["size"])
        if start == end:
            return b""
        options: dict[str, Any] = {"range": (start, end)}
        if meta["e_tag"]:
            options["if_match"] = meta["e_tag"]
        data = self._bucket.reading.get(key, options=options).bytes()
        if len(data) != end - start:
            raise StoreUnavailable(f"object {key}: the store sent {len(data)} bytes where {end - start} were asked for")
        return data

    def seal(self, path: str, *, strict: bool = False) -> str:
        """See `ObjectStore`: the object's version or ETag, its size and its time of modification."""
        checked_path(path)
        return _mark(self._head(path))

    def fetch(
        self, path: str, destination: Path, *, digest: str, seal: str = "", size_bytes: int | None = None
    ) -> None:
        """See `ObjectStore`. On one file system with the cache it is a link to the cache's file."""
        source = self.local(path, digest=digest, seal=seal, size_bytes=size_bytes)
        with self._cache.clear():
            placed(source, destination)

    def exists(self, path: str) -> bool:
        """See `ObjectStore`."""
        checked_path(path)
        try:
            self._head(path)
        except ObjectMissing:
            return False
        return True

    def size_bytes(self, path: str) -> int:
        """See `ObjectStore`."""
        checked_path(path)
        return self._head(path)["size"]

    def read(self, path: str, *, most: int, digest: str | None = None) -> bytes:
        """See `ObjectStore`."""
        checked_path(path)
        with self._bucket.translated(path):
            answer = self._bucket.reading.get(path)
            if answer.meta["size"] > most:
                raise DigestMismatch(f"object {path}: {answer.meta['size']} bytes, and no more than {most} are read")
            data = bytes(answer.bytes())
        check_bytes(data, f"object {path}", most=most, digest=digest)
        return data

    def take(self, path: str, target: str) -> str:
        """See `ObjectStore`: whoever may write the object may change it, which its digest gives away."""
        return path

    def list(self, folder: str, *, most: int | None = None) -> list[str]:
        """See `ObjectStore`."""
        start = checked_path(folder.rstrip("/")) + "/"
        seen = itertools.islice(self._all(folder), most)
        return sorted(path for path in seen if "/" not in (name := path[len(start) :]) and not name.startswith("."))

    def folders(self, folder: str, *, most: int | None = None) -> Sequence[str]:
        """See `ObjectStore`."""
        start = checked_path(folder.rstrip("/")) + "/"
        with self._bucket.translated(folder):
            found = self._bucket.reading.list_with_delimiter(start)["common_prefixes"]
        return sorted(f"{path.rstrip('/')}/" for path in itertools.islice(found, most))

    def delete(self, paths: Sequence[str]) -> None:
        """See `ObjectStore`."""
        found = [checked_path(path) for path in paths]
        with self._bucket.translated(found[0] if found else ""):
            if found:
                self._bucket.writing.delete(found)

    def remove(self, prefix: str) -> None:
        """See `ObjectStore`. What an interrupted upload left below it goes too."""
        found = self._all(checked_path(prefix.rstrip("/")))
        with self._bucket.translated(prefix):
            while some := list(itertools.islice(found, _REMOVED_AT_ONCE)):
                self._bucket.writing.delete(some)

    def _all(self, prefix: str) -> Iterator[str]:
        folder = checked_path(prefix.rstrip("/")) + "/"
        with self._bucket.translated(prefix):
            for batch in self._bucket.reading.list(folder):
                for meta in batch:
                    if meta["path"].startswith(folder):
                        yield meta["path"]

    def _head(self, path: str) -> ObjectMeta:
        with self._bucket.translated(path):
            meta: ObjectMeta = self._bucket.reading.head(path)
            return meta

    def _name(self, path: str) -> str:
        return f"{self.url}/{path}"


def _append(data: Any, file: IO[bytes], digest: Any) -> None:
    digest.update(data)
    file.write(data)


def _mark(meta: ObjectMeta) -> str:
    tag = (meta["e_tag"] or "").strip('"')
    return f"{meta['version'] or ''}:{tag}:{meta['size']}:{meta['last_modified'].timestamp():.0f}"
