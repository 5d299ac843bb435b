"""Merge patches (RFC 7396) between two versions of a document, and a bounded memory of them."""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Mapping
from typing import Any

_MISSING = object()


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the patch that makes `after` of `before`; {} where nothing differs.

    A merge patch cannot write null: None removes a key. So a value of None and a key that is not there mean the same.
    """
    found: dict[str, Any] = {}
    for name, value in after.items():
        old = before.get(name, _MISSING)
        if old is value:
            continue
        if isinstance(value, dict) and isinstance(old, dict):
            if inner := merge_patch(old, value):
                found[name] = inner
        elif value != (None if old is _MISSING else old):
            found[name] = value
    for name, old in before.items():
        if name not in after and old is not None:
            found[name] = None
    return found


def patched(document: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document after the patch, as RFC 7396 has it."""
    found = dict(document)
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, dict):
            inner = found.get(name)
            found[name] = patched(inner if isinstance(inner, dict) else {}, value)
        else:
            found[name] = value
    return found


class Ring:
    """The newest patches of one document, with the version that each one makes; older ones are forgotten."""

    def __init__(self, version: int, *, most: int = 256, most_bytes: int = 2**20) -> None:
        self._since, self._most, self._most_bytes = version, most, most_bytes
        self._patches: deque[tuple[int, str]] = deque()  # as JSON, which takes a tenth of the room
        self._bytes = 0

    def add(self, version: int, patch: dict[str, Any]) -> None:
        """Remember a patch. One that is too large for the memory empties it."""
        text = json.dumps(patch, separators=(",", ":"))
        self._patches.append((version, text))
        self._bytes += len(text)
        while self._patches and (len(self._patches) > self._most or self._bytes > self._most_bytes):
            self._since, text = self._patches.popleft()
            self._bytes -= len(text)

    def after(self, version: int) -> list[tuple[int, dict[str, Any]]] | None:
        """Return the patches after this version, oldest first; None where some of them are forgotten."""
        if version < self._since:
            return None
        newer = list(itertools.takewhile(lambda each: each[0] > version, reversed(self._patches)))
        return [(number, json.loads(text)) for number, text in newer[::-1]]
