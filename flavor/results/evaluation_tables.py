"""`evaluations.csv` and `evaluations-sites.csv`: a line for each evaluation, and one for each of its sites."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from flavor.records.not_finite import shown
from flavor.results.computed_columns import HIGHEST, LOWEST, OF_EVALUATIONS, OF_SITES, marked
from flavor.results.evaluated import Evaluated
from flavor.results.metric_of_sites import metrics_of
from flavor.results.tables import Rows, Table

FIXED = ("round", "evaluation", "closed", "seconds", "sites", "expected", "missing", "examples", "model")
FIXED_OF_SITES = ("round", "evaluation", "site", "examples", "model")
"""The last column, which tables of an earlier release lack, says which model it is in words (`Subject`)."""


class EvaluationTables:
    """The two tables of one run: those of a result folder, unless others are named."""

    def __init__(
        self,
        out: Path,
        tell: Callable[[str], None] = print,
        *,
        merged: str = "evaluations.csv",
        sites: str = "evaluations-sites.csv",
    ) -> None:
        self._merged = Table(out / merged, FIXED, _rows, tell, further="evaluations")
        self._sites = Table(out / sites, FIXED_OF_SITES, _site_rows, tell, further="evaluations")

    def write(self, found: Sequence[Evaluated], ruled: Collection[str] = ()) -> None:
        """Write the evaluations among `found` that are not in the tables yet; `ruled` as in `Tables.write`."""
        self._merged.write(found, ruled)
        self._sites.write(found, ruled)


def values_of(found: Evaluated) -> dict[str, float]:
    """Return the merged metrics with the lowest and the highest value over the sites, and how many report a metric."""
    computed: dict[str, float] = {}
    for each in metrics_of(found):
        if each.lowest is not None and each.highest is not None:
            computed |= {each.name + LOWEST: each.lowest, each.name + HIGHEST: each.highest}
    return {
        **marked(found.metrics, OF_EVALUATIONS),
        **computed,
        **{f"{name}{OF_SITES}": count for name, count in found.few.items()},
    }


def _rows(every: Iterable[Evaluated]) -> Rows:
    return [
        (
            [
                *(
                    each.round,
                    "central" if each.is_central else each.number,
                    _time(each.closed_ms),
                    (each.closed_ms - each.opened_ms) / 1000,
                ),
                *(
                    0 if each.is_central else len(each.sites) or each.merged_of,
                    len(each.expected),
                    " ".join(each.missing),
                    each.examples,
                    each.subject.words,
                ),
            ],
            values_of(each),
        )
        for each in every
    ]


def _site_rows(every: Iterable[Evaluated]) -> Rows:
    return [
        (
            [each.round, each.number, site, of.examples, each.subject.words],
            {**of.metrics, **{name: shown(word) for name, word in of.not_finite.items()}},
        )
        for each in every
        for site, of in each.sites.items()
    ]


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
