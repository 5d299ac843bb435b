"""Make what is kept of a closed round for the whole run, from the round and the information of its clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flavor.records.info import WEIGHTED
from flavor.records.round import RoundView
from flavor.records.summary import RoundSummary, kept_metrics, spread_of


def summary_of(
    view: RoundView, *, attempt: int, metrics: Mapping[str, Any], sites: Iterable[Mapping[str, Any]] = ()
) -> RoundSummary:
    """Return the summary of a round that is being closed, or is closed.

    `metrics` are the merged metrics, and `sites` those of each contributor; what is no finite number is left out.
    """
    updates = [view.inspected(client) for client in view.contributors if client in view.verdicts]
    merged = kept_metrics(metrics)
    return RoundSummary(
        round=view.round,
        opened_ms=view.opened_ms,
        closed_ms=view.closed_ms or 0,
        aggregating_ms=view.aggregating_ms or 0,
        expected=len(view.expected),
        contributors=len(view.contributors),
        refused=sum(not verdict.accepted for verdict in view.verdicts.values()),
        examples=sum(max(0, update.num_examples) for update in updates),
        bytes=sum(update.size_bytes for update in updates),
        attempts=attempt,
        openings=view.openings,
        metrics=merged,
        spread=spread_of((name for name in merged if not name.endswith(WEIGHTED)), sites),
    )
