"""What a result folder keeps of an evaluation that is read again, as after `flavor recover`.

The folder may have more than the store by then: a site can change or archive its own result in a bucket.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from flavor.errors import InvalidRecord
from flavor.records.evaluation import EvaluationSummary
from flavor.results.evaluated import Evaluated
from flavor.results.evaluation_shapes import ReportsShape
from flavor.results.site_measures import SiteMeasures


def is_of(known: Evaluated, run: str, summary: EvaluationSummary) -> bool:
    """Whether a file of a result folder has the evaluation of this summary, with the same results.

    `closed_ms` does not say it: a run that is rebuilt has it from the signed record, which a worker writes a moment
    before Redis closes the evaluation. An evaluation that was opened anew has another `opened_ms`, and one that was
    merged anew of other results has other numbers.
    """
    if (known.run, known.round, known.number) != (run, summary.round, summary.number):
        return False
    if (known.opened_ms, known.examples) != (summary.opened_ms, summary.examples):
        return False
    if not known.is_central and (len(known.sites), len(known.expected)) != (summary.sites, summary.expected):
        return False
    return all(known.metrics.get(name) == value for name, value in summary.metrics.items())


def completed(found: Evaluated, known: Evaluated) -> Evaluated:
    """Return what the store has of an evaluation, with what only the folder has of it: `known`, read as `is_of`."""
    if known.model != found.model:
        return found
    there = [site for site in found.unread if site in known.sites]
    kept = {site: known.sites[site] for site in there if site not in known.unread}
    first = {site: max(found.sites[site], known.sites[site], key=_known_metrics) for site in there}
    unread = {site: why for site, why in found.unread.items() if site not in kept}
    both = replace(
        found,
        sites={**found.sites, **first, **kept},
        skipped=found.skipped or known.skipped,
        metrics={**known.metrics, **found.metrics},
        few={**known.few, **found.few},
        reporters=known.reporters if kept else found.reporters,
        left_out={**known.left_out, **found.left_out},
        unread=unread,
    )
    return replace(both, spread=(found.spread or known.spread) if both.lacks_values else {})


def _known_metrics(of: SiteMeasures) -> int:
    """Return how many metrics are known: of a result that cannot be read, Redis may have the first ones."""
    return len(of.metrics) + len(of.not_finite)


def sites_with_reports(path: Path) -> frozenset[str]:
    """Return the sites whose reports are in this file of a result folder."""
    with contextlib.suppress(InvalidRecord, FileNotFoundError):
        return frozenset(ReportsShape.read(path).sites)
    return frozenset()
