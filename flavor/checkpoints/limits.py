"""Limits on what a file may claim before it is refused unread: bounds against false headers."""

from __future__ import annotations

import math
from collections.abc import Sequence

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
MAX_TENSORS = 100_000
MAX_DEPTH = 64  # of nested dicts, lists and tuples
MAX_NODES = 500_000  # in one nested state_dict; shared references make a small pickle look endless
MAX_RANK = 32
MAX_NAME_CHARS = 4096  # of one tensor; names are quoted in messages, and paths of nested dicts become names
MAX_JSON_VALUES = 40 * MAX_TENSORS  # in a header; each costs far more memory than the byte or two that it may take
MAX_BYTES = 2**62  # of one tensor, far below where numpy's own arithmetic overflows
MAX_JSON_OBJECTS = 6 * MAX_TENSORS  # in a header, the nesting in its metadata included: each costs a microsecond

BOMB_RATIO = 100
BOMB_BYTES = 64 * 2**20


def is_bomb(claimed_bytes: int, stored_bytes: int) -> bool:
    """Return whether data of `stored_bytes` claim an implausible size when unpacked.

    Weights hardly compress, so more than 100 times is an attack. Below 64 MiB it does no harm and passes, because a
    fresh bias vector of zeros does compress well.
    """
    return claimed_bytes > BOMB_BYTES and claimed_bytes > BOMB_RATIO * stored_bytes


def check_json(text: bytes | str) -> None:
    """Raise ValueError before parsing a JSON text that would fill the memory: it has more values than any header."""
    if len(text) <= MAX_JSON_VALUES:
        return
    if isinstance(text, str):
        values = text.count(",") + text.count("[") + text.count("{")
    else:
        values = text.count(b",") + text.count(b"[") + text.count(b"{")
    if values > MAX_JSON_VALUES:
        raise ValueError(f"over {MAX_JSON_VALUES} values")


def is_shape(value: object) -> bool:
    """Return whether `value` is a list or tuple of up to 32 plain non-negative integers."""
    return (
        isinstance(value, list | tuple)
        and len(value) <= MAX_RANK
        and all(type(size) is int and size >= 0 for size in value)
    )


def elements(shape: Sequence[int]) -> int:
    """Return how many elements an array of this shape has."""
    return math.prod(shape)


def shape_bytes(shape: Sequence[int], itemsize: int) -> int | None:
    """Return the bytes of an array of this shape; None when no machine could hold its dimensions.

    An empty array whose other dimensions overflow is refused too, because numpy refuses it.
    """
    nonzero = itemsize
    for size in shape:
        nonzero *= size or 1
        if nonzero > MAX_BYTES:
            return None
    return 0 if 0 in shape else nonzero
