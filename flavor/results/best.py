"""The best round of a metric: among rounds in which the same sites report it, as many of them as do so often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from flavor.counted import counted
from flavor.records.counts import CENTRAL_PREFIX
from flavor.records.merging import sites_with
from flavor.records.reporters import UNKNOWN, reporters_with
from flavor.records.tolerance import order

_LEAST_SHARE = 0.25
"""The share of the rounds in which so many sites have to report a metric that these rounds are compared."""


class MergedValue(NamedTuple):
    """A metric of one round, merged over the sites that report it."""

    value: float
    sites: int = 1
    """How many of the round's contributors report it."""
    contributors: int = 1
    reporters: str = ""
    """Which of them report it, as `flavor.records.reporters` has it; '' where that is not known."""

    @classmethod
    def of(
        cls, name: str, value: float, *, few: Mapping[str, int], contributors: int, reporters: Mapping[str, str]
    ) -> MergedValue:
        """Return a metric of a round, where `few` is as in `flavor.records.merging.sites_with`.

        No site has a part in a metric of the operator's own data: its values of all rounds are compared.
        """
        if name.startswith(CENTRAL_PREFIX):
            return cls(value)
        return cls(value, sites_with(name, few, contributors), contributors, reporters_with(name, reporters))

    @property
    def words(self) -> str:
        """`of 2 of 3 sites`; '' where all contributors report it."""
        return f"of {self.sites} of {counted(self.contributors, 'site')}" if self.sites < self.contributors else ""


@dataclass(frozen=True)
class BestRound:
    """The best round of a metric."""

    round: int
    value: float
    sites: int
    """How many sites report the metric in this round."""
    contributors: int
    usual: int
    """How many sites report the metric in each round that is compared."""
    fewer: int
    """How many rounds are not compared, because fewer sites report the metric in them, or other ones."""
    newest_fewer: int
    """The newest of those; 0 for none."""
    compared: int
    """How many rounds are compared. One alone is the best, though no other is worse."""
    others: int = 0
    """How many rounds are not compared because other sites report it, though not fewer."""

    @property
    def of(self) -> str:
        """`of 2 of 3 sites`; '' where all contributors of the round report the metric."""
        return MergedValue(self.value, self.sites, self.contributors).words

    @property
    def without(self) -> str:
        """Say which rounds are not compared: `not compared: round 5, …`; '' where all are."""
        if not self.fewer:
            return ""
        several = f"{self.fewer} rounds, the newest of them round {self.newest_fewer}"
        which = f"round {self.newest_fewer}" if self.fewer == 1 else several
        who = f"fewer than {counted(self.usual, 'site')}"
        if self.others:
            who = "other sites" if self.others == self.fewer else f"{who} or other ones"
        alone = f", so that only round {self.round} is compared" if self.is_alone else ""
        return f"not compared: {which}, in which {who} report it{alone}"

    @property
    def is_alone(self) -> bool:
        """Whether no other round could be compared, though there are others: then it is the best of nothing."""
        return self.compared == 1 and self.fewer > 0

    @classmethod
    def in_document(cls, found: Mapping[str, Any]) -> BestRound:
        """Take it out of the document of a run, which says more of it."""
        return cls(**{each.name: found[each.name] for each in fields(cls)})


def _who(round_: int, value: MergedValue) -> str:
    """Return who reports the metric in a round: sites that are not known are not those of any other round."""
    return f"those of round {round_}" if value.reporters == UNKNOWN else value.reporters


def best_of(values: Mapping[int, MergedValue], better: int) -> BestRound | None:
    """The round with the best value of a metric, the earliest of equals; None where it is not known what is good.

    `better` is 1 where larger values are better, -1 for smaller, 0 where that is not known. Compared are the rounds in
    which the most sites report the metric, and always the same: those who report it in most of these rounds, or in the
    newest one. A mean without the worst site is better, and says nothing of the model. So many sites have to report it
    in a quarter of the rounds, or in more rounds than any other number of them: where rounds close with the first few
    updates, all sites report it in round 1, and seldom again.
    """
    if not values or not better:
        return None
    numbers = Counter(each.sites for each in values.values())
    often = [sites for sites, rounds_ in numbers.items() if rounds_ >= _LEAST_SHARE * len(values)]
    usual = max(often, default=max(numbers, key=lambda sites: (numbers[sites], sites)))
    most = {number: _who(number, each) for number, each in sorted(values.items()) if each.sites == usual}
    rounds = Counter(most.values())
    chosen = max(reversed(most.values()), key=rounds.__getitem__)
    compared = [number for number, reporters in most.items() if reporters == chosen]
    number = compared[0]
    for each in compared[1:]:
        number = each if order(values[each].value, values[number].value) == better else number
    return BestRound(
        round=number,
        value=values[number].value,
        sites=usual,
        contributors=values[number].contributors,
        usual=usual,
        fewer=len(values) - len(compared),
        others=sum(each.sites >= usual for each in values.values()) - len(compared),
        newest_fewer=max(values.keys() - set(compared), default=0),
        compared=len(compared),
    )
