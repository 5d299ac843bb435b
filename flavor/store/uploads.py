"""Resume uploads in parts, also those of an earlier process: for S3 and services with its protocol.

obstore begins an upload in parts again when one part fails, and cannot go on with the upload of another process. It
also limits the time of each body. So the requests are those of `flavor.store.s3_requests`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from flavor.atomic import write_whole
from flavor.errors import ObjectMissing, StoreUnavailable
from flavor.store.aside import in_lanes
from flavor.store.bucket import Bucket
from flavor.store.s3_requests import S3Requests
from flavor.watch import Watch, current_watch

PART_BYTES = 5 * 2**20
"""The smallest part that S3 takes: a broken link loses at most one part."""
_MOST_PARTS = 9_000
"""Most parts that S3 takes for one upload."""
_ABANDONED_S = 86_400.0


@dataclass
class Upload:
    """An upload that has begun, with what another process needs to go on with it."""

    staged: str
    id: str
    part_bytes: int
    tags: dict[str, str] = field(default_factory=dict)  # part number to ETag


class Notes:
    """Notes on unfinished uploads: a file each, in a folder of this machine.

    The first line is the upload, as JSON. A line is added for each part: to write the whole note for each of thousands
    of parts would take time that is quadratic in their number.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str, digest: str) -> Path:
        """Return the file of the note on uploading the file with this digest to this object."""
        return self._folder / hashlib.sha256(f"{name}\n{digest}".encode()).hexdigest()[:32]

    def read(self, path: Path) -> Upload | None:
        """Read a note; None where it is missing or cannot be used."""
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
            first, *parts = path.read_text(encoding="utf-8").splitlines()
            noted = Upload(**json.loads(first))
            if noted.part_bytes > 0 and all(isinstance(each, str) for each in (noted.staged, noted.id)):
                noted.tags = {str(number): str(tag) for number, tag in noted.tags.items()}
                for line in parts:
                    with contextlib.suppress(ValueError, TypeError, RecursionError):  # one that a crash has cut off
                        number, tag = json.loads(line)
                        noted.tags[str(number)] = str(tag)
                return noted
        return None

    def write(self, path: Path, upload: Upload) -> None:
        """Write a note. An error is ignored: without the note, a later process begins the upload again."""
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(path, f"{json.dumps(asdict(upload))}\n")

    def add(self, path: Path, number: int, tag: str) -> None:
        """Add a finished part to a note. An error is ignored, as in `write`."""
        with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps([str(number), tag])}\n")

    def forget(self, path: Path) -> None:
        """Remove the note of an upload that is done, and all notes that were not used for a day."""
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            for each in self._folder.iterdir():
                if time.time() - each.stat().st_mtime > _ABANDONED_S:
                    each.unlink(missing_ok=True)


class S3Uploads:
    """Uploads files to the objects of one bucket."""

    def __init__(self, bucket: Bucket, notes: Notes) -> None:
        self._bucket, self._notes, self._requests = bucket, notes, S3Requests(bucket)

    def put(self, key: str, source: Path) -> None:
        """Write a file by one request. Raises `ObjectExists` where the object exists."""
        data, watch = source.read_bytes(), current_watch()
        with watch.phase("uploading", len(data)):
            self._bucket.persist(key, lambda: self._requests.ask("put_object", key, Body=data, IfNoneMatch="*"))

    def put_parts(self, key: str, source: Path, size: int, digest: str, *, staged: str = "") -> str:
        """Write a large file under the name `staged`, or under a name made here beside `key`; return the name.

        Parts that this or an earlier process has finished are not sent again. Where the watcher ends an upload that is
        no longer needed, its parts are removed from the store.
        """
        watch, note = current_watch(), self._notes.path(f"{self._bucket.url}/{key}", digest)
        upload = self._notes.read(note)
        done = self._finished(upload, size) if upload else None
        if upload is None or done is None:
            folder, _, name = key.rpartition("/")
            staged = staged or f"{folder}/.{name}.{secrets.token_hex(6)}".lstrip("/")
            begun = self._requests.again(staged, "create_multipart_upload")
            upload, done = Upload(staged, begun["UploadId"], max(PART_BYTES, -(-size // _MOST_PARTS))), {}
        self._notes.write(note, upload)
        parts = -(-size // upload.part_bytes)
        if done.keys() == {0}:  # the object is complete already
            return upload.staged
        sent = sum(min(upload.part_bytes, size - (number - 1) * upload.part_bytes) for number in done)
        try:
            with watch.phase("uploading", size, done=sent):
                self._send_rest(upload, note, source, done, parts)
                self._complete(upload, done, size)
        except BaseException:
            if watch.is_unwanted:
                self._abort(upload, note)
            raise
        return upload.staged

    def forget(self, key: str, digest: str) -> None:
        """Remove the note: the upload has its final name."""
        self._notes.forget(self._notes.path(f"{self._bucket.url}/{key}", digest))

    def _send_rest(self, upload: Upload, note: Path, source: Path, done: dict[int, str], parts: int) -> None:
        missing = [number for number in range(1, parts + 1) if number not in done]
        with source.open("rb", buffering=0) as file:

            def send(number: int) -> tuple[int, str]:
                data = os.pread(file.fileno(), upload.part_bytes, (number - 1) * upload.part_bytes)
                words = {"UploadId": upload.id, "PartNumber": number, "Body": data}
                return number, self._requests.again(upload.staged, "upload_part", **words)["ETag"]

            for number, tag in in_lanes(missing, send, lanes=self._requests.pace.lanes):
                done[number] = upload.tags[str(number)] = tag
                self._notes.add(note, number, tag)

    def _finished(self, upload: Upload, size: int) -> dict[int, str] | None:
        """Return the parts that the store has, by number; {0: ''} for a complete object, None for an unknown upload."""
        found: dict[int, str] = {}
        try:
            for part in self._requests.parts(upload.staged, upload.id):
                number = int(part["PartNumber"])
                left = size - (number - 1) * upload.part_bytes
                noted = upload.tags.get(str(number), part["ETag"])
                if part["Size"] == min(upload.part_bytes, left) and noted == part["ETag"]:
                    found[number] = part["ETag"]
            return found
        except ObjectMissing:
            return {0: ""} if self._is_whole(upload.staged, size) else None
        except StoreUnavailable as error:
            if error.passing:
                raise
            return {
                int(number): tag for number, tag in upload.tags.items()
            }  # this site may send parts, and not list them

    def _complete(self, upload: Upload, done: dict[int, str], size: int) -> None:
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(done.items())]
        try:
            self._requests.again(
                upload.staged, "complete_multipart_upload", UploadId=upload.id, MultipartUpload={"Parts": parts}
            )
        except ObjectMissing:  # the answer to an earlier attempt may have been lost
            if not self._is_whole(upload.staged, size):
                raise StoreUnavailable(
                    f"store {self._bucket.url}: {upload.staged}: the store has forgotten the parts of this upload: "
                    "try again",
                    passing=True,
                ) from None

    def _is_whole(self, staged: str, size: int) -> bool:
        try:
            return bool(self._bucket.ask(staged, lambda: self._bucket.reading.head(staged))["size"] == size)
        except ObjectMissing:
            return False

    def _abort(self, upload: Upload, note: Path) -> None:
        with contextlib.suppress(Exception):
            self._requests.ask("abort_multipart_upload", upload.staged, watch=Watch(), UploadId=upload.id)
        self._notes.forget(note)
