"""The run that is served, as this coordinator has read it. All of it is in Redis, and can be read again."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.client_log import ClientLog
from flavor.coordinator.coordinator_lease import CoordinatorLease
from flavor.coordinator.late_updates import LateUpdates
from flavor.coordinator.members import Members
from flavor.coordinator.round_as_read import CurrentRound
from flavor.policy.buffered import given_up_lately
from flavor.records.evaluation import CENTRAL
from flavor.records.names import count
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.states import RoundState, RunState
from flavor.view.event import Notice
from flavor.view.observer import Observer

_TICK_S = 1.0
_LOOK_BACK = 20
"""In so many rounds before the newest two a coordinator that takes over looks for tasks that were given up."""


class CurrentRun:
    """A run with its current round and its clients, on the server's clock."""

    def __init__(
        self,
        runs: RunStore,
        config: RunConfig,
        *,
        members: Members,
        client_log: ClientLog,
        late: LateUpdates,
        lease: CoordinatorLease,
        observer: Observer,
    ) -> None:
        self._runs, self._config, self._observer = runs, config, observer
        self._members, self._client_log, self._late, self._lease = members, client_log, late, lease
        self.view: RunView = runs.read()
        self.round: CurrentRound | None = None
        """The newest round; None before the first round."""
        self.has_evaluation_news = False
        """Whether something was written about an evaluation since it was read."""
        self.has_result_news = False
        """Whether a site has handed in a result of an evaluation since the results were read."""
        self.has_central_news = False
        """Whether something was written about an evaluation on the operator's own data since these were read."""
        self.is_evaluation_unknown = False
        """Whether everything about it is to be read again: this may be another server, or one that has lost writes."""
        self._incarnation: tuple[str, int, int] | None = None
        self._clock_ms = 0.0  # the server's clock minus this process's monotonic one, in milliseconds

    @property
    def rounds(self) -> tuple[CurrentRound | None, ...]:
        """The rounds that the loop steps: the current round, which is None before the first."""
        return (self.round,)

    @property
    def awaited_round(self) -> int | None:
        """The round that the run waits for; None between rounds."""
        return None if self.round is None or self.round.is_closed else self.round.number

    # -- the clock

    def now_ms(self) -> int:
        """Return the time of the server's clock, worked out from this process's clock, in milliseconds."""
        return int(time.monotonic() * 1000 + self._clock_ms)

    def set_clock(self, now_ms: int) -> None:
        """Take over the time that the server's clock shows now."""
        self._clock_ms = now_ms - time.monotonic() * 1000

    def pause_s(self) -> float:
        """Return how long to wait for an event before the next step: at most a second, or to the deadline."""
        if self.round is None or not self.round.is_open:
            return _TICK_S
        left_ms = self.round.view.deadline_ms - self.now_ms()
        return min(_TICK_S, max(1, left_ms) / 1000) if left_ms > -1000 else _TICK_S

    # -- what this coordinator has done

    def opened(self, view: RoundView) -> None:
        """Record that this coordinator has opened a round."""
        self.round = CurrentRound(view)
        self.view = replace(self.view, round=view.round, state=RunState.RUNNING)
        self._client_log.round = view.round

    def read_run(self) -> None:
        """Read the run itself again."""
        self.view = self._runs.read()

    def read_round_view(self, round_: CurrentRound) -> None:
        """Read the hash and the verdicts of a round again. A round that is gone stays as it was read before."""
        round_.view = self._runs.read_round(round_.number) or round_.view

    def reload_round(self) -> None:
        """Forget everything about the current round, and read it again."""
        self.round = None
        self._read_round()

    # -- reading

    def read_all(self) -> None:
        """Read everything again: the server may be another one, or may have lost writes."""
        view = self._runs.read()
        self.has_evaluation_news = self.has_result_news = self.has_central_news = True
        self.is_evaluation_unknown = True
        if self._incarnation not in (None, view.incarnation):
            line = f"run {view.run!r} was rebuilt from the store after round {view.round}"
            self._observer.hear(Notice(line))
            self._members.forget()
            self.round = None
        self.view, self._incarnation = view, view.incarnation
        self._client_log.round = view.round
        self.set_clock(self._runs.now_ms())
        self._members.read_all(token=self._admitting, lenient=lambda: self._lease.is_lenient)
        if self.view.round:
            before = self._runs.read_round(self.view.round - 1) if self.round is None else None  # closed by another
            if before is not None:
                self._late.expect(before)
                self._late.refuse_unheard()
            self._read_round()
            if before is not None and before.is_buffered and self.round is not None:
                numbers = range(max(1, before.round - _LOOK_BACK), before.round)
                earlier = [each for number in numbers if (each := self._runs.read_round(number)) is not None]
                self._late.expect_of(given_up_lately([*earlier, before], self.round.view))
        self._late.refuse_unheard()

    @property
    def _admitting(self) -> str | None:
        """The token that admits clients; None once the run has ended."""
        return None if self.view.state.ended else self._lease.token

    def _read_round(self) -> None:
        view = self._runs.read_round(self.view.round)
        if view is None:
            return
        if self.round is None or self.round.number != view.round:
            self.round = CurrentRound(view, enqueued_ms=self.now_ms(), is_reported=view.state is RoundState.CLOSED)
        self.round.view = view
        if view.state is RoundState.OPEN:
            self.read_updates(client for client in view.expected if self.round.may_hand_in(client))
        else:
            self._late.expect(view)

    def read_updates(self, clients: Iterable[str]) -> None:
        """Read the updates that these clients have handed in for the current round."""
        names, round_ = list(clients), self.round
        assert round_ is not None
        found = self._runs.updates(round_.number, names, since=round_.view.since)
        round_.learn_updates(names, found, most_taken_back=self._config.aggregation_attempts)

    def read_changes(self, channels: list[str]) -> None:
        """Read what has changed, as the channels of the events say, and refuse updates that came late."""
        clients: set[str] = set()
        updates: set[str] = set()
        judged: set[str] = set()
        number = self.round.number if self.round else 0
        for channel in channels:
            if ":evaluation:" in channel:
                is_central, is_result = channel.endswith(f":evaluation:{CENTRAL}"), channel.endswith(":update")
                self.has_central_news |= is_central
                self.has_result_news |= is_result
                self.has_evaluation_news |= not (is_central or is_result)
                continue
            parsed = self._runs.keys.parse_client_channel(channel)
            if parsed is not None:
                client, rest = parsed
                task = self.round.view.task_round(client) if self.round else number
                if rest == "state":
                    clients.add(client)
                elif rest == f"round:{task}:update":
                    updates.add(client)
                elif rest == f"round:{task}:verdict":
                    judged.add(client)
                elif rest.endswith(":update") and (other := count(rest.split(":")[1])) is not None:
                    self._late.refuse(other, client)
        late = updates if self.round and not self.round.is_open else set()
        for client in late if self.round and not self.round.view.is_buffered else ():  # else for the next round
            self._late.refuse(number, client)
        new = self._runs.verdicts(number, judged) if self.round and judged else {}
        if self._members.recount(clients | judged, refused=self._client_log.report_verdicts(number, new)):
            clients |= judged  # perhaps quarantined now, or pardoned
        if clients:
            self._members.read(clients, token=self._admitting, lenient=lambda: self._lease.is_lenient)
            updates |= self.round.taken_back(clients) if self.round else set()
        if self._runs.keys.state in channels:
            self.read_run()
        if self.round and new:
            self.round.learn_verdicts(new)
        if self.round and self._runs.keys.round(number) in channels:
            self.read_round_view(self.round)
            if self.round.is_closed:
                self.read_run()
        if updates - late:
            self.read_updates(client for client in updates if self.round and client in self.round.view.expected)
