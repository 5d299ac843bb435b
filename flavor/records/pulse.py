"""What a client is doing, as its edge writes it into the client's own hash while the client trains.

People read it, and no decision is taken on it: the coordinator does not read these fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from flavor.records.moved import Moved
from flavor.records.names import count
from flavor.records.reported import Reported

FIELDS = ("doing", "doing_round", "doing_ms", "reported", "reported_ms", "load", "sent", "received", "moved_ms")
"""The fields of a client's hash that hold its pulse."""
_MOST = 2**63
_LONGEST_LOAD = 1024


class Doing(StrEnum):
    """What a client's edge and trainer are doing."""

    STARTING = "starting"
    """The trainer has not set TrainInitDone."""
    WAITING = "waiting"
    """The trainer waits for a round that this client takes part in."""
    DOWNLOADING = "downloading"
    TRAINING = "training"
    EVALUATING = "evaluating"
    """The evaluator judges the global model of a round. An earlier release does not know this word."""
    UPLOADING = "uploading"
    UPLOADED = "uploaded"
    """The update waits for its inspection."""
    INSPECTED = "inspected"
    """The update is accepted, and the next round is not there yet."""


@dataclass(frozen=True)
class Gpus:
    """The GPUs of a client's machine, taken together."""

    number: int
    percent: float
    """How busy they are, on average."""
    used_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Load:
    """How busy a client's machine is, with all that runs on it."""

    cpu_percent: float
    """Of all its CPUs."""
    used_bytes: int
    """Memory in use."""
    total_bytes: int
    gpus: Gpus | None = None
    """None where the machine has no GPU of NVIDIA's, or nvidia-ml-py is not installed."""

    def to_json(self) -> str:
        """Return an array: CPU, memory in use, memory; and of the GPUs their number, load, memory in use, memory."""
        gpus = self.gpus
        of_gpus = [] if gpus is None else [gpus.number, gpus.percent, gpus.used_bytes, gpus.total_bytes]
        return json.dumps([self.cpu_percent, self.used_bytes, self.total_bytes, *of_gpus], allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Load | None:
        """Read what another party has written; None where that is no load."""
        try:
            found = json.loads(text) if len(text) <= _LONGEST_LOAD else None
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, list) or len(found) not in (3, 7) or not all(map(_is_amount, found)):
            return None
        cpu, used, total, *of_gpus = found
        gpus = None
        if of_gpus:
            number, percent, gpus_used, gpus_total = of_gpus
            gpus = Gpus(int(number), _percent(percent), int(gpus_used), int(gpus_total))
        return cls(_percent(cpu), int(used), int(total), gpus)


@dataclass(frozen=True)
class Pulse:
    """What a client is doing, how far its script says that it is, and how busy its machine is."""

    doing: Doing | None = None
    """None where the edge says nothing, or a word that this release does not know."""
    round: int = 0
    """The round that it is about; 0 before the first."""
    since_ms: int = 0
    """Since when, in milliseconds since 1970 by the clock of the Redis server."""
    reported: Reported | None = None
    """None where the script reports nothing, or the site keeps it (`--no-report`)."""
    load: Load | None = None
    """None where the site keeps it (`--no-report`)."""
    moved: Moved = field(default_factory=Moved)
    """What its edge has moved since it joined the run."""
    reported_ms: int = 0
    """When the script reported that, as `since_ms`; 0 where the edge does not say, as one of an earlier release."""

    def to_hash(self) -> dict[str, str]:
        """Return all fields; '' for what is not known, so that nothing of an earlier process stays."""
        return {
            "doing": self.doing or "",
            "doing_round": str(self.round),
            "doing_ms": str(self.since_ms),
            "reported": self.reported.to_json() if self.reported is not None else "",
            "reported_ms": str(self.reported_ms),
            "load": self.load.to_json() if self.load is not None else "",
            **self.moved.to_hash(),
        }

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> Pulse:
        """Read what a client has written, also if it is invalid."""
        word, reported, load = (fields.get(name, "") for name in ("doing", "reported", "load"))
        return cls(
            Doing(word) if word in tuple(Doing) else None,
            count(fields.get("doing_round")) or 0,
            count(fields.get("doing_ms")) or 0,
            Reported.from_json(reported) if reported else None,
            Load.from_json(load) if load else None,
            Moved.from_hash(fields),
            count(fields.get("reported_ms")) or 0,
        )


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MOST  # NaN is not


def _percent(value: float) -> float:
    return min(100.0, float(value))
