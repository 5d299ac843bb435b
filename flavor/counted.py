"""Write numbers of things for people, with the noun and the verb that fit the number."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: `1 round`, `2 rounds`, `0 closed rounds`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def are(number: int) -> str:
    """Return the verb for so many things: `is` or `are`."""
    return "is" if number == 1 else "are"
