"""A bucket that a site without credentials uses by signed URLs: the run's coordinator gives it one for each object.

The site needs neither obstore nor botocore. A URL that has expired is asked for again, without a message. The bucket
compares the time of a signature, which is the coordinator's, with its own, and never with this machine's.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, TypeVar

from flavor.errors import DigestMismatch, ObjectExists, ObjectMissing, StoreUnavailable
from flavor.records.objects import ObjectRef
from flavor.records.signed_urls import UrlAnswer, UrlUse, sizes_of_parts
from flavor.store.aside import in_lanes
from flavor.store.cache import FileCache, default_folder
from flavor.store.cached import Cached
from flavor.store.digests import check_bytes, check_most, check_named, check_size, other_bytes
from flavor.store.paths import checked_path
from flavor.store.settings import DEFAULTS, StoreSettings
from flavor.store.url_requests import Asking, Given, PartUrls, UrlRequests
from flavor.store.wire import Answer
from flavor.watch import current_watch, watching

T = TypeVar("T")
_PART_BYTES = 5 * 2**20
_SINGLE_BYTES = 16 * 2**20
"""Up to this size an object is written by one request."""
_BEGINNINGS = 3
"""Number of times that an upload in parts is begun which the store forgets."""
_TOTAL = re.compile(r"bytes (?:[0-9]+-[0-9]+|\*)/([0-9]{1,18})")


class SignedStore(Cached):
    """`ObjectStore` of a site, by URLs that `ask` returns; with its files in a cache on this machine.

    It reads and writes single objects. It lists and deletes nothing: those methods raise `StoreUnavailable`.
    """

    private = True

    def __init__(
        self,
        url: str,
        ask: Asking,
        *,
        cache: FileCache | None = None,
        settings: StoreSettings = DEFAULTS,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.url = url
        self._requests = UrlRequests(url, ask, settings.endurance, tell)
        self._cache = cache or FileCache(settings.cache or default_folder(), settings.cache_bytes)

    # -- writing

    def put(self, ref: ObjectRef, source: Path) -> None:
        """See `ObjectStore`. A large file is uploaded in parts: those that the store has are not sent again."""
        key, size = checked_path(ref.path), source.stat().st_size
        with watching():
            try:
                if size <= _SINGLE_BYTES:
                    self._put_whole(key, source, size, ref.digest)
                else:
                    self._put_large(key, source, size, ref.digest)
            except ObjectExists:  # it may be our own: the answer to an earlier attempt may have been lost
                if self._found(key).digest != ref.digest:
                    raise
            source.unlink(missing_ok=True)

    def _put_whole(self, key: str, source: Path, size: int, digest: str) -> None:
        def urls(_: Given | None) -> Given:
            return self._requests.one(UrlUse.PUT, key, size_bytes=size, digest=digest)

        with current_watch().phase("uploading", size):
            self._requests.answered(key, "PUT", urls, body=_bytes_of(source, size))

    def _put_large(self, key: str, source: Path, size: int, digest: str) -> None:
        for left in reversed(range(_BEGINNINGS)):
            begun = self._requests.asked(UrlUse.BEGIN, key, size_bytes=size, digest=digest)
            if begun.is_complete:
                return
            if not begun.upload:  # a service whose uploads in parts cannot be signed
                self._put_whole(key, source, size, digest)
                return
            try:
                self._send_parts(key, source, size, digest, begun)
            except ObjectMissing:  # the store has forgotten the upload
                if not left:
                    raise StoreUnavailable(
                        f"store {self.url}: {key}: the store forgets the parts of this upload: try again", passing=True
                    ) from None
            else:
                return

    def _send_parts(self, key: str, source: Path, size: int, digest: str, begun: UrlAnswer) -> None:
        """Send the parts that the store lacks, and have them made one object."""
        sizes, words = sizes_of_parts(size, begun.part_bytes), {"size_bytes": size, "digest": digest}
        done, watch = begun.parts_done(), current_watch()
        while True:
            missing = [number for number in range(1, len(sizes) + 1) if number not in done]
            urls = PartUrls(self._requests, key, begun.upload, missing, begun, **words)
            sent = sum(sizes[number - 1] for number in done)
            with watch.phase("uploading", size, done=sent), source.open("rb", buffering=0) as file:

                def send(number: int, urls: PartUrls = urls, file: io.FileIO = file) -> None:
                    data = os.pread(file.fileno(), sizes[number - 1], (number - 1) * sizes[0])
                    self._requests.answered(key, "PUT", urls.of(number), body=data)

                for _ in in_lanes(missing, send, lanes=self._requests.pace.lanes):
                    pass
            ended = self._requests.asked(UrlUse.COMPLETE, key, upload=begun.upload, **words)
            if ended.is_complete:
                return
            if not ended.upload:
                raise ObjectMissing(f"{key}: the store {self.url} knows no such upload")
            if ended.parts_done() == done:
                raise StoreUnavailable(f"store {self.url}: {key}: the store does not keep what is sent", passing=True)
            begun, done = replace(begun, urls=()), ended.parts_done()

    # -- reading

    def open(self, ref: ObjectRef) -> Path:
        """See `ObjectStore`. The file is one of the cache; for an object in the cache, nothing is asked for."""
        check_named(ref)
        key = checked_path(ref.path)
        with watching(), self._cache.entry(f"{self.url}/{key}") as entry:
            file = entry.file()
            if file is not None and entry.digest == ref.digest:
                check_size(file.stat().st_size, ref.size_bytes, f"object {key}")
                return file
            staged = self._cache.partial(f"{self.url}/{key}\n{ref.digest}")
            found = self._cache.retried(lambda: self._download(ref, staged))
            if found != ref.digest and staged.exists():  # what an earlier attempt has left may be damaged
                staged.unlink()
                found = self._cache.retried(lambda: self._download(ref, staged))
            if found != ref.digest:
                size = staged.stat().st_size
                staged.unlink()
                raise other_bytes(ref, found, size)
            file = entry.keep(staged, digest=ref.digest, mark="")
        self._cache.trim()
        return file

    def _download(self, ref: ObjectRef, staged: Path) -> str:
        """Fetch the bytes that the file lacks; return the digest of all of them."""
        key, digest, watch = ref.path, hashlib.sha256(), current_watch()
        with staged.open("a+b") as file:
            file.seek(0)
            while block := file.read(_PART_BYTES):
                digest.update(block)
                watch.check()
            have, known = file.tell(), ref.size_bytes
            if known is not None and have >= known:
                return digest.hexdigest()
            self._cache.make_room((known or 0) - have, f"object {key}")
            reading = _Reading(self._requests, key)
            with watch.phase("fetching", known or 0, done=have):
                first = reading.part(have, _PART_BYTES if known is None else min(_PART_BYTES, known - have))
                if reading.total is not None:
                    check_size(reading.total, known, f"object {key}")
                digest.update(first)
                file.write(first)
                have += len(first)
                total = have if reading.total is None else reading.total
                starts = range(have, total, _PART_BYTES)
                lanes = self._requests.pace.lanes
                for data in in_lanes(
                    starts, lambda start: reading.part(start, min(_PART_BYTES, total - start)), lanes=lanes
                ):
                    digest.update(data)
                    file.write(data)
                    file.flush()
        return digest.hexdigest()

    def _found(self, key: str) -> ObjectRef:
        """Return what the store has under this path, which is read for that."""
        with self._cache.stage() as staged:
            found = self._cache.retried(lambda: self._download(ObjectRef(key, ""), staged))
            return ObjectRef(key, found, staged.stat().st_size)

    def place(self, ref: ObjectRef, destination: Path, *, check: Callable[[Path], None] = lambda _: None) -> None:
        """See `ObjectStore`. On the file system of the cache, the destination is a link to the cache's file."""
        source = self.open(ref)
        check(source)
        self._cache.place(source, destination)

    def read(self, ref: ObjectRef, *, most: int) -> bytes:
        """See `ObjectStore`."""
        check_named(ref)
        data = self.read_unverified(ref.path, most=most)
        check_bytes(ref, data)
        return data

    def read_unverified(self, path: str, *, most: int) -> bytes:
        """See `ObjectStore`."""
        with watching():
            reading = _Reading(self._requests, checked_path(path))
            data = bytes(reading.part(0, most + 1))
        if (reading.total or 0) > most:
            raise DigestMismatch(f"object {path}: {reading.total} bytes, and no more than {most} are read")
        check_most(data, path, most)
        return data

    def local(self, path: str, *, size_bytes: int | None = None) -> Path:
        """See `ObjectStore`. Nothing reads objects of an unknown digest as files at a site."""
        self._cannot("give out objects of an unknown digest")

    def exists(self, path: str) -> bool:
        """See `ObjectStore`."""
        try:
            self.size_bytes(path)
        except ObjectMissing:
            return False
        return True

    def size_bytes(self, path: str) -> int:
        """See `ObjectStore`."""
        with watching():
            reading = _Reading(self._requests, checked_path(path))
            data = reading.part(0, 1)
        return len(data) if reading.total is None else reading.total

    def start(self, path: str, size_bytes: int) -> bytes:
        """See `ObjectStore`."""
        with watching():
            return bytes(_Reading(self._requests, checked_path(path)).part(0, size_bytes))

    # -- what signed URLs do not do

    def seal(self, path: str, *, strict: bool = False) -> str:
        """See `ObjectStore`."""
        self._cannot("seal objects")

    def take(self, path: str, target: str, *, most: int | None = None) -> str:
        """See `ObjectStore`."""
        self._cannot("take objects")

    def list(self, folder: str, *, most: int | None = None, after: str = "") -> list[str]:
        """See `ObjectStore`."""
        self._cannot("list objects")

    def folders(self, folder: str, *, most: int | None = None) -> Sequence[str]:
        """See `ObjectStore`."""
        self._cannot("list folders")

    def delete(self, paths: Sequence[str]) -> None:
        """See `ObjectStore`."""
        self._cannot("delete objects")

    def remove(self, prefix: str) -> None:
        """See `ObjectStore`."""
        self._cannot("delete objects")

    def _cannot(self, what: str) -> NoReturn:
        raise StoreUnavailable(f"store {self.url}: signed URLs cannot {what}")


class _Reading:
    """Reads parts of one object."""

    def __init__(self, requests: UrlRequests, key: str) -> None:
        self._requests, self._key, self._urls = requests, key, requests.reading(key)
        self._tag = ""
        self.total: int | None = None
        """The size of the object; None where no answer has told it."""

    def part(self, start: int, size: int) -> bytes | bytearray:
        """Return `size` bytes from `start` on, fewer where the object ends. Bytes are kept when the link breaks."""
        data, kept, began = bytearray(), 0, time.monotonic()

        def headers() -> dict[str, str]:
            nonlocal kept
            kept = len(data)  # of attempts before this one
            asked = {"Range": f"bytes={start + kept}-{start + size - 1}"}
            return {**asked, "If-Match": self._tag} if self._tag else asked

        try:
            answer = self._requests.answered(self._key, "GET", self._urls, headers=headers, into=data.extend)
        except StoreUnavailable as error:
            if not error.refused.startswith("416"):  # there is no more of it
                raise
            return data
        except ObjectExists:  # 412: `If-Match` does not hold
            raise DigestMismatch(f"object {self._key}: it was changed in the store while it was read") from None
        self._learn(answer, len(data) - kept)
        if answer.status == 200:  # a service or a proxy that takes no ranges: it has sent all of the object
            del data[: kept + start], data[size:]
        self._requests.pace.measured(len(data), time.monotonic() - began)
        return data

    def _learn(self, answer: Answer, received: int) -> None:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        self._tag = self._tag or headers.get("etag", "")
        if answer.status == 200:
            self.total = received
        elif match := _TOTAL.fullmatch(headers.get("content-range", "")):
            self.total = int(match[1])


def _bytes_of(source: Path, size: int) -> memoryview:
    """Return the bytes of a file of this process, which are read as they are sent.

    They are unmapped with the last view of them, and not before: the traceback of an attempt that has failed has views.
    """
    if not size:
        return memoryview(b"")
    with source.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
