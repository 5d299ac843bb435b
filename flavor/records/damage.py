"""Translate what cannot be read of a record into one error. An administrator of Redis can write anything there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from flavor.errors import DamagedRecord
from flavor.records.names import count

Value = TypeVar("Value")


@contextlib.contextmanager
def damage_in(what: str) -> Iterator[None]:
    """Raise `DamagedRecord`, which names `what`, for an error in the body about a value of another party."""
    try:
        yield
    except DamagedRecord as error:
        raise DamagedRecord(f"{what}: {error}") from None
    except KeyError as error:
        raise DamagedRecord(f"{what}: it lacks {error.args[0]!r:.60}") from None
    except RecursionError:
        raise DamagedRecord(f"{what}: it is nested too deeply") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise DamagedRecord(f"{what}: {str(error)[:200]}") from None


def field_of(fields: Mapping[str, str], name: str, read: Callable[[str], Value], default: str | None = None) -> Value:
    """Read the field `name` of a hash, or `default` where it is missing; raise `DamagedRecord`, which names the field.

    Without a default, a missing field is damage.
    """
    text = fields.get(name, default)
    if text is None:
        raise DamagedRecord(f"field {name!r} is missing")
    with damage_in(f"field {name!r}"):
        return read(text)


def optional_of(fields: Mapping[str, str], name: str, read: Callable[[str], Value]) -> Value | None:
    """Read a field as `field_of` does; None where it is missing."""
    return field_of(fields, name, read) if name in fields else None


def number(text: str) -> int:
    """Read a number: plain decimal digits of bounded length."""
    value = count(text)
    if value is None:
        raise ValueError(f"{text[:40]!r} is no number")
    return value


def table(text: str) -> dict[str, Any]:
    """Read a JSON object."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"it is no JSON object: {text[:40]}")
    return value


def texts_by_name(text: str) -> dict[str, str]:
    """Read a JSON object of texts. Lua writes an empty one as it writes an empty list."""
    value = json.loads(text) or {}
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ValueError(f"it is no JSON object of texts: {text[:40]}")
    return value


def numbers_by_name(text: str) -> dict[str, int]:
    """Read a JSON object of whole numbers >= 0. Lua writes an empty one as it writes an empty list."""
    value = json.loads(text) or {}
    if not isinstance(value, dict) or not all(type(each) is int and each >= 0 for each in value.values()):
        raise ValueError(f"it is no JSON object of numbers: {text[:40]}")
    return value


def texts(text: str) -> tuple[str, ...]:
    """Read a JSON list of texts. Lua writes an empty one as it writes an empty object."""
    value = json.loads(text) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"it is no JSON list of texts: {text[:40]}")
    return tuple(value)
