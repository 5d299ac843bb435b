"""What an evaluator has left in `$OUTPUT_PATH`: its result.json, and the images that it names.

The evaluator is the site's own, and its files become those of others. So no link is followed, whether it is the file
itself or a folder on the way to it, and nothing but a plain file is read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from flavor.errors import InvalidReport, NoResult
from flavor.records.evaluated_info import with_report, without_report
from flavor.records.evaluation_report import (
    FILE_NAME,
    MAX_BYTES,
    MOST_IMAGE_BYTES,
    MOST_IMAGES_BYTES,
    Image,
    Report,
)
from flavor.records.images import picture_of
from flavor.records.info import Info, read_info
from flavor.records.report_parser import parse_report


@dataclass(frozen=True)
class Written:
    """What an evaluator has written."""

    report: Report
    """With digest, size and extension of each image."""
    data: bytes
    """The report as it is handed in."""
    images: dict[str, bytes]
    """The images by their digests."""

    @property
    def digest(self) -> str:
        """SHA-256 of the report as it is handed in, in hex."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Of the report and its images."""
        return len(self.data) + sum(map(len, self.images.values()))


def clear_result(output: Path) -> None:
    """Remove the result.json of an earlier evaluation, which would be taken for that of the next one."""
    (output / FILE_NAME).unlink(missing_ok=True)


def read_measured(output: Path, info: Path, round_: int) -> tuple[Info, Written | None]:
    """Read what an evaluator has measured of the model of `round_`: its result.json, the info.json at `info`, or both.

    Raises `InvalidInfo`, or `InvalidReport` for a result.json, where they cannot be used, contradict each other or are
    not there.
    """
    written = read_result(output)
    if written is not None:
        own = read_info(info) if info.exists() else None
        return with_report(own, written.report, round_, digest=written.digest), written
    if not info.exists():
        raise NoResult
    return without_report(read_info(info)), None


def read_result(output: Path) -> Written | None:
    """Read what the evaluator has written to its output folder; None where there is no result.json.

    Raises `InvalidReport`, which names the file or the field that cannot be used.
    """
    where = str(output / FILE_NAME)
    try:
        data = _read(output, FILE_NAME, MAX_BYTES)
    except FileNotFoundError:
        return None
    except _Refused as refused:
        raise InvalidReport(f"{where}: it {refused}") from None
    report = parse_report(data, where=where)
    images: dict[str, bytes] = {}
    sealed = [_sealed(output, image, where, number, images) for number, image in enumerate(report.images)]
    if (total := sum(image.size_bytes for image in sealed)) > MOST_IMAGES_BYTES:
        raise InvalidReport(f"{where}: results.images have {total} bytes, and {MOST_IMAGES_BYTES} at most are taken")
    report = replace(report, images=tuple(sealed))
    return Written(report, report.to_bytes(), images)


def _sealed(output: Path, image: Image, where: str, number: int, images: dict[str, bytes]) -> Image:
    place = f"{where}: results.images[{number}].filename {image.filename[:80]!r}"
    try:
        data = _read(output, image.filename, MOST_IMAGE_BYTES)
        picture = picture_of(data)
    except FileNotFoundError:
        raise InvalidReport(f"{place}: there is no such file in $OUTPUT_PATH") from None
    except (_Refused, ValueError) as refused:
        raise InvalidReport(f"{place}: it {refused}") from None
    digest = hashlib.sha256(data).hexdigest()
    images[digest] = data
    return replace(image, digest=digest, size_bytes=len(data), extension=picture.extension)


class _Refused(Exception):
    """Why a file is not read."""


def _read(folder: Path, name: str, most: int) -> bytes:
    """Return the bytes of a plain file within the folder. Raises `FileNotFoundError` and `_Refused`."""
    *above, last = name.split("/")
    with contextlib.ExitStack() as handles:
        try:
            handle: int | None = None
            for number, part in enumerate((os.fspath(folder), *above)):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if number else 0)
                handle = os.open(part, flags, dir_fd=handle)
                handles.callback(os.close, handle)
            file = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handle)
            handles.callback(os.close, file)
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise _Refused("is no plain file")
            with open(file, "rb", closefd=False) as opened:
                data = opened.read(most + 1)
        except FileNotFoundError:
            raise
        except OSError as error:
            is_link = error.errno in (errno.ELOOP, errno.ENOTDIR)
            why = "is a link, or lies behind one" if is_link else f"cannot be read: {error.strerror}"
            raise _Refused(why) from None
    if len(data) > most:
        raise _Refused(f"has more than {most} bytes")
    return data
