"""What this coordinator has read of the current round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from flavor.records.round import RoundView
from flavor.records.states import RoundState
from flavor.records.update import Refused, Update
from flavor.records.verdict import Verdict


@dataclass
class InspectionRequests:
    """The inspections that this coordinator has requested in one round."""

    again_at: dict[str, float] = field(default_factory=dict)
    """Client to the time when its inspection is requested again, in seconds of the monotonic clock."""
    times: Counter[str] = field(default_factory=Counter)
    """How often the inspection of a client's current update was requested."""
    taken_back: Counter[str] = field(default_factory=Counter)
    """How often a client's update had disappeared from Redis."""
    jobs: dict[str, str] = field(default_factory=dict)
    """Client to the id of the newest job that inspects its update."""
    number: int = 0
    """How many jobs were put into the queue so far."""
    unjudged_since: float = 0.0
    """Since when an update has had no verdict, in seconds of the monotonic clock; 0 when all have one."""
    is_store_away: bool = False
    """Whether an update was not given up, although its inspections failed, because the aggregators' store is away."""

    def forget(self, client: str) -> None:
        """Begin anew with this client: its next update is inspected at once."""
        self.again_at.pop(client, None)
        del self.times[client]

    def forget_taken_back(self, client: str, *, most: int) -> None:
        """Note that an update disappeared. After more than `most` of them, the next one waits for a lease time."""
        self.taken_back[client] += 1
        if self.taken_back[client] <= most:
            self.forget(client)
        else:
            del self.times[client]


@dataclass
class CurrentRound:
    """A round with the updates that were handed in, and what this coordinator has requested and reported about it."""

    view: RoundView
    updates: dict[str, Update | Refused] = field(default_factory=dict)
    requests: InspectionRequests = field(default_factory=InspectionRequests)
    enqueued_ms: int = 0
    """When its aggregation was put into the queue, in milliseconds of the server's clock."""
    is_reported: bool = False
    """Whether it was reported that the round has closed."""
    notes: int = 0
    """How many of the view's notes were reported."""

    @property
    def number(self) -> int:
        """The number of the round, from 1 on."""
        return self.view.round

    @property
    def is_open(self) -> bool:
        """Whether it takes updates."""
        return self.view.state is RoundState.OPEN

    @property
    def is_closed(self) -> bool:
        """Whether it has its global model."""
        return self.view.state is RoundState.CLOSED

    @property
    def unjudged(self) -> list[str]:
        """The clients whose newest update has no verdict yet."""
        verdicts = self.view.verdicts
        return [c for c, each in self.updates.items() if c not in verdicts or not verdicts[c].is_about(each)]

    def may_hand_in(self, client: str) -> bool:
        """Whether this client may hand in an update while the round is open: none of its updates was accepted."""
        verdict = self.view.verdicts.get(client)
        return verdict is None or not verdict.accepted

    def taken_back(self, clients: set[str]) -> set[str]:
        """Return the clients among these whose update was refused: an edge that comes back removes the update."""
        if not self.is_open:
            return set()
        return {client for client in self.view.verdicts.keys() & clients if self.may_hand_in(client)}

    def learn_updates(
        self, names: Iterable[str], found: Mapping[str, Update | Refused], *, most_taken_back: int
    ) -> None:
        """Take over the updates of these clients: `found` has all of them that are in Redis now."""
        for client, handed_in in found.items():
            self.updates[client] = handed_in
            self._ask_anew_if_refused(client)
        for client in self.updates.keys() & (set(names) - found.keys()):  # removed by the edge, or lost in a failover
            del self.updates[client]
            self.requests.forget_taken_back(client, most=most_taken_back)

    def learn_verdicts(self, new: Mapping[str, Verdict]) -> None:
        """Take over these new verdicts."""
        self.view = replace(self.view, verdicts={**self.view.verdicts, **new})
        for client in new:
            self._ask_anew_if_refused(client)

    def _ask_anew_if_refused(self, client: str) -> None:
        """Have a client's newest update inspected at once if the verdict is about an earlier one."""
        handed_in, verdict = self.updates.get(client), self.view.verdicts.get(client)
        if handed_in is not None and verdict is not None and not verdict.is_about(handed_in):
            self.requests.forget(client)
