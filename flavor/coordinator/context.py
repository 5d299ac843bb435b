"""What the stages of a run's rounds work with, and how a stage ends the run."""

from __future__ import annotations

from dataclasses import dataclass

from flavor.bus.jobs import JobQueue
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.client_log import ClientLog
from flavor.coordinator.coordinator_lease import CoordinatorLease
from flavor.coordinator.current_run import CurrentRun
from flavor.coordinator.inspections import Inspections
from flavor.coordinator.late_updates import LateUpdates
from flavor.coordinator.members import Members
from flavor.coordinator.pruning import Pruning
from flavor.coordinator.waits import Waits
from flavor.errors import IllegalMove
from flavor.failpoints import reach
from flavor.ledger.history import History
from flavor.policy.advice import public
from flavor.policy.decision import Action
from flavor.policy.policy import Policy
from flavor.records.states import RunState
from flavor.store.protocol import ObjectStore
from flavor.view.observer import Observer


@dataclass(frozen=True)
class RunContext:
    """One run that is served: its settings, what was read of it, and the parts that act on it."""

    runs: RunStore
    config: RunConfig
    store: ObjectStore
    policy: Policy
    current: CurrentRun
    members: Members
    jobs: JobQueue
    inspections: Inspections
    lease: CoordinatorLease
    history: History
    pruning: Pruning
    client_log: ClientLog
    late: LateUpdates
    waits: Waits
    observer: Observer

    def is_too_early(self, action: Action) -> bool:
        """Whether `action` would end or reopen the round while clients are still given time to come back.

        After the deadline of an open round, no action is too early.
        """
        round_ = self.current.round
        if round_ is not None and round_.is_open and self.current.now_ms() >= round_.view.deadline_ms:
            return False
        return action in (Action.FAIL, Action.REOPEN) and self.lease.is_lenient

    def end(self, state: RunState, reason: str) -> None:
        """End the run. Raises `IllegalMove` when the round has changed since the decision."""
        reach("coordinator.ending")
        seen = self.current.round.view if self.current.round else None
        try:
            self.runs.end(state, public(reason), detail=reason, token=self.lease.token, seen=seen)
        except IllegalMove:
            self.current.read_run()
            if not self.current.view.state.ended:
                raise
        reach("coordinator.ended")
        self.current.read_run()
