"""Which metrics have a column in a table: so many that no single site displaces what others report.

Metrics of the run's rules come first, then those that most sites report, then all others in the order in which they
were reported. Where there are too many of the others, each site may have as many as another. A metric that several
sites report counts for the one of them with the fewest columns, so that no site takes a column by naming another's
metric.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from flavor.config import RunConfig
from flavor.evaluation_settings import goals_of, select_of
from flavor.policy.selection import Select, StopWhen, names_in
from flavor.records.counts import CENTRAL_PREFIX, COMPUTED, POOLED
from flavor.records.merging import WEIGHTED, is_of_most, sites_with
from flavor.results.computed_columns import MARK, OF_EVALUATIONS

MOST_COLUMNS = 1024
"""Maximum number of metrics in a table. A site can use new names in each round."""


class Reported(Protocol):
    """What the sites have reported in one round or evaluation."""

    @property
    def few(self) -> Mapping[str, int]:
        """Number of sites that report a metric, for those that not all report."""

    @property
    def reported(self) -> Mapping[str, Collection[str]]:
        """The names of each site's metrics, by site; empty where that is not known."""


@dataclass(frozen=True)
class Rank:
    """Before which other columns one comes."""

    is_ruled: bool = False
    is_common: bool = False
    """Whether most sites report the metric, or flavor computes it."""
    reporters: tuple[str, ...] = ("",)
    """Of other metrics the sites that report it; '' alone where that is not known."""


def ruled_columns(settings: Mapping[str, Any]) -> frozenset[str]:
    """Return the metrics on which the rules of a run with these settings depend, by the names that sites use."""
    config = RunConfig.known(settings)
    return ruled_by([select_of(config), *goals_of(config)])


def ruled_by(rules: Iterable[Select | StopWhen | None]) -> frozenset[str]:
    """Return the metrics on which these rules depend, by the names that sites use."""
    return frozenset(name.removeprefix(CENTRAL_PREFIX).removeprefix(POOLED) for name in names_in(rules))


class Ranks:
    """The ranks of the columns of one round or evaluation."""

    def __init__(self, of: Reported, ruled: Collection[str]) -> None:
        self._few, self._ruled, self._sites = of.few, ruled, len(of.reported)
        self._reporters = dict[str, list[str]]()
        for site, names in of.reported.items():
            for name in names:
                self._reporters.setdefault(name, []).append(site)

    def of(self, column: str) -> Rank:
        """Return the rank of a column by its name, before it is made the head of one."""
        plain = column.removesuffix(WEIGHTED)
        stripped = [plain.removesuffix(end) for end in OF_EVALUATIONS if plain.endswith(end)]
        names = [column, plain, plain.removesuffix(MARK), *stripped]
        if any(name.removeprefix(CENTRAL_PREFIX).removeprefix(POOLED) in self._ruled for name in (plain, *stripped)):
            return Rank(is_ruled=True)
        reporters = next((self._reporters[name] for name in names if name in self._reporters), None)
        if reporters is not None:
            return Rank(is_common=is_of_most(len(reporters), self._sites), reporters=tuple(reporters))
        of_sites = sites_with(stripped[0] if stripped else plain, self._few, self._sites)
        is_computed = plain.startswith(tuple(COMPUTED))
        is_common = self._sites > 0 and is_of_most(of_sites, self._sites)
        return Rank(is_common=is_common or (is_computed and of_sites == self._sites))


def by_rank(names: Iterable[str], of: Reported, ruled: Collection[str]) -> list[str]:
    """Return the names of metrics in the order of columns: of rules, of most sites, and others, each as they were."""
    ranks = Ranks(of, ruled)
    found = {name: ranks.of(name) for name in names}
    return sorted(found, key=lambda name: (not found[name].is_ruled, not found[name].is_common))


class TableColumns:
    """The names of the columns of one table."""

    def __init__(self) -> None:
        self._ruled, self._common = dict[str, None](), dict[str, None]()
        self._others = dict[str, str]()  # with the site for which it counts
        self._reporters = dict[str, tuple[str, ...]]()  # of these, the sites that have reported them last
        self._owned = Counter[str]()

    @property
    def names(self) -> list[str]:
        """The names in the order of the columns."""
        return [*self._ruled, *self._common, *self._others]

    def take(self, name: str, rank: Rank) -> str | None:
        """Give a metric a column, if there is room; return which metric has none for that, None for none."""
        if name in self._ruled or (name in self._common and not rank.is_ruled):
            return None
        if not (rank.is_ruled or rank.is_common):
            return self._take_other(name, rank.reporters)
        if rank.is_common and len(self._ruled) + len(self._common) >= MOST_COLUMNS:
            return None if name in self._others else name
        self._common.pop(name, None)
        if name in self._others:
            self._drop(name)
        (self._ruled if rank.is_ruled else self._common)[name] = None
        return self._given_up() if len(self.names) > MOST_COLUMNS else None

    def _take_other(self, name: str, reporters: tuple[str, ...]) -> str | None:
        if name in self._others:
            self._reporters[name] = reporters
            return None
        owner, gone = self._poorest(reporters), None
        if len(self.names) >= MOST_COLUMNS:
            # asked twice: looking for the richest site's last column gives shared columns to poorer sites
            if not self._is_poor(owner) or self._last_of_richest() is None or not self._is_poor(owner):
                return name
            gone = self._given_up()
        self._others[name], self._reporters[name] = owner, reporters
        self._owned[owner] += 1
        return gone

    def _poorest(self, reporters: tuple[str, ...]) -> str:
        return min(reporters, key=self._owned.__getitem__)

    def _is_poor(self, site: str) -> bool:
        """Whether a site has fewer columns than another one, also with one more."""
        return max(self._owned.values(), default=0) > self._owned[site] + 1

    def _last_of_richest(self) -> str | None:
        """Return the last column of the site that has most, after those that count for poorer sites as well."""
        while self._others:
            ((richest, most),) = self._owned.most_common(1)
            name = next(name for name, owner in reversed(self._others.items()) if owner == richest)
            poorest = self._poorest(self._reporters[name])
            if self._owned[poorest] + 1 >= most:
                return name
            self._others[name] = poorest
            self._owned[richest] -= 1
            self._owned[poorest] += 1
        return None

    def _given_up(self) -> str:
        """Take the last column from the site that has most; return its name."""
        if (gone := self._last_of_richest()) is None:
            return (self._common or self._ruled).popitem()[0]
        self._drop(gone)
        return gone

    def _drop(self, name: str) -> None:
        self._owned[self._others.pop(name)] -= 1
        del self._reporters[name]
