"""What the script `read_hashes` does, in plain commands: for users of Redis that may run no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from flavor.bus.connection import Redis

_MOST_FIELDS = 64
"""Of a hash with more fields, the size takes long to find out."""
_NOTHING, _NO_HASH = 0, 1


def plain_read_hashes(
    redis: Redis, hashes: Sequence[str], names: Sequence[str], others: Sequence[str], *, most_bytes: int
) -> list[Any]:
    """Return the fields `names` of hashes that other parties write, as `read_hashes` does: see there for the values.

    Asks for sizes first, so that no field is read that is too large. A field that grows in between is read, up to the
    largest value that the server takes.
    """
    asked = [("TYPE", key) for key in hashes] + [("HLEN", key) for key in hashes] + [("PTTL", key) for key in others]
    told = _answers(redis, asked)
    kinds, lengths, left = told[: len(hashes)], told[len(hashes) : 2 * len(hashes)], told[2 * len(hashes) :]
    found: dict[str, Any] = {
        key: _NOTHING if kind == "none" else _NO_HASH for key, kind in zip(hashes, kinds, strict=True) if kind != "hash"
    }
    few = [  # one that has become no hash since has an error for its length
        key
        for key, length in zip(hashes, lengths, strict=True)
        if key not in found and isinstance(length, int) and length <= _MOST_FIELDS
    ]
    sizes = _answers(redis, [("MEMORY", "USAGE", key, "SAMPLES", "0") for key in few])
    small = {key for key, size in zip(few, sizes, strict=True) if isinstance(size, int) and size <= most_bytes}
    unsure = [key for key in dict.fromkeys(hashes) if key not in found and key not in small]
    lengths = _answers(redis, [("HSTRLEN", key, name) for key in unsure for name in names])
    for at, key in enumerate(unsure):
        of_fields = lengths[at * len(names) : (at + 1) * len(names)]
        large = [name for name, length in zip(names, of_fields, strict=True) if _is_over(length, most_bytes)]
        found |= {key: large[0]} if large else {}
    rest = [key for key in dict.fromkeys(hashes) if key not in found]
    for key, values in zip(rest, _answers(redis, [("HMGET", key, *names) for key in rest]), strict=True):
        found[key] = values if isinstance(values, list) else _NO_HASH  # it has become something else since
    return [*(found[key] for key in hashes), *(_left_ms(answer) for answer in left)]


def _answers(redis: Redis, commands: Sequence[tuple[str, ...]]) -> list[Any]:
    """Send all commands at once, and return the answers; an error for a command that does not fit the key's type."""
    if not commands:
        return []
    with redis.pipeline(transaction=False) as step:
        for command in commands:
            step.execute_command(*command)
        answers: list[Any] = step.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception) and (
            isinstance(answer, NoPermissionError) or not isinstance(answer, ResponseError)
        ):
            raise answer
    return answers


def _is_over(length: Any, most_bytes: int) -> bool:
    return isinstance(length, int) and length > most_bytes


def _left_ms(answer: Any) -> int:
    """Return how long a key lives, as the script says it: PTTL says -2 for a key that is not there."""
    return {-2: 0, 0: 1}.get(answer, int(answer))
