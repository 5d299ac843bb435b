"""Canonical JSON: one spelling for a value, so that signed or hashed bytes can be written again anywhere."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> bytes:
    """`value` as JSON: keys sorted, no spaces, ASCII alone (`\\uXXXX` for the rest), no NaN or infinity.

    Raises `ValueError` for a number that JSON does not have.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def sha256(data: bytes) -> str:
    """The SHA-256 of `data`, in hex."""
    return hashlib.sha256(data).hexdigest()
