"""Make what is kept of a closed round for the whole run, from the round and the information of its clients."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from flavor.errors import DamagedRecord
from flavor.records.merging import WEIGHTED, by_sites, sites_of
from flavor.records.numbers import finite
from flavor.records.reporters import reporters_of
from flavor.records.round import RoundView
from flavor.records.summary import RoundSummary, kept_metrics, names_of, spread_of

_NO_SITES: Mapping[str, Mapping[str, Any]] = {}


def summary_of(
    view: RoundView,
    *,
    attempt: int,
    info: Mapping[str, Any] | None,
    sites: Mapping[str, Mapping[str, Any]] = _NO_SITES,
    known: Sequence[str] = (),
) -> RoundSummary:
    """Return the summary of a round that is being closed, or is closed.

    `info` is the merged information, None where it cannot be read, and `sites` has the metrics of each contributor by
    its name. What is no finite number is left out. Where there are too many metrics, those stay that most sites report,
    and those of the round before, whose names are `known`: one site may report any number of them, under new names in
    each round.
    """
    updates = [view.inspected(client) for client in view.contributors if client in view.verdicts]
    few, number = sites_of(info) if info is not None else ({}, 1)
    metrics = by_sites(info["metrics"], few, number, known) if info is not None else {}
    merged = kept_metrics(metrics)
    kept = names_of(merged)
    kept_few = {name: count for name, count in few.items() if name in kept or name in merged}
    every = names_of(name for name, value in metrics.items() if finite(value) is not None)
    return RoundSummary(
        round=view.round,
        opened_ms=view.opened_ms,
        closed_ms=view.closed_ms or 0,
        aggregating_ms=view.aggregating_ms or 0,
        paused_ms=view.paused_ms,
        expected=len(view.expected),
        contributors=len(view.contributors),
        refused=len(view.refused),
        examples=sum(max(0, update.num_examples) for update in updates),
        bytes=sum(update.size_bytes for update in updates),
        attempts=view.earlier_attempts + attempt,
        openings=view.all_openings,
        metrics=merged,
        spread=spread_of((name for name in merged if not name.endswith(WEIGHTED)), sites.values()),
        few=kept_few,
        reporters=reporters_of(view.contributors, kept_few, sites),
        left_out=len(every - kept),
    )


def refused_of(view: RoundView) -> int | None:
    """Return of how many clients an update was refused in a closed round that may come from its manifest.

    None where that is not known: a manifest has verdicts of contributors alone.
    """
    refused = len(view.refused)
    is_whole = set(view.expected) <= set(view.contributors)
    return refused if refused or is_whole else None


def known_metrics(newest: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the metrics that are kept of a round, from the last of these summaries as Redis has them."""
    with contextlib.suppress(DamagedRecord):
        return tuple(RoundSummary.from_json(newest[-1]).metrics) if newest else ()
    return ()
