"""Find kinds of checkpoints by name: those that are built in, and those of installed packages."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from collections.abc import Mapping
from typing import Any

from flavor.checkpoints.kind import CheckpointKind
from flavor.checkpoints.opaque import Opaque
from flavor.checkpoints.tensors import Tensors
from flavor.errors import InvalidSetting
from flavor.plugins import names, one_line, points

GROUP = "flavor.checkpoints"
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,16}")
TENSORS: CheckpointKind = Tensors()
"""The kind of a run that names none."""
OPAQUE: CheckpointKind = Opaque()
_BUILT_IN = {kind.name: kind for kind in (TENSORS, OPAQUE)}
BUILT_IN = tuple(_BUILT_IN)
"""The names of the kinds that need no package of a third party."""


@functools.cache
def kind_named(name: str) -> CheckpointKind:
    """Return the kind of this name; imports a package only for its own kind.

    Raises `InvalidSetting`, in one line, for an unknown name, and for a package's kind that cannot be used.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    found = sorted(points(GROUP), key=lambda each: each[:2])
    for point_name, origin, point in found:
        if point_name != name or isinstance(point, str):
            continue
        try:
            with contextlib.redirect_stdout(sys.stderr):  # what it prints is no part of our output
                target = point.load()
                return _checked(target() if isinstance(target, type) else target, name)
        except (Exception, SystemExit) as error:  # foreign code runs here
            why = one_line(f"{error}" if isinstance(error, InvalidSetting) else f"{type(error).__name__}: {error}")
            raise InvalidSetting(f"checkpoints of the kind {name!r}: {origin}: {point.value}: {why}") from error
    raise _unknown(name)


def check_kind_name(name: str) -> None:
    """Raise `InvalidSetting` unless a kind of this name is built in or installed. No package is imported."""
    if name not in _BUILT_IN and name not in kind_names():
        raise _unknown(name)


def _unknown(name: str) -> InvalidSetting:
    there = ", ".join(kind_names())
    return InvalidSetting(
        f"there are no checkpoints of the kind {name[:80]!r} here, only: {there}; install the package that has them"
    )


def kind_names() -> tuple[str, ...]:
    """Return the names of the built-in kinds, then those of installed packages, without importing a package."""
    return names(GROUP, _BUILT_IN)


def kind_of_run(config: Mapping[str, Any]) -> CheckpointKind:
    """Return the kind in the configuration of an existing run; raises `InvalidSetting`."""
    return kind_named(str(config.get("checkpoint", TENSORS.name)))


def _checked(kind: object, name: str) -> CheckpointKind:
    if not isinstance(kind, CheckpointKind):
        members = (member for member in vars(CheckpointKind) if not member.startswith("_"))
        lacking = sorted(member for member in members if not hasattr(kind, member))
        raise InvalidSetting(f"it is no CheckpointKind: {', '.join(lacking)} is missing")
    if kind.name != name:
        raise InvalidSetting(f"its name is {kind.name!r}")
    if kind.wire_format not in kind.formats:
        raise InvalidSetting(f"its wire_format {kind.wire_format!r} is none of its formats")
    if not _EXTENSION.fullmatch(kind.object_extension):
        raise InvalidSetting(f"its object_extension {kind.object_extension!r} is not a dot and a few letters or digits")
    return kind
