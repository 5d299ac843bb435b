"""The result of looking into an update's file, for any kind of checkpoint."""

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
    """The file that was inspected."""
    note: str = ""
    """Text for the verdict's reason, after the size."""
    structure: str = ""
    """A digest that all updates share that can be aggregated together, in a round without a global model."""
    constants: tuple[str, ...] = ()
    """The tensors that hold infinities by design."""


class Look(Protocol):
    """Looks into the file of an update; raises `FlavorError` with the reason of a refusal."""

    def __call__(self, opened: Reading, path: str, handed_in: Update, size_bytes: int) -> Found:
        """Describe the object at `path`. The caller asks `opened` afterwards whether it changed."""


def check_submitted(path: str, found: str, digest: str) -> None:
    """Raise `DigestMismatch` unless an object has the digest with which it was handed in."""
    if found != digest:
        raise DigestMismatch(
            f"object {path} is not what was submitted: its SHA-256 is {found[:12]}… (a training script that still "
            "writes to its file after SetEvent('TrainFinished') has this effect, too)"
        )
