"""Notes on a round that are told once in a run, and not in each round that gives cause for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_MOST = 1000
"""Causes that are remembered, the newest ones."""


class Once(str):
    """A note that is told once for its `cause`: a short text that is the same whenever the note would repeat itself."""

    __slots__ = ("cause",)
    cause: str

    def __new__(cls, text: str, cause: str) -> Once:
        """Make a note."""
        made = super().__new__(cls, text)
        made.cause = cause
        return made


def untold(notes: Iterable[str], told: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the notes without those whose cause was `told` in an earlier round, and what is told from now on."""
    left: list[str] = []
    causes = dict.fromkeys(told)
    for note in notes:
        if isinstance(note, Once):
            if note.cause in causes:
                continue
            causes[note.cause] = None
        left.append(note)
    return tuple(left), tuple(causes)[-_MOST:]
