"""Where the job of an evaluation is: what a coordinator knows of the work that it has asked a worker for.

An attempt goes wrong where its worker reports an error, or where no worker has the job in hand and it waits in no
queue. The time for which a job waits, or a worker that is alive works on it, counts for nothing: aggregators that have
other work are late, and have not failed.
"""

from __future__ import annotations

from dataclasses import dataclass

from flavor.config import RunConfig

LOST_S = 5.0
"""How long a job may be in no queue and in no worker's hands: it is so for a moment when a worker takes it."""


@dataclass(frozen=True)
class Whereabouts:
    """Where the job of an evaluation's current attempt was at the last look."""

    lost_s: float = 0.0
    """For how long it has been in no worker's hands and in no queue."""
    is_taken: bool = False
    """Whether a worker has it in hand, and renews its lease."""
    workers: int | None = None
    """Number of aggregators; None where they were not counted, because the job is not late."""
    absence: str = ""
    """Why there is no aggregator, where there is none."""

    def is_lost(self, config: RunConfig) -> bool:
        """Return whether the attempt has failed without a word."""
        return self.lost_s >= min(LOST_S, config.aggregation_lease_s)
