"""Rules from entry points: those of `aggregators.catalogue`, then those of installed packages.

An entry point of the group `flavor.aggregators` is a name and a class. The class tells what it is:

- a reducer has `check` and `plan`, see `aggregators.protocols.Reducer`;
- a server step has `slots` and `step`, see `aggregators.protocols.ServerStep`;
- a subclass of `aggregators.algorithms.Algorithm` is a reducer with a server step.

The options on a command line are the keyword arguments of the constructor, converted by their annotations: int, float,
bool, str, `Literal`, and unions of them. Without such an annotation a value becomes the first of int, float and text
that fits. An argument annotated as `Reducer` is no option. `flavor aggregators` shows the first line of the docstring,
and the attributes `source` and `condition`.

An entry point that is damaged, cannot be imported or is no rule becomes an entry that says why. All others still work.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from typing import Any

from aggregators.algorithms import Algorithm
from aggregators.catalogue import BUILT_IN, GROUP
from aggregators.entry import Convert, Entry, EntryKind
from aggregators.protocols import Reducer, ServerStep
from flavor.errors import AggregationError
from flavor.plugins import one_line, points

_OWN = "flavor"
"""The origin of the rules of this package."""


def entries(only: str | None = None) -> Iterator[Entry]:
    """Yield every entry: those of this package, then those of installed packages, by name.

    `only` yields the entries of one name and imports no other. A name that another entry has already is unusable.
    """
    seen: set[str] = set()
    for name, origin, point in _points():
        if only is None or name == only:
            yield _unusable(name, origin, point) if isinstance(point, str) else _entry(point, origin, seen)
            seen.add(name)


def _points() -> Iterator[tuple[str, str, EntryPoint | str]]:
    for point in BUILT_IN:
        yield point.name, _OWN, point
    yield from sorted(points(GROUP), key=lambda found: found[:2])


def _entry(point: EntryPoint, origin: str, seen: set[str]) -> Entry:
    if point.name in seen:
        return _unusable(point.name, origin, f"{point.value}: there is a rule of this name already")
    if odd := sorted(set(point.name) & set(":/,=")):
        return _unusable(point.name, origin, f"{point.value}: {odd[0]!r} cannot stand in a name")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # a package may print, and stdout is for data
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
    except (Exception, SystemExit) as error:  # foreign code runs here
        return _unusable(point.name, origin, f"{point.value} cannot be used: {_line(error)}")


def _kind(target: object) -> EntryKind:
    if not inspect.isclass(target):
        raise AggregationError(f"it is a {type(target).__name__}, not a class")
    if issubclass(target, Algorithm):
        return "alias"
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
    named = [
        parameter
        for parameter in parameters
        if parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
        and parameter.annotation is not Reducer
    ]
    options = {parameter.name: _convert(parameter.annotation) for parameter in named}
    return options, tuple(parameter.name for parameter in named if parameter.default is parameter.empty)


class _Builder:
    """Makes an object of the class, and checks that it has the members of its protocol."""

    def __init__(self, target: type, value: str, kind: EntryKind) -> None:
        self._target, self._value, self._kind = target, value, kind
        self.__signature__ = inspect.signature(target)  # for the defaults in `Entry.usage`

    def __call__(self, **options: Any) -> Reducer | ServerStep | Algorithm:
        try:
            rule: Reducer | ServerStep | Algorithm = self._target(**options)
        except AggregationError:
            raise
        except Exception as error:
            raise AggregationError(f"{self._value}: {_line(error)}") from error
        if self._kind == "alias":
            return rule
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
    """Return `text` as the first of int, float and text that fits."""
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


def _convert(annotation: object) -> Convert:
    """Return the conversion to an annotated type; it raises `ValueError` for a text that does not fit."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        values = {str(value): value for value in arguments}
        return lambda text: values[text] if text in values else _refuse(text)
    if origin in (typing.Union, types.UnionType):
        converts = [_convert(argument) for argument in arguments if argument is not type(None)]
        return lambda text: _first_that_fits(converts, text)
    return _CONVERT.get(annotation, literal)


def _first_that_fits(converts: list[Convert], text: str) -> Any:
    for convert in converts:
        with contextlib.suppress(ValueError):
            return convert(text)
    return _refuse(text)


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _line(error: BaseException) -> str:
    return one_line(f"{error}" if isinstance(error, AggregationError) else f"{type(error).__name__}: {error}")
