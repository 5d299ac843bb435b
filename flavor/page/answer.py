"""Answers of the page's server: JSON, in which an error is one line with advice."""

from __future__ import annotations

import gzip
import json
import math
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

_LEAST_BYTES = 1000
"""A shorter answer is not compressed."""
_LEVEL = 4


def to_json(value: Any) -> bytes:
    """Encode plain values. A number that JSON does not have (NaN, infinity) becomes null: a browser refuses it."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", errors="replace")  # half of a surrogate pair, in a name that a site chose


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def answered(request: Request, value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with JSON, compressed where the browser takes that. Call it in a thread: a large answer takes time."""
    body, more = to_json(value), dict(headers or {})
    if len(body) >= _LEAST_BYTES and takes_gzip(request.headers.get("accept-encoding", "")):
        body, more["content-encoding"] = gzip.compress(body, _LEVEL, mtime=0), "gzip"
    return Response(
        body,
        status,
        {"cache-control": "no-store", "vary": "accept-encoding", **more},
        media_type="application/json",
    )


def refused(status: int, error: str, hint: str = "", *, headers: dict[str, str] | None = None) -> Response:
    """Answer that something is not possible: what, and what to do."""
    body = to_json({"error": error, "hint": hint})
    return Response(body, status, {"cache-control": "no-store", **(headers or {})}, media_type="application/json")


def takes_gzip(accepted: str) -> bool:
    """Whether the header Accept-Encoding names gzip, and not with weight 0."""
    for part in accepted.lower().split(","):
        name, _, weight = part.strip().partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
