"""The option that names one round of a run: by its number, the last one, or the best by the run's --select."""

from __future__ import annotations

import click

from flavor.errors import RunError
from flavor.records.run import RunView

LAST, BEST = "last", "best"


def parse_round(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Check the value of an option that names a round."""
    if value not in (LAST, BEST) and (not value.isdigit() or int(value) < 1):
        raise click.BadParameter(f"{value!r} is neither a number from 1 on nor 'last' nor 'best'")
    return value


def chosen_round(view: RunView, closed: int, named: str) -> int:
    """Return the number of the round that the option names; `closed` is the newest closed round, 0 for none.

    Raises `RunError` where no round is the best.
    """
    if named != BEST:
        return closed if named == LAST else int(named)
    if view.best is None:
        select = view.config.get("select")
        why = f"no evaluation has had a value for its --select {select}" if select else "it was begun without --select"
        raise RunError(f"run {view.run!r} has no best round: {why}")
    return view.best.round
