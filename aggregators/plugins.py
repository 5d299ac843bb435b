"""Rules of third parties: what installed packages offer through the entry-point group `flavor.aggregators`.

An entry point is a name and a class; its methods tell what it is:

- `check` and `plan`: a reducer, see `aggregators.protocols.Reducer`;
- `slots` and `step`: a server step, see `aggregators.protocols.ServerStep`.

The options on a command line are the keyword arguments of its constructor, as int, float, bool or text where they are
annotated so, else as the first of int, float and text that fits. The first line of its docstring, and its attributes
`source` and `condition` where it has them, are what `flavor aggregators` shows.

Whatever is wrong with one, its metadata, its import, its class, is an entry that says so and breaks no other.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from typing import Any, Literal

from aggregators.entry import Convert, Entry
from aggregators.protocols import Reducer, ServerStep
from flavor.errors import AggregationError
from flavor.plugins import one_line, points

GROUP = "flavor.aggregators"


def entries(taken: frozenset[str], only: str | None = None) -> Iterator[Entry]:
    """Yield what installed packages offer, by name; of those called `only` if that is given, importing no other.

    A name that is `taken`, or that a package before it in the alphabet has already, is unusable.
    """
    seen = set(taken)
    for name, origin, point in sorted(points(GROUP), key=lambda found: found[:2]):
        if only is None or name == only:
            yield _unusable(name, origin, point) if isinstance(point, str) else _entry(point, origin, seen)
            seen.add(name)


def _entry(point: EntryPoint, origin: str, seen: set[str]) -> Entry:
    if point.name in seen:
        return _unusable(point.name, origin, f"{point.value}: there is a rule of this name already")
    if odd := sorted(set(point.name) & set(":/,=")):
        return _unusable(point.name, origin, f"{point.value}: {odd[0]!r} cannot stand in a name")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what it prints is no part of our output
            target = point.load()
        kind = _kind(target)
        options, required = _options(target)
        return Entry(
            point.name,
            kind,
            one_line(inspect.getdoc(target) or f"from {point.value}").rstrip("."),
            one_line(str(getattr(target, "source", origin))),
            one_line(str(getattr(target, "condition", "see there"))),
            _Builder(target, point.value, kind),
            options,
            required,
        )
    except (Exception, SystemExit) as error:  # it is foreign code that runs here
        return _unusable(point.name, origin, f"{point.value} cannot be used: {_line(error)}")


def _kind(target: object) -> Literal["reducer", "server step"]:
    if not inspect.isclass(target):
        raise AggregationError(f"it is a {type(target).__name__}, not a class")
    is_reducer = hasattr(target, "check") and hasattr(target, "plan")
    is_step = hasattr(target, "slots") and hasattr(target, "step")
    if is_reducer == is_step:
        which = "both a reducer and a server step" if is_step else "neither a reducer nor a server step"
        raise AggregationError(f"it is {which}: a reducer has check and plan, a server step slots and step")
    return "reducer" if is_reducer else "server step"


def _options(target: type) -> tuple[dict[str, Convert] | None, tuple[str, ...]]:
    parameters = inspect.signature(target, eval_str=True).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None, ()
    named = [p for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
    options = {parameter.name: _CONVERT.get(parameter.annotation, literal) for parameter in named}
    return options, tuple(parameter.name for parameter in named if parameter.default is parameter.empty)


class _Builder:
    """Makes the rule, and sees that it is one."""

    def __init__(self, target: type, value: str, kind: str) -> None:
        self._target, self._value, self._kind = target, value, kind
        self.__signature__ = inspect.signature(target)  # for the defaults in `Entry.usage`

    def __call__(self, **options: Any) -> Reducer | ServerStep:
        try:
            rule = self._target(**options)
        except Exception as error:
            raise AggregationError(f"{self._value}: {_line(error)}") from error
        protocol = Reducer if self._kind == "reducer" else ServerStep
        if not isinstance(rule, protocol):
            members = sorted(name for name in _members(protocol) if not hasattr(rule, name))
            raise AggregationError(f"{self._value} is no {self._kind}: {', '.join(members)} is missing")
        return rule


def _members(protocol: type) -> set[str]:
    return {name for name in vars(protocol) if not name.startswith("_")}


def _unusable(name: str, origin: str, reason: str) -> Entry:
    def build(**_: object) -> Any:
        raise AggregationError(reason)

    return Entry(name, "unusable", one_line(reason), origin, "", build, None)


def literal(text: str) -> int | float | str:
    """Return `text` as the first of int, float and text that it fits."""
    for convert in (int, float):
        with contextlib.suppress(ValueError):
            return convert(text)
    return text


def _truth(text: str) -> bool:
    truths = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in truths:
        raise ValueError(text)
    return truths[text.lower()]


_CONVERT: dict[object, Callable[[str], Any]] = {int: int, float: float, str: str, bool: _truth}


def _line(error: BaseException) -> str:
    return one_line(f"{error}" if isinstance(error, AggregationError) else f"{type(error).__name__}: {error}")
