"""Rules by name: the text on a command line, and the objects that it stands for.

A rule is `NAME` or `NAME:OPTION=VALUE,OPTION=VALUE`. A reducer that is a `Prefix`, such as `norm_clip`, goes before
another rule with a slash: `norm_clip:c=median/trimmed_mean:f=2`.
"""

from __future__ import annotations

from typing import Any

from aggregators.algorithms import Algorithm
from aggregators.entry import Entry
from aggregators.entry_points import entries, literal
from aggregators.mean import Mean
from aggregators.protocols import Prefix, ServerStep, why_alone, why_no_step
from aggregators.server import Replace
from flavor.errors import AggregationError, InvalidSetting

_ARTICLES = {"alias": "an aggregator", "reducer": "an aggregator", "server step": "a server step"}


def catalogue() -> tuple[Entry, ...]:
    """Return an entry for each rule of this package, then for each rule of an installed package; imports all of them.

    A rule that cannot be used has an entry with the reason.
    """
    return tuple(entries())


def parse(text: str, server_step: str | None = None) -> Algorithm:
    """Return the algorithm that `text`, an alias or a reducer, and the text of a server step stand for.

    `server_step` defaults to the alias's own server step, else to `replace`.

    Raises:
        InvalidSetting: one line that names what is wrong and lists what exists, or says what does not go together.

    """
    head, slash, behind = text.partition("/")
    built = _build(head, ("alias", "reducer"), "aggregator")
    if slash:
        if not isinstance(built, Prefix):
            name = head.partition(":")[0]
            raise InvalidSetting(f"{text!r}: {name} cannot go before another aggregator, as norm_clip can")
        rest = parse(behind)
        if why := why_alone(rest.reducer):
            raise InvalidSetting(f"{text!r}: {why}")
        built = Algorithm(built.before(rest.reducer), rest.server_step)
    algorithm = built if isinstance(built, Algorithm) else Algorithm(built, Replace())
    if server_step is None:
        return algorithm
    step = parse_server_step(server_step)
    if not isinstance(step, Replace) and (why := why_no_step(algorithm.reducer)):
        raise InvalidSetting(f"{server_step!r} with {text!r}: {why}")
    return Algorithm(algorithm.reducer, step)


def averages(text: str) -> bool:
    """Return whether a rule makes the weighted mean of all updates, in which no single update can be seen."""
    return isinstance(parse(text).reducer, Mean)


def parse_server_step(text: str) -> ServerStep:
    """Return the server step that a text such as `nesterov:lr=0.7` stands for; raises `InvalidSetting`."""
    step: ServerStep = _build(text, ("server step",), "server step")
    return step


def _build(text: str, kinds: tuple[str, ...], what: str) -> Any:
    name, _, tail = text.partition(":")
    entry = next(entries(only=name), None)
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
        what = f"{text!r}: {', '.join(missing)} is missing; write {entry.usage} with a value after each ="
        raise InvalidSetting(f"{what}; `flavor aggregators` describes it")
    try:
        return entry.build(**options)
    except (AggregationError, TypeError) as error:
        raise InvalidSetting(f"{text!r}: {error}") from error
