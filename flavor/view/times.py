"""How long each client takes for a round: what is usual, and what is long."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from flavor.bus.runs import RunStore
from flavor.records.measured import Measured
from flavor.records.pulse import Doing


@dataclass(frozen=True)
class ClientTimes:
    """One client's times from the beginning of its download, or of its training, until it handed in, in seconds."""

    median_s: float
    last_s: float
    last_round: int
    """The round that `last_s` is of."""


class TimesReader:
    """Reads each closed round once, and remembers only its clients' times. Not thread-safe."""

    def __init__(self, runs: RunStore) -> None:
        self._runs = runs
        self._generation = 0
        self._read: dict[int, dict[str, float]] = {}

    def of(self, rounds: Sequence[int], generation: int) -> dict[str, ClientTimes]:
        """Return the times of each client in these closed rounds. Another `generation` makes it read all again."""
        before = self._read if generation == self._generation else {}
        self._generation = generation
        self._read = {round_: before[round_] if round_ in before else self._of_round(round_) for round_ in rounds}
        every: dict[str, list[tuple[int, float]]] = {}
        for round_, seconds in self._read.items():
            for client, each in seconds.items():
                every.setdefault(client, []).append((round_, each))
        return {
            client: ClientTimes(statistics.median(each for _, each in found), found[-1][1], found[-1][0])
            for client, found in every.items()
        }

    def _of_round(self, round_: int) -> dict[str, float]:
        measured = self._runs.measured(round_)
        return {client: seconds for client, each in measured.items() if (seconds := seconds_of(each)) is not None}


def seconds_of(measured: Measured) -> float | None:
    """Return how long a client was at work on a round; None where its edge does not say."""
    ends = [start.start_ms for start in measured.phases if start.doing is Doing.UPLOADED]
    return (ends[-1] - measured.phases[0].start_ms) / 1000 if ends else None
