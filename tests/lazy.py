"""Imports a library when a test first uses it, and not in each session that collects the tests."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class Lazy:
    """A library under its name: the names that do not begin with `_` are the library's."""

    def __init__(self, library: str) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest looks for its own marks
            raise AttributeError(name)
        return getattr(importlib.import_module(self._library), name)


def library_of(module: ModuleType) -> str:
    """The library that a module imports so; the first of several, '' if there is none."""
    named = [each._library for each in vars(module).values() if isinstance(each, Lazy)]
    return named[0].partition(".")[0] if named else ""
