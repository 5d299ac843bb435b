"""What a site asks of its run's coordinator where URLs are signed for it, and the coordinator's answer."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from flavor.errors import DamagedRecord
from flavor.records.objects import is_digest

MOST_WISH_BYTES = 4096
"""No wish is longer: the coordinator reads no more of one."""
MOST_PARTS = 9_000
"""Most parts of one upload: S3 takes 10,000."""
PARTS_AT_ONCE = 16
"""Most parts of an upload for which URLs are signed at once."""
_MOST_BYTES = 2**53
_LONGEST = 1024
_ID = re.compile(r"[0-9a-f]{16}")


class UrlUse(StrEnum):
    """What a site wishes to do."""

    GET = "get"
    """Read an object."""
    PUT = "put"
    """Write an object by one request."""
    BEGIN = "begin"
    """Begin to write an object in parts, or go on with that."""
    PARTS = "parts"
    """Write further parts of it."""
    COMPLETE = "complete"
    """Make the parts one object."""


@dataclass(frozen=True)
class UrlWish:
    """A site's wish for URLs of one object."""

    id: str
    """16 random hexadecimal digits, which the answer repeats."""
    use: UrlUse
    path: str
    size_bytes: int = 0
    digest: str = ""
    upload: str = ""
    """The id of an upload in parts, as an answer has named it."""
    parts: tuple[int, ...] = ()
    """The numbers of the parts to be written, counted from 1."""

    def to_text(self) -> str:
        """As the site writes it into Redis."""
        fields: dict[str, Any] = {"id": self.id, "use": self.use, "path": self.path}
        if self.use is not UrlUse.GET:
            fields |= {"size": self.size_bytes, "digest": self.digest}
        if self.upload and self.use is not UrlUse.GET:
            fields |= {"upload": self.upload, "parts": self.parts}
        return json.dumps(fields)

    @classmethod
    def parse(cls, text: str) -> UrlWish | None:
        """Read what a site has written; None for what is no wish."""
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(fields, dict):
            return None
        name, use, path = fields.get("id"), fields.get("use"), fields.get("path")
        size, digest, upload = fields.get("size", 0), fields.get("digest", ""), fields.get("upload", "")
        parts = fields.get("parts", [])
        is_sound = (
            isinstance(name, str)
            and _ID.fullmatch(name)
            and isinstance(use, str)
            and use in set(UrlUse)
            and _is_line(path)
            and _is_number(size, _MOST_BYTES)
            and (use == UrlUse.GET or is_digest(digest))
            and _is_line(upload)
            and isinstance(parts, list)
            and len(parts) <= PARTS_AT_ONCE
            and all(_is_number(part, MOST_PARTS) and part for part in parts)
        )
        if not is_sound:
            return None
        if use == UrlUse.GET:
            return cls(str(name), UrlUse.GET, str(path))
        return cls(str(name), UrlUse(str(use)), str(path), size, digest, upload, tuple(parts) if upload else ())


@dataclass(frozen=True)
class SignedUrl:
    """A URL for one request, and the headers that the request must have. A secret until it expires."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"url": self.url, "headers": dict(self.headers)}

    @classmethod
    def of(cls, value: Any) -> SignedUrl:
        """Read plain JSON values. Raises `DamagedRecord`."""
        url, headers = (value.get(name) for name in ("url", "headers")) if isinstance(value, dict) else (None, None)
        if not (isinstance(url, str) and url.isascii() and url.isprintable() and " " not in url):
            raise DamagedRecord("the coordinator's answer to a wish for URLs cannot be read")
        if not isinstance(headers, dict) or not all(_is_line(text) for pair in headers.items() for text in pair):
            raise DamagedRecord("the coordinator's answer to a wish for URLs cannot be read")
        return cls(url, headers)


@dataclass(frozen=True)
class UrlAnswer:
    """The coordinator's answer to one wish."""

    wish: str
    """The id of the wish."""
    urls: tuple[SignedUrl, ...] = ()
    """One for GET and PUT; for BEGIN and PARTS one for each part asked for, in this order."""
    expires_s: int = 0
    """For how long the URLs can be used after they were signed, in seconds."""
    refused: str = ""
    """Why there are none; '' where there are."""
    is_over: bool = False
    """Whether none is given because what they were for is over."""
    is_passing: bool = False
    """Whether none is given for a fault that can pass."""
    upload: str = ""
    """The upload in parts that was begun or found; '' where the object is to be written by one request."""
    part_bytes: int = 0
    """The size of each part but the last."""
    done: tuple[tuple[int, int], ...] = ()
    """The first and the last number of each series of parts that the store has."""
    is_complete: bool = False
    """Whether the object is there, whole."""

    def to_text(self) -> str:
        """As the coordinator writes it into Redis."""
        return json.dumps(
            {
                "wish": self.wish,
                "urls": [each.to_json() for each in self.urls],
                "expires_s": self.expires_s,
                "refused": self.refused,
                "is_over": self.is_over,
                "is_passing": self.is_passing,
                "upload": self.upload,
                "part_bytes": self.part_bytes,
                "done": self.done,
                "is_complete": self.is_complete,
            }
        )

    @classmethod
    def parse(cls, text: str) -> UrlAnswer:
        """Read what the coordinator has written. Raises `DamagedRecord`, which quotes nothing of it."""
        damaged = DamagedRecord("the coordinator's answer to a wish for URLs cannot be read")
        try:
            fields = json.loads(text)
            urls = tuple(SignedUrl.of(each) for each in fields["urls"])
            done = tuple((first, last) for first, last in fields["done"])
            upload, refused, wish = fields["upload"], fields["refused"], fields["wish"]
            expires_s, part_bytes = fields["expires_s"], fields["part_bytes"]
        except (ValueError, KeyError, TypeError, RecursionError, AttributeError):
            raise damaged from None
        numbers = [number for pair in done for number in pair]
        is_sound = (
            all(isinstance(each, str) for each in (upload, refused, wish))
            and all(_is_number(each, MOST_PARTS) and each for each in numbers)
            and _is_number(expires_s, _MOST_BYTES)
            and _is_number(part_bytes, _MOST_BYTES)
            and _is_line(upload)
            and not (upload and not part_bytes)
        )
        if not is_sound:
            raise damaged
        flags = {name: fields.get(name) is True for name in ("is_over", "is_passing", "is_complete")}
        shown = refused if refused.isprintable() else ascii(refused)
        return cls(wish, urls, expires_s, shown[:_LONGEST], upload=upload, part_bytes=part_bytes, done=done, **flags)

    def parts_done(self) -> set[int]:
        """Return the numbers of the parts that the store has."""
        return {number for first, last in self.done for number in range(first, last + 1)}


def series_of(numbers: Collection[int]) -> tuple[tuple[int, int], ...]:
    """Return the numbers as series: the first and the last one of each."""
    series: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if series and series[-1][1] == number - 1:
            series[-1] = (series[-1][0], number)
        else:
            series.append((number, number))
    return tuple(series)


def sizes_of_parts(size_bytes: int, part_bytes: int) -> Sequence[int]:
    """Return the size of each part of an object of this size."""
    full, rest = divmod(size_bytes, part_bytes)
    return [part_bytes] * full + ([rest] if rest else [])


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST and (not value or value.isprintable())


def _is_number(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most
