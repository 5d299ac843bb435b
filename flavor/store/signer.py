"""Sign URLs with which other parties read and write single objects of a bucket: for sites without credentials."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, Protocol

from flavor.errors import InvalidSetting, ObjectExists, ObjectMissing, StoreError, StoreUnavailable
from flavor.records.signed_urls import MOST_PARTS, SignedUrl, sizes_of_parts
from flavor.store.bucket import Bucket, unanswered
from flavor.store.paths import checked_path
from flavor.store.s3_requests import S3Requests
from flavor.store.settings import Endurance
from flavor.store.url import why_unsigned
from flavor.store.url_fault import clock_fault, code_in
from flavor.store.wire import Answer, Silence, wire_of
from flavor.watch import current_watch

PART_BYTES = 5 * 2**20
"""The smallest part that S3 takes: a broken link loses at most one part."""
_PROBED_S = 60
_PROBE = re.compile(r"\.probe/[0-9a-f]+")
_MOST_UPLOADS = 1_000
"""Most unfinished uploads of one object that are looked at."""


class Signer(Protocol):
    """Signs URLs for the objects of one bucket. Signing alone sends no request, unless credentials have to be renewed.

    Raises `StoreError` where the bucket or the credentials cannot be used.
    """

    has_parts: bool
    """Whether an object can be written in parts."""

    def get(self, path: str, expires_s: int) -> SignedUrl:
        """Return a URL that reads this object."""

    def put(self, path: str, size_bytes: int, digest: str, expires_s: int) -> SignedUrl:
        """Return a URL that writes this object by one request.

        In S3, it writes these bytes alone, of which `digest` is the SHA-256, and only where there is no such object.
        """

    def begin(self, path: str, size_bytes: int) -> tuple[str, frozenset[int]]:
        """Begin an upload in parts of this object, or find the one that has begun.

        Returns its id, and the numbers of the parts that the bucket has, whole.
        """

    def parts(
        self, path: str, upload: str, numbers: Iterable[int], size_bytes: int, expires_s: int
    ) -> Sequence[SignedUrl]:
        """Return a URL for each of these parts of an upload."""

    def complete(self, path: str, upload: str, size_bytes: int) -> frozenset[int] | None:
        """Make the parts one object; return None, or the parts that are there where some are missing.

        Does nothing for an object that is there. Raises `ObjectMissing` for an unknown upload.
        """

    def abort(self, prefix: str, *, keeps: Callable[[str], bool]) -> None:
        """End all unfinished uploads below the prefix, but those of objects whose path it `keeps`."""


def opened_signer(url: str, endurance: Endurance) -> Signer:
    """Return what signs URLs for the bucket at `url`, once an object was written and read by such URLs.

    Raises `InvalidSetting` for a store that is no bucket, and for a bucket that does not take URLs signed here.
    """
    signer = _signer_of(url, endurance)
    _try_out(signer, url, endurance)
    return signer


def _signer_of(url: str, endurance: Endurance) -> Signer:
    if why := why_unsigned(url):
        raise InvalidSetting(why)
    return S3Signer(url, endurance) if url.startswith("s3:") else ObstoreSigner(url, endurance)


def _try_out(signer: Signer, url: str, endurance: Endurance) -> None:
    path, data, wire = f".probe/{secrets.token_hex(12)}", b"signed", wire_of(endurance)
    digest = hashlib.sha256(data).hexdigest()

    def ask(method: str, signed: SignedUrl, body: bytes = b"") -> Answer:
        try:
            return wire.send(method, signed.url, signed.headers, memoryview(body), current_watch())
        except Silence as error:
            raise unanswered(url, path, error) from None

    try:
        put = ask("PUT", signer.put(path, len(data), digest, _PROBED_S), data)
        if put.status in (400, 501) and isinstance(signer, S3Signer) and not clock_fault(put.content):
            signer.has_checksums = False
            put = ask("PUT", signer.put(path, len(data), digest, _PROBED_S), data)
        got = ask("GET", signer.get(path, _PROBED_S))
        for method, answer in (("PUT", put), ("GET", got)):
            if answer.status >= 300:
                code = f" ({code})" if (code := code_in(answer.content)) else ""
                why = clock_fault(answer.content) or f"it answered {answer.status}{code} to {method}"
                raise InvalidSetting(f"--signed-urls: the store {url} does not take URLs that are signed here: {why}")
        if got.content != data:
            raise InvalidSetting(f"--signed-urls: the store {url} gives other bytes than a signed URL has written")
    finally:
        with contextlib.suppress(Exception):
            Bucket(url, endurance).writing.delete(path)


class S3Signer:
    """Signs URLs for an S3 bucket, or a service with its protocol."""

    has_parts = True

    def __init__(self, url: str, endurance: Endurance) -> None:
        self._requests = S3Requests(Bucket(url, endurance))
        self.has_checksums = True
        """Whether the service takes the digest of what is written, as a header that it verifies."""
        try:
            is_signed = "X-Amz-Signature=" in self.get(".probe/0", _PROBED_S).url
        except StoreError:
            is_signed = False
        if not is_signed:
            raise InvalidSetting(
                f"--signed-urls: there are no credentials here to sign URLs of {url} with: set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, and no AWS_SKIP_SIGNATURE"
            )

    def get(self, path: str, expires_s: int) -> SignedUrl:
        """See `Signer`."""
        return SignedUrl(self._requests.signed("get_object", _key(path), expires_s))

    def put(self, path: str, size_bytes: int, digest: str, expires_s: int) -> SignedUrl:
        """See `Signer`. Size, digest and condition are headers that the signature covers."""
        words: dict[str, Any] = {"IfNoneMatch": "*", "ContentLength": size_bytes}
        headers = {"If-None-Match": "*"}
        if self.has_checksums:
            checksum = base64.b64encode(bytes.fromhex(digest)).decode()
            words["ChecksumSHA256"] = headers["x-amz-checksum-sha256"] = checksum
        return SignedUrl(self._requests.signed("put_object", _key(path), expires_s, **words), headers)

    def begin(self, path: str, size_bytes: int) -> tuple[str, frozenset[int]]:
        """See `Signer`. The bucket itself knows what has begun, so that no process needs notes on it."""
        key = _key(path)
        begun = [upload for each, upload in itertools.islice(self._requests.uploads(key), _MOST_UPLOADS) if each == key]
        for upload in begun:
            with contextlib.suppress(ObjectMissing):  # it was ended since
                return upload, frozenset(self._listed(key, upload, size_bytes))
        return self._requests.again(key, "create_multipart_upload")["UploadId"], frozenset()

    def parts(
        self, path: str, upload: str, numbers: Iterable[int], size_bytes: int, expires_s: int
    ) -> Sequence[SignedUrl]:
        """See `Signer`."""
        sizes, signed = sizes_of_parts(size_bytes, part_bytes_of(size_bytes)), list[SignedUrl]()
        for number in numbers:
            words = {"UploadId": upload, "PartNumber": number, "ContentLength": sizes[number - 1]}
            signed.append(SignedUrl(self._requests.signed("upload_part", _key(path), expires_s, **words)))
        return signed

    def complete(self, path: str, upload: str, size_bytes: int) -> frozenset[int] | None:
        """See `Signer`."""
        key, count = _key(path), len(sizes_of_parts(size_bytes, part_bytes_of(size_bytes)))
        try:
            found = self._listed(key, upload, size_bytes)
            if len(found) < count:
                return frozenset(found)
            parts = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(found.items())]
            self._completed(key, UploadId=upload, MultipartUpload={"Parts": parts})
        except ObjectMissing:  # the answer to an earlier request may have been lost
            if self._requests.again(key, "head_object")["ContentLength"] != size_bytes:
                raise
        except ObjectExists:  # its name has the digest in it, so it has the same bytes, or its site has put others
            self._requests.again(key, "abort_multipart_upload", UploadId=upload)
        return None

    def _completed(self, key: str, **words: Any) -> None:
        try:
            self._requests.again(key, "complete_multipart_upload", IfNoneMatch="*", **words)
        except StoreUnavailable as error:
            if not error.refused.startswith(("400", "501")):
                raise
            self._requests.again(key, "complete_multipart_upload", **words)  # a service without this condition

    def _listed(self, key: str, upload: str, size_bytes: int) -> dict[int, str]:
        """Return the ETags of the parts that the bucket has, whole, by number."""
        sizes, found = sizes_of_parts(size_bytes, part_bytes_of(size_bytes)), dict[int, str]()
        for part in self._requests.parts(key, upload):
            number = int(part["PartNumber"])
            if number <= len(sizes) and part["Size"] == sizes[number - 1]:
                found[number] = part["ETag"]
        return found

    def abort(self, prefix: str, *, keeps: Callable[[str], bool]) -> None:
        """See `Signer`."""
        for path, upload in list(self._requests.uploads(prefix)):
            if path.startswith(prefix) and not keeps(path):
                with contextlib.suppress(ObjectMissing):
                    self._requests.again(path, "abort_multipart_upload", UploadId=upload)


class ObstoreSigner:
    """Signs URLs for Google Cloud Storage and Azure, with obstore. They bind an object's name, and nothing more."""

    has_parts = False

    def __init__(self, url: str, endurance: Endurance) -> None:
        self._bucket = Bucket(url, endurance)

    def get(self, path: str, expires_s: int) -> SignedUrl:
        """See `Signer`."""
        return self._signed("GET", path, expires_s)

    def put(self, path: str, size_bytes: int, digest: str, expires_s: int) -> SignedUrl:
        """See `Signer`."""
        signed = self._signed("PUT", path, expires_s)
        if self._bucket.url.startswith("az:"):
            return SignedUrl(signed.url, {"x-ms-blob-type": "BlockBlob", "If-None-Match": "*"})
        return signed

    def _signed(self, method: Any, path: str, expires_s: int) -> SignedUrl:
        import obstore

        key, url = _key(path), self._bucket.url
        try:
            with self._bucket.translated(key):
                return SignedUrl(obstore.sign(self._bucket.writing, method, key, timedelta(seconds=expires_s)))
        except StoreError as error:
            raise InvalidSetting(
                f"--signed-urls: URLs of {url} cannot be signed with the credentials here ({error}): for Google Cloud, "
                "give the key of a service account; for Azure, an account key"
            ) from None

    def begin(self, path: str, size_bytes: int) -> tuple[str, frozenset[int]]:
        """See `Signer`."""
        raise NotImplementedError

    def parts(
        self, path: str, upload: str, numbers: Iterable[int], size_bytes: int, expires_s: int
    ) -> Sequence[SignedUrl]:
        """See `Signer`."""
        raise NotImplementedError

    def complete(self, path: str, upload: str, size_bytes: int) -> frozenset[int] | None:
        """See `Signer`."""
        raise NotImplementedError

    def abort(self, prefix: str, *, keeps: Callable[[str], bool]) -> None:
        """See `Signer`."""


def _key(path: str) -> str:
    return path if _PROBE.fullmatch(path) else checked_path(path)


def part_bytes_of(size_bytes: int) -> int:
    """Return the size of the parts of an object of this size."""
    return max(PART_BYTES, -(-size_bytes // MOST_PARTS))
