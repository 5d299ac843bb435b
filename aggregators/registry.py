"""Algorithms by name: what an operator writes on a command line, and the objects behind it.

A rule is `NAME` or `NAME:OPTION=VALUE,OPTION=VALUE`; `norm_clip` goes before another with a slash, as in
`norm_clip:c=median/trimmed_mean:f=2`. Third parties add theirs: `aggregators.plugins`.
"""

from __future__ import annotations

from typing import Any

from aggregators.catalogue import ENTRIES
from aggregators.clip import NormClip
from aggregators.entry import Algorithm, Entry
from aggregators.plugins import entries, literal
from aggregators.protocols import ServerStep
from aggregators.server import Replace
from flavor.errors import AggregationError, InvalidSetting

_ARTICLES = {"alias": "an aggregator", "reducer": "an aggregator", "server step": "a server step"}
_BUILTIN = {entry.name: entry for entry in ENTRIES}


def catalogue() -> tuple[Entry, ...]:
    """Return all that can be named: aliases, reducers, server steps, then those of third parties, which it imports.

    What third parties offer and cannot be used is there too, with its reason.
    """
    return (*ENTRIES, *entries(frozenset(_BUILTIN)))


def parse(text: str, server_step: str | None = None) -> Algorithm:
    """Return the algorithm written as `text`, an alias or a reducer, with the server step written so.

    `server_step` defaults to the alias's own, else to `replace`.

    Raises:
        InvalidSetting: one line that names what is wrong and lists what exists.

    """
    head, slash, behind = text.partition("/")
    built = _build(head, ("alias", "reducer"), "aggregator")
    if slash:
        if not isinstance(built, NormClip):
            raise InvalidSetting(f"{text!r}: only norm_clip can go before another aggregator")
        rest = parse(behind)
        built = Algorithm(NormClip(built.c, rest.reducer), rest.server_step)
    algorithm = built if isinstance(built, Algorithm) else Algorithm(built, Replace())
    if server_step is None:
        return algorithm
    return Algorithm(algorithm.reducer, parse_server_step(server_step))


def parse_server_step(text: str) -> ServerStep:
    """Return the server step written as `text`, like `nesterov:lr=0.7`; raises `InvalidSetting`."""
    step: ServerStep = _build(text, ("server step",), "server step")
    return step


def _build(text: str, kinds: tuple[str, ...], what: str) -> Any:
    name, _, tail = text.partition(":")
    entry = _find(name)
    if entry is not None and entry.kind == "unusable":
        raise InvalidSetting(f"{text!r}: {entry.description}")
    if entry is None or entry.kind not in kinds:
        there = ", ".join(entry.name for entry in catalogue() if entry.kind in kinds)
        hint = "" if entry is None else f"; {name!r} is {_ARTICLES[entry.kind]}"
        raise InvalidSetting(f"unknown {what} {name!r}; there are: {there}{hint}")
    options: dict[str, Any] = {}
    for part in tail.split(",") if tail else []:
        option, equals, value = part.partition("=")
        if not equals or (entry.options is not None and option not in entry.options) or option in options:
            raise InvalidSetting(f"{text!r}: bad option {part!r}; write {entry.usage}")
        convert = literal if entry.options is None else entry.options[option]
        try:
            options[option] = convert(value)
        except ValueError:
            raise InvalidSetting(f"{text!r}: {value!r} does not fit {option}; write {entry.usage}") from None
    if missing := [option for option in entry.required if option not in options]:
        raise InvalidSetting(f"{text!r}: {', '.join(missing)} is missing; write {entry.usage}")
    try:
        return entry.build(**options)
    except (AggregationError, TypeError) as error:
        raise InvalidSetting(f"{text!r}: {error}") from error


def _find(name: str) -> Entry | None:
    """The entry of this name; third parties' code is imported only where it is theirs."""
    return _BUILTIN.get(name) or next(entries(frozenset(_BUILTIN), only=name), None)
