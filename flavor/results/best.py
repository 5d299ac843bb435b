"""The best round of a metric: among the rounds in which the most sites report it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from flavor.counted import counted


class MergedValue(NamedTuple):
    """A metric of one round, merged over the sites that report it."""

    value: float
    sites: int = 1
    """How many of the round's contributors report it."""
    contributors: int = 1

    @property
    def words(self) -> str:
        """`of 2 of 3 sites`; '' where all contributors report it."""
        return f"of {self.sites} of {counted(self.contributors, 'site')}" if self.sites < self.contributors else ""


@dataclass(frozen=True)
class Best:
    """The best round of a metric."""

    round: int
    value: float
    sites: int
    """How many sites report the metric in this round."""
    contributors: int
    usual: int
    """How many sites report the metric in each round that is compared: the most of all rounds."""
    fewer: int
    """How many rounds are not compared, because fewer sites report the metric in them."""
    newest_fewer: int
    """The newest of those; 0 for none."""
    compared: int
    """How many rounds are compared. One alone is the best, though no other is worse."""

    @property
    def of(self) -> str:
        """`of 2 of 3 sites`; '' where all contributors of the round report the metric."""
        return MergedValue(self.value, self.sites, self.contributors).words

    @property
    def without(self) -> str:
        """Say which rounds are not compared: `not compared: round 5, …`; '' where all are."""
        return not_compared(self.usual, self.fewer, self.newest_fewer, self.round if self.compared == 1 else 0)


def best_of(values: Mapping[int, MergedValue], better: int) -> Best | None:
    """The round with the best value of a metric, the earliest of equals; None where it is not known what is good.

    `better` is 1 where larger values are better, -1 for smaller, 0 where that is not known. Compared are the rounds in
    which the most sites report the metric. A mean without the worst site is better, and says nothing of the model.
    """
    if not values or not better:
        return None
    usual = max(each.sites for each in values.values())
    compared = sorted(number for number, each in values.items() if each.sites == usual)
    number = max(compared, key=lambda each: better * values[each].value)
    fewer = len(values) - len(compared)
    return Best(number, *values[number], usual, fewer, max(values.keys() - set(compared), default=0), len(compared))


def not_compared(usual: int, fewer: int, newest: int, only: int = 0) -> str:
    """Return `not compared: round 5, in which fewer than 3 sites report it`; '' for no round.

    `only` is the round that is compared, where it is one alone: then the text says so.
    """
    if not fewer:
        return ""
    which = f"round {newest}" if fewer == 1 else f"{fewer} rounds, the newest of them round {newest}"
    alone = f", so that only round {only} is compared" if only else ""
    return f"not compared: {which}, in which fewer than {counted(usual, 'site')} report it{alone}"
