"""The options that name one global model, `--round NUMBER|last|best`, and one evaluation, `--evaluation`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flavor.errors import RunError

if TYPE_CHECKING:
    from flavor.bus.runs import RunStore
    from flavor.records.run import RunView

BEST = -1
"""The value of `--round best`."""
_Function = TypeVar("_Function", bound=Callable[..., Any])


def parse_round(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    """Read the value of an option that names a round."""
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
        callback=parse_round,
        help=help_,
    )


def parse_evaluation(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Read the value of an option that names one evaluation among several."""
    from flavor.records.evaluation import CENTRAL

    if value is None or value == "central":
        return CENTRAL if value else None
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise click.BadParameter(f"{value!r} is neither a number from 0 on nor 'central'")
    return int(value)


def evaluation_option(help_: str) -> Callable[[_Function], _Function]:
    """Add `--evaluation` as the argument `evaluation`: the number of an evaluation, or None."""
    return click.option("--evaluation", "evaluation", metavar="NUMBER|central", callback=parse_evaluation, help=help_)


def best_of(runs: RunStore, view: RunView) -> int:
    """Return the round that `--round best` names. Raises `RunError` where no round is the best."""
    from flavor.config import RunConfig
    from flavor.results.read_evaluated import summaries
    from flavor.results.unjudged import without_value_at_last

    if view.best is not None:
        return view.best.round
    config, why = RunConfig.known(view.config), "it was begun without --select"
    if config.select:
        notes = without_value_at_last(config, summaries(runs))
        none = f"no evaluation has had a value for its --select {config.select}"
        why = next((note for note in notes if note.startswith("--select")), none)
    raise RunError(f"run {view.run!r} has no best round: {why}")


def why_pruned(run: str, number: int) -> str:
    """Say that the store no longer has the model of this round."""
    return f"the model of round {number} of run {run!r} is no longer in the store (--keep-globals)"


def chosen_round(runs: RunStore, view: RunView, closed: int, round_: int | None) -> int:
    """Return the number of the round that the option names; `closed` is the newest closed one, 0 for none."""
    return best_of(runs, view) if round_ == BEST else closed if round_ is None else round_
