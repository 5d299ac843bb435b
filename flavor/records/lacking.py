"""Sites that have a part in the metric of a rule, and no value in it: without them it would be met too early.

A site has a part in a metric if it reports it, also as NaN or by counts that are left out, or has reported it in an
earlier evaluation of the run, until an operator revokes it. A site that never reports it, such as one without labels,
has none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flavor.records.counts import CENTRAL_PREFIX, POOLED
from flavor.records.not_finite import WORDS
from flavor.records.numbers import whole
from flavor.records.reporters import parts_of

_MOST_NAMED = 3
_NULL = " (null)"
"""The end of the name of a site, which has no such letters, that reports a metric as missing."""


@dataclass(frozen=True)
class SomeSites:
    """A number of sites, of which the first are named."""

    named: tuple[str, ...] = ()
    count: int = 0

    @classmethod
    def of(cls, sites: Collection[str]) -> SomeSites:
        """Name the first of these sites."""
        return cls(tuple(sorted(sites)[:_MOST_NAMED]), len(sites))

    @classmethod
    def of_plain(cls, found: Any) -> SomeSites:
        """Read what `to_plain` has written. Raises `ValueError` and `TypeError` for anything else."""
        named, count = found
        return cls(tuple(map(str, named)), whole(count))

    def to_plain(self) -> list[Any]:
        """Return it as plain values, which JSON can hold."""
        return [list(self.named), self.count]

    def and_also(self, sites: Collection[str]) -> SomeSites:
        """Return these sites and further ones."""
        return SomeSites(SomeSites.of([*self.named, *sites]).named, self.count + len(sites))

    @property
    def words(self) -> str:
        """`a`, `a and b`, or `a, b, c and 2 more`."""
        more = self.count - len(self.named)
        *first, last = [*self.named, *([f"{more} more"] if more else [])]
        return f"{', '.join(first)} and {last}" if first else last


@dataclass(frozen=True)
class Lacking:
    """The sites of one evaluation that have a part in a metric, and no value in the merged one."""

    not_finite: SomeSites = SomeSites()
    """They report it as NaN, as infinite or as missing."""
    unsaid: SomeSites = SomeSites()
    """They do not report it, and have done so before."""
    away: SomeSites = SomeSites()
    """They were not asked, as they are gone or shut out, and have reported it before."""
    left_out: SomeSites = SomeSites()
    """They report it, and their counts did not go into the merged value."""
    unread: SomeSites = SomeSites()
    """What they have measured cannot be read any more, and the merged value may be without them."""

    @property
    def has_diverged(self) -> bool:
        """Whether it is known of a site that its value is infinite or NaN, and not missing."""
        return any(site.endswith(")") and not site.endswith(_NULL) for site in self.not_finite.named)

    def words(self, metric: str) -> str:
        """Say who lacks the metric; '' where no site does."""
        said = []
        if self.not_finite.count:
            where = "on the operator's own data" if metric.startswith(CENTRAL_PREFIX) else f"at {self.not_finite.words}"
            said.append(f"{metric} is not a finite number {where}")
        if self.unsaid.count:
            do, have = ("does", "has") if self.unsaid.count == 1 else ("do", "have")
            said.append(f"{self.unsaid.words} {do} not report {metric}, and {have} before")
        if self.left_out.count:
            said.append(f"the counts of {self.left_out.words} are left out of {metric}")
        if self.unread.count:
            has, it = ("has", "its result") if self.unread.count == 1 else ("have", "their results")
            said.append(f"it is not known whether {self.unread.words} {has} a value of {metric}: {it} cannot be read")
        if self.away.count:
            is_one = self.away.count == 1
            was, have, back, it = ("was", "has", "it is", "it") if is_one else ("were", "have", "they are", "them")
            said.append(
                f"{self.away.words} {was} not there to judge the model, and {have} reported {metric} before: the rule "
                f"counts again once {back} back, or without {it} after `flavor revoke`"
            )
        return "; ".join(said)

    def to_plain(self) -> list[Any]:
        """Write it for `read_lacking`."""
        every = [self.not_finite, self.unsaid, self.away, self.left_out, self.unread]
        while len(every) > 2 and not every[-1].count:
            del every[-1]
        return [each.to_plain() for each in every]


def lacking_of(
    names: Iterable[str],
    sites: Mapping[str, Mapping[str, Any]],
    before: Mapping[str, Collection[str]],
    away: Collection[str] = (),
    odd: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Lacking]:
    """Return who lacks each of these merged metrics, by their names without `(weighted)`.

    `sites` has the metrics of each site whose result counts, and `before` what each has reported in evaluations before.
    `away` are sites that were not asked. `odd` has the metrics of each site that are infinite or NaN
    (`flavor.records.not_finite`): so the value stands behind a site's name.
    """
    found = {}
    for name, part in parts_of(names, sites).items():
        without = [site for site in sites if site not in part.reporting]
        said = [site for site in without if name in sites[site] and not name.startswith(POOLED)]
        unsaid = [site for site in without if site not in said and name in before.get(site, ())]
        gone = [site for site in away if name in before.get(site, ())]
        others = (SomeSites.of(each) for each in (unsaid, gone, part.left_out))
        found[name] = Lacking(_with_values(said, name, odd), *others)
    return found


def away_of(names: Iterable[str], expected: Collection[str], before: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """Return the sites with a part in one of these metrics that were not asked, sorted."""
    ruled = set(names)
    return tuple(sorted(site for site, of in before.items() if site not in expected and not ruled.isdisjoint(of)))


def _with_values(sites: Iterable[str], metric: str, odd: Mapping[str, Mapping[str, str]] | None) -> SomeSites:
    """Name the sites with their values, those first that are infinite or NaN."""
    if odd is None:
        return SomeSites.of(list(sites))
    words = {site: odd.get(site, {}).get(metric) for site in sorted(sites)}
    ordered = sorted(words, key=lambda site: words[site] is None)
    return SomeSites(tuple(with_value(site, words[site]) for site in ordered[:_MOST_NAMED]), len(ordered))


def with_value(site: str, word: str | None) -> str:
    """Return a site with the value that it reports in place of a finite one: `edge-4 (inf)`, or `edge-4 (null)`."""
    return f"{site}{_NULL if word is None else f' ({WORDS[word]})'}"


def reported_by_now(
    names: Collection[str], sites: Mapping[str, Mapping[str, Any]], before: Mapping[str, Collection[str]]
) -> dict[str, tuple[str, ...]]:
    """Return which of these metrics the sites have reported by now, for those of which that was not known before."""
    parts, found = parts_of(names, sites), {}
    for site in sites:
        known = set(before.get(site, ()))
        if new := {name for name, part in parts.items() if site in part.reporting} - known:
            found[site] = tuple(sorted(known | new))
    return found


def read_lacking(given: Any) -> dict[str, Lacking]:
    """Read what `Lacking.to_plain` has written, by metric. Raises `ValueError`, `TypeError` and `AttributeError`."""
    found = {}
    for name, each in (given or {}).items():
        first, second, *others = map(SomeSites.of_plain, each)
        if len(others) > 3:
            raise ValueError("it has more kinds of sites than there are")
        found[str(name)] = Lacking(first, second, *others)
    return found
