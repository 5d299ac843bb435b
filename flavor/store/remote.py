"""A store in a bucket: S3 and services with its protocol, Google Cloud Storage, Azure Blob Storage.

`obstore` sends the requests. Endpoints and credentials come from the environment variables that the services' own
tools read (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, …). They never stand in the URL, a message or a `repr`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flavor.errors import DigestMismatch, ObjectExists, ObjectMissing, ObjectWithheld, StoreError, StoreUnavailable
from flavor.records.objects import ObjectRef
from flavor.store.aside import in_lanes
from flavor.store.bucket import Bucket, already_there
from flavor.store.cache import Entry, FileCache, default_folder
from flavor.store.cached import Cached
from flavor.store.digests import check_bytes, check_most, check_named, check_size, other_bytes
from flavor.store.paths import checked_path, run_record_path
from flavor.store.settings import DEFAULTS, StoreSettings
from flavor.store.uploads import Notes, S3Uploads
from flavor.store.wire import LANES, Pace
from flavor.watch import Watch, current_watch, watching

if TYPE_CHECKING:
    from obstore import ObjectMeta

T = TypeVar("T")
_PART_BYTES = 8 * 2**20
_MOST_PARTS = 9_000
"""Most parts that S3 takes for one upload."""
_SMALL_BYTES = 2**16
"""Up to this size no progress can be seen: a socket takes all bytes at once."""
_SINGLE_BYTES = 16 * 2**20
"""Up to this size an object is written by one conditional request."""
_MOST_COPIED_BYTES = 5 * 2**30
"""The largest object that S3 copies in one request."""
_REMOVED_AT_ONCE = 10_000
"""Number of paths held in memory while a run is removed."""


_OF_ONE_OBJECT = ("403 InvalidObjectState",)
"""Codes that are about the object and not about the store: it is in an archive."""


class Told(io.FileIO):
    """A file that reports its progress: obstore reads it while it sends."""

    def __init__(self, path: Path, watch: Watch) -> None:
        super().__init__(path)
        self._watch = watch

    def read(self, size: int | None = -1, /) -> bytes:
        """See `io.RawIOBase`. Raises `TransferStopped`."""
        data = super().read(-1 if size is None else size) or b""
        self._watch.moved(len(data))
        return data


class RemoteStore(Cached):
    """`ObjectStore` in a bucket, with its files in a cache on this machine: `cache`, or the cache of the settings.

    With `create`, tests that the bucket can be written and refuses to write an object twice. Raises `InvalidSetting`
    if not, and `StoreUnavailable` if the test gets no answer.
    """

    private = True

    def __init__(
        self,
        url: str,
        *,
        create: bool = False,
        cache: FileCache | None = None,
        settings: StoreSettings = DEFAULTS,
    ) -> None:
        self._bucket = Bucket(url, settings.endurance)
        self.url = self._bucket.url
        self._cache = cache or FileCache(settings.cache or default_folder(), settings.cache_bytes)
        self._uploads: S3Uploads | None = None
        if self.url.startswith("s3:"):
            self._uploads = S3Uploads(self._bucket, Notes(settings.uploads or self._cache.folder / "uploads"))
        self._pace = Pace()
        if create:
            self._bucket.try_out()

    def put(self, ref: ObjectRef, source: Path) -> None:
        """See `ObjectStore`. A large file is uploaded in parts. The uploaded file is in the cache afterwards."""
        path, digest = ref.path, ref.digest
        key = checked_path(path)
        with watching(), self._cache.entry(self._name(path)) as entry:
            try:
                self._upload(key, source, digest)
            except ObjectExists:
                # The object may be our own: the answer to an earlier attempt may have been lost.
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

    def _upload(self, key: str, source: Path, digest: str) -> None:
        size = source.stat().st_size
        if size <= _SMALL_BYTES:
            data = source.read_bytes()
            self._bucket.persist(key, lambda: self._bucket.writing.put(key, data, mode="create", use_multipart=False))
        elif size <= _SINGLE_BYTES:
            self._put_once(key, source)
        elif size <= _MOST_COPIED_BYTES:
            # Not every service has conditional uploads in parts, but every one has conditional copies.
            staged = self._put_parts(key, source, size, digest)
            try:
                self._copy_once(staged, key)
            finally:
                with contextlib.suppress(Exception):
                    self._bucket.ask(staged, lambda: self._bucket.writing.delete(staged))
            self._forget(key, digest)
        else:
            if self.exists(key):
                raise ObjectExists(already_there(key))
            # the name has the digest in it, so another writer puts the same bytes
            self._put_parts(key, source, size, digest, staged=key)
            self._forget(key, digest)

    def _put_once(self, key: str, source: Path) -> None:
        if self._uploads is not None:
            self._uploads.put(key, source)
            return
        with current_watch().phase("uploading", source.stat().st_size):
            data = source.read_bytes()
            self._bucket.persist(key, lambda: self._bucket.writing.put(key, data, mode="create", use_multipart=False))

    def _put_parts(self, key: str, source: Path, size: int, digest: str, *, staged: str = "") -> str:
        """Write the file in parts under the name `staged`, or under a name made here; return the name."""
        if self._uploads is not None:
            return self._uploads.put_parts(key, source, size, digest, staged=staged)
        folder, _, name = key.rpartition("/")
        staged = staged or f"{folder}/.{name}.{secrets.token_hex(6)}".lstrip("/")
        part, watch = max(_PART_BYTES, -(-size // _MOST_PARTS)), current_watch()

        def put() -> object:
            with watch.phase("uploading", size), Told(source, watch) as file:
                return self._bucket.writing.put(
                    staged, file, use_multipart=True, chunk_size=part, max_concurrency=LANES
                )

        self._bucket.persist(staged, put)
        return staged

    def _forget(self, key: str, digest: str) -> None:
        if self._uploads is not None:
            self._uploads.forget(key, digest)

    def _copy_once(self, staged: str, key: str) -> None:
        self._bucket.persist(key, lambda: self._bucket.writing.copy(staged, key, overwrite=False))

    def open(self, ref: ObjectRef) -> Path:
        """See `ObjectStore`. The file is one of the cache; for an object in the cache, the store is not asked."""
        check_named(ref)
        return self._cached(ref.path, ref.digest, ref.size_bytes)

    def local(self, path: str, *, size_bytes: int | None = None) -> Path:
        """See `ObjectStore`. A file of the cache, which has the digest of what the store held when it was fetched."""
        return self._cached(path, "", size_bytes)

    def _cached(self, path: str, digest: str, size_bytes: int | None) -> Path:
        key = checked_path(path)
        fetched = False
        with watching(), self._cache.entry(self._name(path)) as entry:
            file = entry.file()
            if file is None or not digest or entry.digest != digest:
                meta = self._head(path)
                if file is None or entry.mark != _mark(meta):
                    check_size(meta["size"], size_bytes, f"object {path}")
                    file, fetched = self._download(key, meta, entry, digest), True
            if digest and entry.digest != digest:
                raise other_bytes(ObjectRef(path, digest), entry.digest, file.stat().st_size)
        if fetched:
            self._cache.trim()
        return file

    def _download(self, key: str, meta: ObjectMeta, entry: Entry, expected: str = "") -> Path:
        """Fetch the object in parts, verify each by the object's mark and all by one digest.

        Where a digest is `expected`, the download continues after the bytes that an earlier attempt has fetched.
        """
        size, mark = meta["size"], _mark(meta)
        if not expected or size <= _PART_BYTES:
            with self._cache.stage() as staged:
                self._cache.make_room(size, f"object {key}")
                digest = self._cache.retried(lambda: self._fetched(key, meta, staged))
                return entry.keep(staged, digest=digest, mark=mark)
        staged = self._cache.partial(f"{self._name(key)}\n{mark}\n{expected}")
        self._cache.make_room(size - (staged.stat().st_size if staged.exists() else 0), f"object {key}")

        def fetched() -> str:
            return self._fetched(key, meta, staged)

        digest = self._cache.retried(fetched)
        if digest != expected:  # the machine may have gone down before all bytes of an earlier attempt were on its disk
            staged.unlink()
            digest = self._cache.retried(fetched)
        return entry.keep(staged, digest=digest, mark=mark)

    def _fetched(self, key: str, meta: ObjectMeta, staged: Path) -> str:
        """Fetch the bytes that the file lacks; return the digest of the whole object."""
        digest, size, watch = hashlib.sha256(), meta["size"], current_watch()
        with staged.open("a+b") as file:
            file.seek(0)
            while block := file.read(_PART_BYTES):
                digest.update(block)
                watch.check()
            have = file.tell()
            with watch.phase("fetching", size, done=have):
                starts = range(have, size, _PART_BYTES)
                lanes = self._pace.lanes
                for data in in_lanes(starts, lambda start: self._part(key, meta, start), lanes=lanes):
                    digest.update(data)
                    file.write(data)
                    file.flush()
        return digest.hexdigest()

    def _part(self, key: str, meta: ObjectMeta, start: int) -> bytearray:
        """Fetch one part of the object. Bytes that have arrived are kept when the link breaks."""
        size, data, watch = min(_PART_BYTES, meta["size"] - start), bytearray(), current_watch()

        def fetch() -> None:
            options: dict[str, Any] = {"range": (start + len(data), start + size)}
            if meta["e_tag"]:
                options["if_match"] = meta["e_tag"]
            for chunk in self._bucket.reading.get(key, options=options).stream(min_chunk_size=self._pace.chunk_bytes):
                data.extend(chunk)
                watch.moved(len(chunk))

        began = time.monotonic()
        with self._blamed(key):
            self._bucket.read(key, fetch)
        self._pace.measured(size, time.monotonic() - began)
        if len(data) != size:
            raise StoreUnavailable(f"object {key}: the store sent {len(data)} bytes where {size} were asked for")
        return data

    def seal(self, path: str, *, strict: bool = False) -> str:
        """See `ObjectStore`: the object's version or ETag, its size and its time of modification."""
        checked_path(path)
        return _mark(self._head(path))

    def place(self, ref: ObjectRef, destination: Path, *, check: Callable[[Path], None] = lambda _: None) -> None:
        """See `ObjectStore`. On the file system of the cache, the destination is a link to the cache's file."""
        source = self.open(ref)
        check(source)
        self._cache.place(source, destination)

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

    def start(self, path: str, size_bytes: int) -> bytes:
        """See `ObjectStore`."""
        key = checked_path(path)
        with self._blamed(key):
            options: Any = {"range": (0, size_bytes)}
            return bytes(self._bucket.read(key, lambda: self._bucket.reading.get(key, options=options).bytes()))

    def read(self, ref: ObjectRef, *, most: int) -> bytes:
        """See `ObjectStore`."""
        check_named(ref)
        data = self.read_unverified(ref.path, most=most)
        check_bytes(ref, data)
        return data

    def read_unverified(self, path: str, *, most: int) -> bytes:
        """See `ObjectStore`."""
        checked_path(path)

        def fetch() -> bytes:
            answer = self._bucket.reading.get(path)
            if answer.meta["size"] > most:
                raise DigestMismatch(f"object {path}: {answer.meta['size']} bytes, and no more than {most} are read")
            return bytes(answer.bytes())

        with self._blamed(path):
            data = self._bucket.read(path, fetch)
        check_most(data, path, most)
        return data

    def take(self, path: str, target: str, *, most: int | None = None) -> str:
        """See `ObjectStore`. Its writer can still change the object, which its digest shows."""
        return path

    def list(self, folder: str, *, most: int | None = None, after: str = "") -> list[str]:
        """See `ObjectStore`."""
        start = checked_path(folder.rstrip("/")) + "/"
        seen = itertools.islice(self._all(folder, after), most)
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
        if found:
            self._bucket.ask(found[0], lambda: self._bucket.writing.delete(found))

    def remove(self, prefix: str) -> None:
        """See `ObjectStore`. Also deletes what interrupted uploads left below the prefix."""
        found = self._all(checked_path(prefix.rstrip("/")))
        while some := list(itertools.islice(found, _REMOVED_AT_ONCE)):
            self._bucket.ask(prefix, lambda some=some: self._bucket.writing.delete(some))  # type: ignore[misc]

    def _all(self, prefix: str, after: str = "") -> Iterator[str]:
        folder = checked_path(prefix.rstrip("/")) + "/"
        with self._bucket.translated(prefix):
            for batch in self._bucket.reading.list(folder, offset=after or None):
                for meta in batch:
                    if meta["path"].startswith(folder):
                        yield meta["path"]

    def _head(self, path: str) -> ObjectMeta:
        with self._blamed(path):
            meta: ObjectMeta = self._bucket.read(path, lambda: self._bucket.reading.head(path))
        return meta

    @contextlib.contextmanager
    def _blamed(self, path: str) -> Iterator[None]:
        """Raise `ObjectWithheld` where the store keeps back this one object and gives out others of the run."""
        try:
            yield
        except StoreUnavailable as error:
            if not error.refused or (error.refused not in _OF_ONE_OBJECT and not self._has_neighbour(path)):
                raise
            raise ObjectWithheld(
                f"object {path}: the store does not give it out ({error.refused}), though it gives out others: "
                "it may be archived, encrypted with a key of its owner's, or closed by its owner"
            ) from None

    def _has_neighbour(self, path: str) -> bool:
        """Whether the record of the same run can be read."""
        words = path.split("/")
        record = run_record_path(words[1]) if len(words) > 2 and words[0] == "runs" else path
        if record == path:
            return False
        try:
            self._bucket.ask(record, lambda: self._bucket.reading.get(record).bytes())
        except StoreError:
            return False
        return True

    def _name(self, path: str) -> str:
        return f"{self.url}/{path}"


def _mark(meta: ObjectMeta) -> str:
    tag = (meta["e_tag"] or "").strip('"')
    return f"{meta['version'] or ''}:{tag}:{meta['size']}:{meta['last_modified'].timestamp():.0f}"
