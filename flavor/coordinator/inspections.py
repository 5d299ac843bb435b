"""Has each update of the open round inspected: asks aggregators, asks again, and gives up in the end."""

from __future__ import annotations

import time

from flavor.bus.jobs import JobQueue
from flavor.bus.runs import RunStore
from flavor.config import SMALL_UPDATE_BYTES, RunConfig
from flavor.coordinator.current_round import CurrentRound
from flavor.coordinator.current_run import CurrentRun
from flavor.coordinator.heard import Heard
from flavor.coordinator.members import LONGEST, Members
from flavor.records.update import Refused
from flavor.records.verdict import Verdict

_STORE_AWAY = "the aggregators cannot use the store for now: their own lines say why; trying again"
_PATIENCE_S = 2.0
"""An update that waits for longer makes the coordinator look whether there is an aggregator at all."""
_SLOWEST_BYTES_PER_S = 50e6
"""An inspection is not asked for again before it would be done at this rate."""


class Inspections:
    """What one run's aggregators are asked to inspect: large updates each at once, small ones many in a job."""

    def __init__(
        self,
        runs: RunStore,
        config: RunConfig,
        current: CurrentRun,
        *,
        jobs: JobQueue,
        members: Members,
        heard: Heard,
    ) -> None:
        self._runs, self._config, self._current, self._jobs = runs, config, current, jobs
        self._members, self._heard = members, heard

    def ask(self, round_: CurrentRound) -> str:
        """Ask for the inspection of what has arrived in this round, and refuse what cannot be inspected.

        Returns why nothing is inspected for now; '' while all goes well.
        """
        now, asked = time.monotonic(), round_.asked
        small: list[str] = []
        small_in_flight = False
        unjudged = [client for client in round_.unjudged if not self._is_shut_out(round_, client)]
        for client in unjudged:
            handed_in = round_.updates[client]
            if isinstance(handed_in, Refused):
                self._refuse(round_, client, handed_in.reason[:LONGEST])
                continue
            size = handed_in.size_bytes
            again_at = asked.again_at.get(client)
            if again_at is not None and now >= again_at and self._jobs.waits(asked.jobs[client]):
                again_at = asked.again_at[client] = now + self._config.aggregation_lease_s  # it was not tried yet
            if (again_at is None or now >= again_at) and self._given_up(round_, client):
                continue
            if again_at is not None and now < again_at:
                small_in_flight |= size < SMALL_UPDATE_BYTES
            elif size < SMALL_UPDATE_BYTES and again_at is None:
                small.append(client)
            else:
                self._enqueue(round_, [client], size)
        if small and not small_in_flight:
            self._enqueue(round_, small, SMALL_UPDATE_BYTES)
        if not any(client in unjudged for client in round_.unjudged):
            asked.unjudged_since = 0.0
            asked.is_store_away = False
            return ""
        asked.unjudged_since = asked.unjudged_since or now
        if now - asked.unjudged_since > _PATIENCE_S and self._jobs.workers() == 0:
            return self._jobs.absence()
        asked.is_store_away = asked.is_store_away and self._is_store_away(round_)
        return _STORE_AWAY if asked.is_store_away else ""

    def _is_store_away(self, round_: CurrentRound) -> bool:
        """Whether an aggregator has said lately that it cannot use the store."""
        away_ms = round_.view.away_ms
        return away_ms is not None and self._current.now_ms() - away_ms < 2000 * self._config.aggregation_lease_s

    def _is_shut_out(self, round_: CurrentRound, client: str) -> bool:
        """Whether it was refused in this round once too often: by one more try it would let itself in again."""
        return client in round_.view.verdicts and self._members.is_quarantined(client)

    def _given_up(self, round_: CurrentRound, client: str) -> bool:
        """Refuse an update whose inspection never comes to an end although somebody inspects."""
        times = round_.asked.times[client]
        if times < self._config.aggregation_attempts or not self._jobs.workers():
            return False
        if self._is_store_away(round_):
            round_.asked.forget(client)
            round_.asked.is_store_away = True
            return False
        self._refuse(round_, client, f"its inspection failed {times} times")
        return True

    def _refuse(self, round_: CurrentRound, client: str, reason: str) -> None:
        refused = Verdict(False, reason, try_id=round_.updates[client].try_id)
        self._heard.refuse(round_.number, client, refused)
        self._current.read_round_view(round_)

    def _enqueue(self, round_: CurrentRound, clients: list[str], size_bytes: int) -> None:
        asked = round_.asked
        asked.number += 1
        asked.times.update(clients)
        longest_s = min(size_bytes / _SLOWEST_BYTES_PER_S, self._config.aggregation_timeout_s)  # a site claims the size
        again_at = time.monotonic() + self._config.aggregation_lease_s + longest_s
        asked.again_at.update(dict.fromkeys(clients, again_at))
        job = self._jobs.inspect(self._runs.run, round_.number, clients, attempt=asked.number)
        asked.jobs.update(dict.fromkeys(clients, job))
