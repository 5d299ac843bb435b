"""Which 32 bytes are a public key of Ed25519 that binds its owner.

Each of the eight points of small order verifies signatures that fit every message, or one message in a few: a party
that announces such a point as its key has signed everything. A coordinate of p or more is a second spelling of another
key. Libraries accept both (RFC 8032 leaves the check to its users).
"""

from __future__ import annotations

from functools import lru_cache

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_EIGHTH = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
_SMALL_ORDER = frozenset({0, 1, _P - 1, _EIGHTH, _P - _EIGHTH})
"""The y of the points of order 4, 1, 2, 8 and 8; each x belongs to two of them, or is 0."""


@lru_cache(maxsize=4096)
def key_problem(raw: bytes) -> str:
    """Return what is wrong with a public key; '' for a usable key."""
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if len(raw) != 32 or y >= _P:
        return "it is not spelled as RFC 8032 asks"
    if y in _SMALL_ORDER:
        return "it is a point of small order, whose signatures fit every message"
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if pow(square, (_P - 1) // 2, _P) != 1:
        return "it is no point of the curve"
    return ""
