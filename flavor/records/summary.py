"""What is kept of each closed round for as long as the run is in Redis: a few numbers, for people who look at the run.

It is not signed, and no decision is taken on it. The signed record of a round is its manifest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flavor.records.counts import bound_of
from flavor.records.damage import damage_in, table
from flavor.records.merging import WEIGHTED
from flavor.records.numbers import finite, whole
from flavor.records.reporters import kept_reporters, read_reporters

MOST_METRICS = 40
"""Merged metrics of one round: the first ones, as `by_sites` orders them. Each metric of the sites has two means."""
LONGEST_NAME = 80
"""Characters of the name of a metric; a metric of a longer name is left out."""
MOST_BYTES = 4096
"""The whole record as JSON: sites choose the names of metrics."""


@dataclass(frozen=True)
class RoundSummary:
    """One closed round in numbers."""

    round: int
    opened_ms: int
    closed_ms: int = 0
    """0 until Redis has closed the round, whose clock it is by."""
    aggregating_ms: int = 0
    """When its first aggregation began; 0 where that is not known."""
    paused_ms: int = 0
    """For how long the run had ended while the round was not closed."""
    expected: int = 0
    """Number of clients that were expected."""
    contributors: int = 0
    """Number of clients whose updates were aggregated."""
    refused: int | None = 0
    """Number of clients of which an update was refused by the time at which its aggregation ended.

    None where that is not known: a manifest, from which a run is rebuilt, has no refusals.
    """
    examples: int = 0
    """Examples of the contributors."""
    bytes: int = 0
    """Bytes of the contributors' updates."""
    attempts: int = 1
    """Number of attempts to aggregate it."""
    openings: int = 1
    """How often it was opened: again after its quorum was lost, and after the run had ended and was resumed."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The merged metrics by their names in the merged information: plain means, and those weighted by examples."""
    spread: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Lowest and highest value over the contributors, by metric."""
    few: Mapping[str, int] = field(default_factory=dict)
    """Number of contributors that report a metric, for those that not all report, by the name that they use."""
    reporters: Mapping[str, str] = field(default_factory=dict)
    """Who reports a metric, as digests; see `flavor.records.reporters`. Empty where that is not known."""
    left_out: int = 0
    """Number of metrics that are not among `metrics`, because there are too many."""

    def to_json(self) -> str:
        """Write it without `closed_ms`, in `MOST_BYTES` at most: leaves out the last metrics for that.

        The script that closes the round puts `closed_ms` before it: see `closed_at`.
        """
        metrics, spread, few = dict(self.metrics), dict(self.spread), dict(self.few)
        all_names = names_of(metrics)
        while True:
            fields: dict[str, Any] = {
                "round": self.round,
                "opened_ms": self.opened_ms,
                "aggregating_ms": self.aggregating_ms,
                "expected": self.expected,
                "contributors": self.contributors,
                "refused": self.refused,
                "examples": self.examples,
                "bytes": self.bytes,
                "attempts": self.attempts,
                "openings": self.openings,
                "metrics": metrics,
                "spread": {name: list(range_) for name, range_ in spread.items() if name in metrics},
            }
            kept = names_of(metrics)
            if of_few := {name: count for name, count in few.items() if name in kept or name in metrics}:
                fields["few"] = of_few
            if self.reporters:
                fields["reporters"] = kept_reporters(self.reporters, of_few)
            if self.paused_ms:
                fields["paused_ms"] = self.paused_ms
            if left_out := self.left_out + len(all_names - kept):
                fields["left_out"] = left_out
            text = json.dumps(fields, separators=(",", ":"), allow_nan=False)
            if len(text) <= MOST_BYTES or not metrics:
                return text
            last = next(reversed(metrics)).removesuffix(WEIGHTED)
            metrics = {name: value for name, value in metrics.items() if name.removesuffix(WEIGHTED) != last}

    def closed_at(self, closed_ms: int) -> str:
        """Return the JSON of the round that was closed then, as `commit_round.lua` writes it."""
        return f'{{"closed_ms":{closed_ms},{self.to_json()[1:]}'

    @classmethod
    def from_json(cls, text: str) -> RoundSummary:
        """Read what stands in Redis. Raises `DamagedRecord`."""
        with damage_in("summary of a round"):
            fields = table(text)
            numbers = {name: whole(fields.get(name, default)) for name, default in _NUMBERS.items()}
            refused = fields.get("refused", 0)
            metrics, spread = fields.get("metrics") or {}, fields.get("spread") or {}
            few = fields.get("few") or {}
            return cls(
                **numbers,
                refused=None if refused is None else whole(refused),
                metrics=kept_metrics(metrics),
                spread={
                    name: (low, high)
                    for name, (lowest, highest) in spread.items()
                    if (low := finite(lowest)) is not None and (high := finite(highest)) is not None
                },
                few={str(name): whole(count) for name, count in few.items()},
                reporters=read_reporters(fields.get("reporters")),
            )


_NUMBERS: Mapping[str, int | None] = {
    **dict.fromkeys(("round", "opened_ms", "closed_ms")),
    **dict.fromkeys(("aggregating_ms", "paused_ms", "expected", "contributors", "examples", "bytes", "left_out"), 0),
    **dict.fromkeys(("attempts", "openings"), 1),
}
"""The numbers of a record; None where there has to be one."""


def kept_metrics(metrics: Mapping[str, Any], most: int = MOST_METRICS, longest: int = LONGEST_NAME) -> dict[str, float]:
    """Return the first finite numbers among merged or single metrics whose names are not too long.

    Of a merged metric both means are kept, or none; so are a pooled one and the bound of its error behind it.
    """
    found: dict[str, float] = {}
    for name, value in metrics.items():
        base = name.removesuffix(WEIGHTED)
        if len(base) <= longest and (number := finite(value)) is not None:
            if len(found) == most:
                found.pop(base, None)
                if found and bound_of(next(reversed(found))) == name:
                    found.popitem()
                break
            found[name] = number
    return found


def names_of(metrics: Iterable[str]) -> frozenset[str]:
    """Return the names of merged metrics as sites use them: the plain and the weighted mean have one name."""
    return frozenset(name.removesuffix(WEIGHTED) for name in metrics)


def spread_of(names: Iterable[str], sites: Iterable[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Return the lowest and the highest value of each of these metrics over the sites that report it."""
    every = list(sites)
    found = {}
    for name in names:
        values = [number for metrics in every if (number := finite(metrics.get(name))) is not None]
        if values:
            found[name] = (min(values), max(values))
    return found
