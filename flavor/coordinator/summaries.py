"""The evaluations of a run that have a result, as its coordinator has read them: each one once."""

from __future__ import annotations

from flavor.bus.runs import RunStore
from flavor.records.evaluation import EvaluationSummary


class Summaries:
    """Follows the list of evaluations with a result, which only grows as long as the server does not lose the run."""

    def __init__(self, runs: RunStore) -> None:
        self._runs = runs
        self._read: list[EvaluationSummary] = []
        self._last = ""  # the newest entry that was read

    def read(self) -> list[EvaluationSummary]:
        """Return all of them, oldest first. Raises `DamagedRecord`."""
        first = max(len(self._read) - 1, 0)
        texts = self._runs.evaluated(first)
        if self._read and texts[:1] != [self._last]:  # this is another server, or it has lost writes
            self._read, texts = [], self._runs.evaluated()
        elif self._read:
            texts = texts[1:]
        self._read = [*self._read, *map(EvaluationSummary.from_json, texts)]
        self._last = texts[-1] if texts else self._last
        return self._read
