"""The option `--round NUMBER|last|best` of commands about one global model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from flavor.errors import RunError
from flavor.records.run import RunView

BEST = -1
"""The value of `--round best`."""
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _round(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    if value == "last":
        return None
    if value == "best":
        return BEST
    if not value.isdigit() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither a number from 1 on nor 'last' nor 'best'")
    return int(value)


def round_option(help_: str) -> Callable[[_Function], _Function]:
    """Add `--round` as the argument `round_`: a number, `BEST`, or None for the newest."""
    return click.option(
        "--round",
        "round_",
        metavar="NUMBER|last|best",
        default="last",
        show_default=True,
        callback=_round,
        help=help_,
    )


def best_of(view: RunView) -> int:
    """Return the round that `--round best` names. Raises `RunError` where no round is the best."""
    if view.best is None:
        select = view.config.get("select")
        why = f"no evaluation has had a value for its --select {select}" if select else "it was begun without --select"
        raise RunError(f"run {view.run!r} has no best round: {why}")
    return view.best.round
