"""Loads configurations and updates from JSON files. An error is one line that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from flavor.errors import MisuseError

Model = TypeVar("Model", bound=BaseModel)


class NoSuchFile(MisuseError):
    """The file does not exist, or cannot be read."""


def load(path: Path, model: type[Model]) -> Model:
    """Load a `model` from the JSON file at `path`. Raises `NoSuchFile`, `MisuseError` for invalid JSON or fields."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise NoSuchFile(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MisuseError(f"{path}: not a JSON file, which is text in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise MisuseError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise MisuseError(f"{path}: must hold a JSON object, not {_kind(value)}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise MisuseError(f"{path}: {explained(error)}") from None


def explained(error: ValidationError) -> str:
    """Describe a validation error in one line that names each bad field."""
    problems = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"])
        text = problem["msg"].removeprefix("Value error, ")
        given = problem["input"]
        shown = f" (given: {given!r})" if isinstance(given, str | int | float) else ""
        problems.append(f"{field}: {text[:1].lower()}{text[1:]}{shown}")
    return "; ".join(problems)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that JSON has")


def _kind(value: object) -> str:
    return {list: "a list", str: "a text", bool: "a truth value", type(None): "null"}.get(type(value), "a number")
