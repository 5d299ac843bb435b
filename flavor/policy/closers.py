"""Whose updates close asynchronous rounds: a few quick sites may leave all others behind, who then are not slow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from flavor.counted import counted
from flavor.policy.advice import some
from flavor.policy.mode import Buffered
from flavor.policy.told_tasks import given_up_in_a_row
from flavor.records.round import RoundView

EVERY = 10
"""The rounds after each of which their updates are counted."""


def are_few(rounds: Sequence[RoundView], sites: int) -> bool:
    """Return whether at most half of the `sites` have closed these rounds: who handed in nothing is not slow, then."""
    return 2 * len(_updates(rounds)) <= sites


def why_outpaced(mode: Buffered, rounds: Sequence[RoundView], sites: int) -> str:
    """Say what it means for a site that its tasks were given up while few of the `sites` closed `rounds`."""
    return (
        f"{given_up_in_a_row(mode)}: the last {counted(len(rounds), 'round')} were closed by "
        f"{some(sorted(_updates(rounds)))} of {counted(sites, 'site')}, sooner than most sites train: nothing that it "
        f"trains counts; {_advice(mode)}"
    )


def most_of(rounds: Sequence[RoundView], sites: int) -> str:
    """Return the one of three or more `sites` that has handed in at least half of the updates of the rounds; or ''."""
    found = _updates(rounds)
    site, number = max(found.items(), key=lambda each: each[1], default=("", 0))
    return site if sites >= 3 and 2 * number >= found.total() else ""


def told_most(mode: Buffered, rounds: Sequence[RoundView], site: str) -> str:
    """Warn of the site that has handed in so many."""
    found = _updates(rounds)
    return (
        f"warning: {site} has handed in {found[site]} of the {counted(found.total(), 'update')} of the last "
        f"{counted(len(rounds), 'round')}: it hands in sooner than the other sites, and has that share of the model; "
        f"{_advice(mode)}"
    )


def _updates(rounds: Sequence[RoundView]) -> Counter[str]:
    return Counter(client for view in rounds for client in view.contributors)


def _advice(mode: Buffered) -> str:
    return (
        f"a run with a buffer larger than {mode.buffer}, a larger max_staleness, or --mode sync:slow=async has more of "
        "the sites in its rounds"
    )
