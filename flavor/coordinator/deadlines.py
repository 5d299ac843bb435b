"""How long the next round waits: the run's one deadline, or what is learned from the rounds before."""

from __future__ import annotations

from dataclasses import dataclass, field

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.members import Members
from flavor.deadline_settings import learned_of
from flavor.policy.deadline import LAST_ROUNDS, Times, learned_timeout, missed_since, missing, times_of


@dataclass
class Deadlines:
    """The deadlines of one run. What Redis has of the last rounds is enough to go on after a restart."""

    runs: RunStore
    config: RunConfig
    members: Members
    _times: dict[int, Times] = field(default_factory=dict)

    @property
    def are_learned(self) -> bool:
        """Whether deadlines follow from how long sites take."""
        return learned_of(self.config.round_timeout_s) is not None

    @property
    def are_counted(self) -> bool:
        """Whether a round's hash says which sites have missed how many deadlines in a row."""
        mode = self.config.buffered
        return self.are_learned if mode is None else mode.buffer is None

    def timeout(self, round_: int, *, opening: int = 1) -> tuple[float, str]:
        """Return how long this opening of a round waits, in seconds, and why, in words; '' where it is not learned."""
        learned = learned_of(self.config.round_timeout_s)
        if learned is None:
            return self.config.longest_round_s, ""
        rounds = range(max(1, round_ - LAST_ROUNDS), round_)
        self._times = {number: self._times.get(number) or self._read(number) for number in rounds}
        return learned_timeout(
            learned, list(self._times.values()), opening=opening, is_lost=self.config.buffered is None
        )

    def gone(self) -> set[str]:
        """Return the clients that are not there to work."""
        return {
            name
            for name, client in self.members.clients.items()
            if client.state.gone or not client.alive or client.quarantined
        }

    def _read(self, round_: int) -> Times:
        view = self.runs.read_round(round_)
        if view is None:  # pruned, or of a run that was rebuilt from the store
            return Times()
        after = self.runs.read_round(round_ + 1) if self.are_counted else None
        late = missing(view, self.gone()) if after is None else missed_since(view, after)
        measured = self.runs.measured(round_)
        tasks = {task: self.runs.read_round(task) for task in set(view.since.values())}
        begun_ms = {task: each.worked_from_ms for task, each in tasks.items() if each is not None}
        return times_of(view, {client: each.judged_ms for client, each in measured.items()}, late, begun_ms)
