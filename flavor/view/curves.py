"""The curves of one metric over the rounds of a run: plain and weighted mean, lowest and highest, and single sites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flavor.records.counts import beside_last, is_beside
from flavor.records.info import CONFUSION
from flavor.records.merging import WEIGHTED
from flavor.results.best import BestRound, best_of
from flavor.results.direction import direction_of
from flavor.view.site_values import Values
from flavor.view.strip import RoundRow

MOST_NAMES = 200
"""Names of metrics that one run is shown with: first those that most sites report."""

_SEVERAL = 5
"""So many rounds without a run's metric, one after another, make another metric the run's."""
_COUNTED = 100
"""Rounds, the newest ones, in which metrics are counted that never most sites report."""


@dataclass(frozen=True)
class Curves:
    """One metric. Each tuple has a value for each of `rounds`; None where there is none, or it is not known."""

    metric: str
    rounds: tuple[int, ...] = ()
    plain: Values = ()
    """The plain mean over the contributors of a round; of a pooled metric, or a count, its one value."""
    weighted: Values = ()
    """Their mean weighted by examples; where there is no mean, as `plain`."""
    lowest: Values = ()
    highest: Values = ()
    sites: Mapping[str, Values] = field(default_factory=dict)
    """By site, as far as they were asked for."""
    left_out: int = 0
    """Number of sites that are not among `sites`, because there are too many."""
    reporting: tuple[int | None, ...] = ()
    """How many contributors of each round report the metric."""
    contributors: tuple[int, ...] = ()
    """How many contributors each round has; 0 where that is not known, and 1 on the operator's own data."""
    best: BestRound | None = None
    """The round with the best weighted mean, and its value; None where the metric's name does not say what is good."""
    is_complete: bool = True
    """Whether the values of the sites are known for all rounds: some may be pruned, or not be read yet."""


def metric_names(rows: Sequence[RoundRow]) -> list[str]:
    """Return the names of the metrics of these rounds, as sites use them.

    Those that most sites of a round have reported come first, in the order in which they came up. Of the others, those
    that were reported most often: one site may report others under new names in each round. Of both, counts and bounds
    of errors come last.
    """
    of_most, others = dict[str, None](), Counter[str]()
    for row in rows:
        for base in dict.fromkeys(name.removesuffix(WEIGHTED) for name in row.metrics):
            if base in CONFUSION or base in of_most:
                continue
            if row.is_of_most(base):
                of_most[base] = None
            else:
                others[base] += max(1, row.sites_with(base))
    rest = [name for name, _ in others.most_common() if name not in of_most]
    return [*beside_last(list(of_most)), *beside_last(rest)][:MOST_NAMES]


def headline(rows: Sequence[RoundRow]) -> str | None:
    """Return the metric that a run is shown by: the first that most sites of a round have reported; None for none.

    It stays the run's metric until several rounds, one after another, are without it: no site reports it in them, or
    most sites report others. Where no metric is reported by most sites, as in rounds of one site, it is the one that
    was reported most often in the newest rounds, the first of equals. A count, or the bound of an error, is never it.
    """
    chosen: str | None = None
    without = 0
    for row in rows:
        if not row.metrics or (chosen is not None and row.is_of_most(chosen)):
            without = 0 if row.metrics else without
            continue
        names = [name for name in row.shown_metrics if not is_beside(name)]
        other = next(filter(row.is_of_most, names), None) if row.contributors > 1 else None
        if chosen is None:
            chosen = other
        elif other is None and row.sites_with(chosen):
            without = 0
        else:
            without += 1
            if without == _SEVERAL:
                chosen, without = other, 0
    if chosen is None:
        counts = Counter[str]()
        for row in rows[-_COUNTED:]:
            counts.update({name: row.sites_with(name) for name in row.shown_metrics if not is_beside(name)})
        chosen = next((name for name, _ in counts.most_common(1)), None)
    return chosen


def merged_curves(metric: str, rows: Sequence[RoundRow]) -> Curves:
    """Return the curves of the merged metric over these closed rounds."""
    rounds = tuple(row.round for row in rows)
    plain = tuple(row.metrics.get(metric) for row in rows)
    merged = [row.merged(metric) for row in rows]
    spread = [row.spread.get(metric, (None, None)) for row in rows]
    known = {round_: each for round_, each in zip(rounds, merged, strict=True) if each is not None}
    return Curves(
        metric=metric,
        rounds=rounds,
        plain=plain,
        weighted=tuple(each and each.value for each in merged),
        lowest=tuple(low for low, _ in spread),
        highest=tuple(high for _, high in spread),
        reporting=tuple(each and each.sites for each in merged),
        contributors=tuple(
            each.contributors if each is not None and row.contributors else row.contributors
            for row, each in zip(rows, merged, strict=True)
        ),
        best=best_of(known, direction_of(metric)),
    )


def with_sites(
    merged: Curves,
    names: Sequence[str],
    values: Mapping[int, Values],
    *,
    are_all: bool,
    left_out: int,
    whole: Collection[int],
) -> Curves:
    """Return the curves with those of single sites, of whom `values` has the values of each known round.

    `whole` are the rounds of which all values of these sites are known. `are_all` is whether the caller asked for all
    sites: then a site that never had the metric is not shown, and the sites say what is lowest and highest in a whole
    round whose summary does not.
    """
    nothing = (None,) * len(names)
    rows = [values.get(round_, nothing) for round_ in merged.rounds]
    sites = {name: tuple(row[number] for row in rows) for number, name in enumerate(names)}
    lowest, highest = merged.lowest, merged.highest
    if are_all:
        sites = {name: curve for name, curve in sites.items() if any(value is not None for value in curve)}
    if are_all and not left_out:
        known = [
            [value for value in row if value is not None] if round_ in whole else []
            for round_, row in zip(merged.rounds, rows, strict=True)
        ]
        lowest = tuple(min(row, default=None) if low is None else low for low, row in zip(lowest, known, strict=True))
        highest = tuple(max(row, default=None) if top is None else top for top, row in zip(highest, known, strict=True))
    is_complete = len(whole) == len(merged.rounds)
    return replace(merged, sites=sites, lowest=lowest, highest=highest, left_out=left_out, is_complete=is_complete)
