"""Find what installed packages add to this project by entry points, without importing any of it.

A damaged list of entry points costs only its own package, which is named with the reason. All others are found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint


def points(group: str) -> Iterator[tuple[str, str, EntryPoint | str]]:
    """Yield name, package and entry point; for a package whose list cannot be read, the reason instead."""
    from importlib.metadata import distributions  # costs milliseconds, and few processes look for plug-ins

    packages: set[str] = set()
    for package in distributions():
        if group not in _text(package):  # cheaper than name and version, and enough for nearly all packages
            continue
        name = package.name or "a package without a name"
        if name in packages:  # a copy further down the path, which is not the imported one
            continue
        packages.add(name)
        origin = f"{name} {package.version}"
        try:
            for point in package.entry_points.select(group=group):
                yield point.name, origin, point
        except Exception as error:  # importlib.metadata meets damaged files with all kinds of exception
            yield name, origin, f"its entry points cannot be read: {one_line(f'{type(error).__name__}: {error}')}"


def names(group: str, built_in: Iterable[str]) -> tuple[str, ...]:
    """Return the `built_in` names, then those that packages add to the group, by name; no package is imported."""
    added = sorted(name for name, _, point in points(group) if not isinstance(point, str))
    return tuple(dict.fromkeys((*built_in, *added)))


def _text(package: Distribution) -> str:
    try:
        return package.read_text("entry_points.txt") or ""
    except Exception:  # not even text
        return ""


def one_line(text: str) -> str:
    """Return the first line of a text."""
    return text.strip().partition("\n")[0].strip()
