"""Which image some bytes are, and of what size: PNG and JPEG alone, by their content.

Only the header is read, and nothing is decoded: a browser decodes the image later, so that the number of its pixels has
to be bounded. Sources: PNG (ISO/IEC 15948), 5.2 and 11.2.2; JPEG (ITU-T T.81), annex B.1.1.3 and B.2.2.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MOST_PIXELS = 16 * 2**20
"""Of one image: it takes 64 MiB where it is shown."""
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of JPEG that begin a frame, which has the size."""
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers without a segment."""


class Picture(NamedTuple):
    """What the header of an image says."""

    extension: str
    """`.png` or `.jpg`."""
    width: int
    """In pixels."""
    height: int


def picture_of(data: bytes) -> Picture:
    """Return what these bytes are. Raises `ValueError`, which says in words for their author what is wrong."""
    if data.startswith(_PNG):
        found = _png(data)
    elif data.startswith(_JPEG):
        found = _jpeg(data)
    else:
        raise ValueError("is neither a PNG nor a JPEG image, by its content")
    if not 0 < found.width * found.height <= MOST_PIXELS:
        raise ValueError(
            f"has {found.width} × {found.height} pixels, and {MOST_PIXELS} at most are taken: make it smaller"
        )
    return found


def _png(data: bytes) -> Picture:
    if len(data) < 33 or data[8:16] != b"\0\0\0\x0dIHDR":
        raise ValueError("is not a whole PNG image")
    return Picture(".png", *struct.unpack(">II", data[16:24]))


def _jpeg(data: bytes) -> Picture:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _ALONE:
            at += 2
            continue
        if marker in _FRAMES and at + 9 <= len(data):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return Picture(".jpg", width, height)
        length = int.from_bytes(data[at + 2 : at + 4])
        if length < 2:
            break
        at += 2 + length
    raise ValueError("is not a whole JPEG image")
