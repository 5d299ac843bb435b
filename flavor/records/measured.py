"""What is measured of one client in one round: how long each phase took, what has moved, and its own metrics.

Phases and bytes are the words of the client's edge, and the metrics those of its script. Nothing of it is signed, and
no decision is taken on it: people read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from flavor.records.counts import beside_last
from flavor.records.moved import Moved
from flavor.records.numbers import finite
from flavor.records.pulse import Doing
from flavor.records.summary import kept_metrics

MOST_METRICS = 20
"""Metrics of one client in one round: the first ones."""
LONGEST_NAME = 64
"""Characters of the name of a metric; a metric of a longer name is left out."""
MOST_PHASES = 12
"""Phases of one client in one round: the last ones."""
MOST_BYTES = 4096
"""The whole record as JSON."""
_LONGEST_FIELD = 1024
_WORDS = {word.value: word for word in (Doing.DOWNLOADING, Doing.TRAINING, Doing.UPLOADING, Doing.UPLOADED)}
_MOST = 2**53


class PhaseStart(NamedTuple):
    """The beginning of a phase, which lasts until the next one begins."""

    doing: Doing
    start_ms: int
    """Milliseconds since 1970 by the clock of the Redis server."""


@dataclass(frozen=True)
class Measured:
    """What is measured of one client in one round."""

    phases: Sequence[PhaseStart] = ()
    moved: Moved = field(default_factory=Moved)
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Finite numbers of the client information, by name. An edge does not write them: the inspecting worker does."""
    judged_ms: int = 0
    """When the verdict was recorded, by the clock of the Redis server; 0 before that."""
    left_out: int = 0
    """Number of metrics that are not among `metrics`, because there are too many or their names are too long."""

    def to_hash(self) -> dict[str, str]:
        """Return the fields that an edge writes beside its update; none where it has measured nothing."""
        phases = [[start.doing.value, start.start_ms] for start in self.phases[-MOST_PHASES:]]
        moved = [self.moved.sent_bytes, self.moved.received_bytes]
        fields = {"phases": json.dumps(phases, separators=(",", ":"))} if phases else {}
        return fields | ({"moved": json.dumps(moved, separators=(",", ":"))} if any(moved) else {})

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> Measured:
        """Read what an edge has written, which may be anything."""
        return cls(_phases(_read(fields.get("phases", ""))), _moved(_read(fields.get("moved", ""))))

    def with_metrics(self, metrics: Mapping[str, Any], *, last: Sequence[str] = ()) -> Measured:
        """Return it with the finite numbers among these metrics; counts and those named `last` where there is room."""
        first = {name: metrics[name] for name in beside_last(list(metrics)) if name not in last}
        ordered = first | {name: metrics[name] for name in last if name in metrics}
        kept = kept_metrics(ordered, MOST_METRICS, LONGEST_NAME)
        return replace(
            self, metrics=kept, left_out=sum(finite(value) is not None for value in ordered.values()) - len(kept)
        )

    def within(self, opened_ms: int, last_ms: int) -> tuple[PhaseStart, ...]:
        """Return its phases with beginnings within the times of the round, also where the edge says otherwise."""
        last_ms = max(opened_ms, last_ms)
        return tuple(PhaseStart(doing, min(max(start_ms, opened_ms), last_ms)) for doing, start_ms in self.phases)

    def to_json(self) -> str:
        """Write it as it stands in Redis, without `judged_ms`: leaves out the last metrics for `MOST_BYTES`.

        The script that records the verdict puts `judged_ms` before it: see `judged_at`.
        """
        metrics = dict(self.metrics)
        phases = [[start.doing.value, start.start_ms] for start in self.phases[-MOST_PHASES:]]
        moved = [self.moved.sent_bytes, self.moved.received_bytes]
        while True:
            fields: dict[str, Any] = {"phases": phases, "moved": moved, "metrics": metrics}
            if left_out := self.left_out + len(self.metrics) - len(metrics):
                fields["left_out"] = left_out
            text = json.dumps(fields, separators=(",", ":"), allow_nan=False)
            if len(text) <= MOST_BYTES or not metrics:
                return text
            metrics.popitem()

    def judged_at(self, judged_ms: int) -> str:
        """Return its JSON with the time of the verdict, as `judge_update.lua` writes it."""
        return f'{{"judged_ms":{judged_ms},{self.to_json()[1:]}'

    @classmethod
    def from_json(cls, text: str) -> Measured:
        """Read what stands in Redis; what cannot be read of it is left out."""
        found = _read(text, 2 * MOST_BYTES)
        if not isinstance(found, dict):
            return cls()
        metrics = found.get("metrics")
        return cls(
            _phases(found.get("phases")),
            _moved(found.get("moved")),
            kept_metrics(metrics, MOST_METRICS, LONGEST_NAME) if isinstance(metrics, dict) else {},
            _amount(found.get("judged_ms")) or 0,
            _amount(found.get("left_out")) or 0,
        )


def _read(text: str, most: int = _LONGEST_FIELD) -> Any:
    try:
        return json.loads(text) if text and len(text) <= most else None
    except (ValueError, RecursionError):
        return None


def _phases(found: Any) -> tuple[PhaseStart, ...]:
    """Read phases in the order of their beginnings; those of unknown words, or that go back in time, are left out."""
    starts: list[PhaseStart] = []
    for each in found if isinstance(found, list) else ():
        word, start_ms = each if isinstance(each, list) and len(each) == 2 else (None, None)
        doing, begun = _WORDS.get(word) if isinstance(word, str) else None, _amount(start_ms)
        if doing is not None and begun and (not starts or begun >= starts[-1].start_ms):
            starts.append(PhaseStart(doing, begun))
    return tuple(starts[-MOST_PHASES:])


def _moved(found: Any) -> Moved:
    sent, received = found if isinstance(found, list) and len(found) == 2 else (None, None)
    return Moved(_amount(sent) or 0, _amount(received) or 0)


def _amount(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < _MOST else None
