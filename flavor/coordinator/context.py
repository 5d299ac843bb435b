"""What the stages of a run's rounds work with, and how a stage ends the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flavor.bus.jobs import JobQueue
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.asking import LeftBehind
from flavor.coordinator.central import CentralEvaluations
from flavor.coordinator.client_log import ClientLog
from flavor.coordinator.coordinator_lease import CoordinatorLease
from flavor.coordinator.current_run import CurrentRun
from flavor.coordinator.deadlines import Deadlines
from flavor.coordinator.evaluations import SiteEvaluations
from flavor.coordinator.inspections import Inspections
from flavor.coordinator.late_updates import LateUpdates
from flavor.coordinator.members import Members
from flavor.coordinator.pruning import Pruning
from flavor.coordinator.wait_log import Waits
from flavor.errors import IllegalMove
from flavor.failpoints import reach
from flavor.ledger.history import History
from flavor.policy.advice import public
from flavor.policy.decision import Action, Decision
from flavor.policy.next_step import Known
from flavor.policy.standing import Standing, with_absent
from flavor.records.round import RoundView
from flavor.records.states import RunState
from flavor.store.protocol import ObjectStore
from flavor.view.observer import Observer


@dataclass(frozen=True)
class RunContext:
    """One run that is served: its settings, what was read of it, and the parts that act on it."""

    runs: RunStore
    config: RunConfig
    store: ObjectStore
    current: CurrentRun
    members: Members
    jobs: JobQueue
    inspections: Inspections
    evaluations: SiteEvaluations
    central: CentralEvaluations
    left_behind: LeftBehind
    lease: CoordinatorLease
    history: History
    pruning: Pruning
    client_log: ClientLog
    late: LateUpdates
    deadlines: Deadlines
    waits: Waits
    observer: Observer

    def known(
        self,
        round_: RoundView | None,
        standings: Mapping[str, tuple[Standing, str]],
        *,
        uninspected: str = "",
        uninspected_ms: int | None = None,
        enqueued_ms: int | None = None,
    ) -> Known:
        """Return what is known of the run and this round; see `Known`."""
        return Known(
            run=self.current.view,
            round=round_,
            standings=standings,
            clients=with_absent(self.members.names, self.members.clients),
            config=self.config,
            now_ms=self.current.now_ms(),
            uninspected=uninspected,
            uninspected_ms=uninspected_ms,
            enqueued_ms=enqueued_ms,
            is_lenient=self.lease.is_lenient,
        )

    def end(self, decision: Decision) -> None:
        """End the run, as decided. Raises `IllegalMove` when the round has changed since the decision."""
        state = RunState.FINISHED if decision.action is Action.FINISH else RunState.FAILED
        reason = decision.of_run
        reach("coordinator.ending")
        seen = self.current.round.view if self.current.round else None
        try:
            self.runs.end(
                state, public(reason), detail=reason, token=self.lease.token, seen=seen, is_met=decision.is_met
            )
        except IllegalMove:
            self.current.read_run()
            if not self.current.view.state.ended:
                raise
        reach("coordinator.ended")
        self.current.read_run()
