"""What a worker finds in an update when it looks into the file, whatever kind of checkpoint it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from flavor.errors import DigestMismatch
from flavor.records.objects import ObjectRef
from flavor.records.update import Update
from workers.reading import Reading


@dataclass(frozen=True)
class Found:
    """An update's file that can be aggregated."""

    object: ObjectRef
    """The file as it was looked at."""
    note: str = ""
    """What to say behind its size."""
    structure: str = ""
    """A digest that it shares with those that it can be aggregated with, in a round without a global model."""
    constants: tuple[str, ...] = ()
    """The tensors that hold infinities by design."""


class Look(Protocol):
    """Look into the file of an update; raises `FlavorError` with the reason of a refusal."""

    def __call__(self, opened: Reading, path: str, handed_in: Update, size_bytes: int) -> Found:
        """Say what the object at `path` holds. The caller asks `opened` afterwards whether it changed."""


def check_submitted(path: str, found: str, digest: str) -> None:
    """Raise `DigestMismatch` unless an object has the digest with which it was handed in."""
    if found != digest:
        raise DigestMismatch(f"object {path} is not what was submitted: its SHA-256 is {found[:12]}…")
