"""Has each update of the open round inspected: puts jobs into the queue, repeats them, and gives up in the end."""

from __future__ import annotations

import time

from flavor.bus.jobs import JobQueue
from flavor.bus.runs import RunStore
from flavor.config import SMALL_UPDATE_BYTES, RunConfig
from flavor.coordinator.client_log import ClientLog
from flavor.coordinator.current_run import CurrentRun
from flavor.coordinator.members import Members
from flavor.coordinator.round_as_read import CurrentRound
from flavor.counted import counted
from flavor.policy.standing import LONGEST
from flavor.records.update import Refused
from flavor.records.verdict import Verdict

_STORE_AWAY = "the aggregators cannot use the store for now: their logs say why; trying again"
_PATIENCE_S = 2.0
"""After so many seconds without a verdict the coordinator looks whether an aggregator is there at all."""
_SLOWEST_BYTES_PER_S = 50e6
"""An inspection is not requested again before it would be done at this rate."""


class Inspections:
    """Requests the inspections of one run: a job for each large update, and one job for many small updates."""

    def __init__(
        self,
        runs: RunStore,
        config: RunConfig,
        current: CurrentRun,
        *,
        jobs: JobQueue,
        members: Members,
        client_log: ClientLog,
    ) -> None:
        self._runs, self._config, self._current, self._jobs = runs, config, current, jobs
        self._members, self._client_log = members, client_log

    def request(self, round_: CurrentRound) -> str:
        """Request the inspection of each update that has arrived in this round, and refuse what cannot be inspected.

        Returns why no update is inspected for now; '' while inspections go well.
        """
        now, requests = time.monotonic(), round_.requests
        small: list[str] = []
        small_in_flight = False
        unjudged = [client for client in round_.unjudged if not self._is_shut_out(client)]
        for client in unjudged:
            handed_in = round_.updates[client]
            if isinstance(handed_in, Refused):
                self._refuse(round_, client, handed_in.said(LONGEST))
                continue
            size = handed_in.size_bytes
            again_at = requests.again_at.get(client)
            if again_at is not None and now >= again_at and self._jobs.waits(requests.jobs[client]):
                again_at = requests.again_at[client] = now + self._config.aggregation_lease_s  # the job is still queued
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
            requests.unjudged_since = 0.0
            requests.is_store_away = False
            return ""
        requests.unjudged_since = requests.unjudged_since or now
        if now - requests.unjudged_since > _PATIENCE_S and self._jobs.workers() == 0:
            return self._jobs.absence()
        requests.is_store_away = requests.is_store_away and self._is_store_away(round_)
        return _STORE_AWAY if requests.is_store_away else ""

    def since_ms(self, round_: CurrentRound) -> int | None:
        """Return since when updates of this round wait for their inspection; None where none does."""
        since = round_.requests.unjudged_since
        return self._current.now_ms() - int(1000 * (time.monotonic() - since)) if since else None

    def _is_store_away(self, round_: CurrentRound) -> bool:
        """Whether an aggregator has reported lately that it cannot use the store."""
        away_ms = round_.view.away_ms
        return away_ms is not None and self._current.now_ms() - away_ms < 2000 * self._config.aggregation_lease_s

    def _is_shut_out(self, client: str) -> bool:
        """Whether no update of the client counts: it is quarantined, or the run does not admit its edge."""
        return self._members.is_quarantined(client) or not self._members.is_admitted(client)

    def _given_up(self, round_: CurrentRound, client: str) -> bool:
        """Refuse an update whose inspection has failed too often although aggregators are there.

        Return whether the update was refused.
        """
        times = round_.requests.times[client]
        if times < self._config.aggregation_attempts or not self._jobs.workers():
            return False
        if self._is_store_away(round_):
            round_.requests.forget(client)
            round_.requests.is_store_away = True
            return False
        self._refuse(round_, client, f"its inspection failed {counted(times, 'time')}")
        return True

    def _refuse(self, round_: CurrentRound, client: str, reason: str) -> None:
        refused = Verdict(False, reason, try_id=round_.updates[client].try_id)
        task = round_.view.task_round(client)
        self._client_log.refuse(round_.number, client, refused, task_round=task)
        self._current.read_round_view(round_)

    def _enqueue(self, round_: CurrentRound, clients: list[str], size_bytes: int) -> None:
        requests = round_.requests
        requests.number += 1
        requests.times.update(clients)
        longest_s = min(size_bytes / _SLOWEST_BYTES_PER_S, self._config.aggregation_timeout_s)  # a site claims the size
        again_at = time.monotonic() + self._config.aggregation_lease_s + longest_s
        requests.again_at.update(dict.fromkeys(clients, again_at))
        job = self._jobs.inspect(self._runs.run, round_.number, clients, attempt=requests.number)
        requests.jobs.update(dict.fromkeys(clients, job))
