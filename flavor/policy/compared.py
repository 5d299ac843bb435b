"""What the log says of a comparison of a new model with the best one before it."""

from __future__ import annotations

from flavor.counted import counted
from flavor.records.comparison import Comparison
from flavor.records.evaluation import BestModel
from flavor.records.tolerance import order

Found = tuple[float, int] | None
"""The value of a rule's metric in an evaluation, and how many sites report it; None where it is missing."""


def compared_notes(metric: str, before: BestModel, found: Found, made: Comparison) -> list[str]:
    """Return what the operator should know of a comparison after which the best model stays."""
    stays = f"round {before.round} stays the best by {metric}"
    if made.diverged.count:
        return [f"{stays}: the new model has diverged at {made.diverged.words}, where that one has a finite value"]
    if found is None:
        return []
    if made.beside is None:
        of, had = f"{metric} of {counted(found[1], 'site')}", counted(before.sites, "site")
        why = [_unread(before, made)] if made.unread.count else []
        if made.lacked.count:
            why.append(f"{made.lacked.words} {'has' if made.lacked.count == 1 else 'have'} one of one model alone")
        said = f" ({'; '.join(why)})" if why else ""
        return [
            f"{of} is not compared with that of round {before.round}, of {had}: "
            f"too few sites have a value of it for both models{said}"
        ]
    said = of_both(metric, before, made, found[0])
    return [f"{stays}{said}"] if said else []


def of_both(metric: str, before: BestModel, made: Comparison, value: float) -> str:
    """Return what the sites report that have judged both models; '' where that is what all report."""
    beside = made.beside
    if beside is None or (order(beside.value, value) == 0 and order(beside.best, before.value) == 0):
        return ""
    by = f"the {beside.sites} sites" if beside.sites > 1 else "the site"
    both = "with a result of both models" if made.unread.count else "that judged both models"
    without = f"; {_unread(before, made)}" if made.unread.count else ""
    return f": by {by} {both}, {metric} is {beside.value:.6g} now and was {beside.best:.6g}{without}"


def _unread(before: BestModel, made: Comparison) -> str:
    has = "has" if made.unread.count == 1 else "have"
    return f"what {made.unread.words} {has} measured of the model of round {before.round} cannot be read"
