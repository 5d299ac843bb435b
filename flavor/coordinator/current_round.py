"""The current round, as far as this coordinator has read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from flavor.records.round import RoundView
from flavor.records.states import RoundState
from flavor.records.update import Refused, Update
from flavor.records.verdict import Verdict


@dataclass
class Asked:
    """Which inspections were asked for in one round."""

    again_at: dict[str, float] = field(default_factory=dict)
    """Client to when its inspection is asked for again (monotonic)."""
    times: Counter[str] = field(default_factory=Counter)
    """How often the inspection of a client's update was asked for."""
    taken_back: Counter[str] = field(default_factory=Counter)
    """How often a client's update was there no more."""
    jobs: dict[str, str] = field(default_factory=dict)
    """Client to the newest job that was to inspect its update."""
    number: int = 0
    """Jobs so far."""
    unjudged_since: float = 0.0
    """Since when there is an update without a verdict (monotonic); 0 when there is none."""
    is_store_away: bool = False
    """Whether inspections have failed so often that an update would be given up, and the aggregators' store is away."""

    def forget(self, client: str) -> None:
        """No inspection was asked for yet of what this client has handed in now."""
        self.again_at.pop(client, None)
        del self.times[client]

    def forget_taken_back(self, client: str, *, most: int) -> None:
        """Inspect what this client hands in next at once; once a lease, where it took back more than `most` updates."""
        self.taken_back[client] += 1
        if self.taken_back[client] <= most:
            self.forget(client)
        else:
            del self.times[client]


@dataclass
class CurrentRound:
    """A round with the updates that lie there, and what this process has asked for and told about it."""

    view: RoundView
    updates: dict[str, Update | Refused] = field(default_factory=dict)
    asked: Asked = field(default_factory=Asked)
    enqueued_ms: int = 0
    """When its aggregation was put into the queue, on the server's clock."""
    is_reported: bool = False
    """Whether it was reported that the round has closed."""
    notes: int = 0
    """How many of the view's notes were told."""

    @property
    def number(self) -> int:
        """Which round it is."""
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
        """Clients whose update, or whose newest try, has no verdict yet."""
        verdicts = self.view.verdicts
        return [c for c, each in self.updates.items() if c not in verdicts or not verdicts[c].is_about(each)]

    def may_hand_in(self, client: str) -> bool:
        """Whether an update of this client may come while the round is open: it has no verdict, or was refused."""
        verdict = self.view.verdicts.get(client)
        return verdict is None or not verdict.accepted

    def taken_back(self, clients: set[str]) -> set[str]:
        """Those of them whose update was refused: an edge that came back removes it, and trains the round again."""
        if not self.is_open:
            return set()
        return {client for client in self.view.verdicts.keys() & clients if self.may_hand_in(client)}

    def learn_updates(
        self, names: Iterable[str], found: Mapping[str, Update | Refused], *, most_taken_back: int
    ) -> None:
        """Of these clients the updates in `found` lie there now, and no others."""
        for client, handed_in in found.items():
            self.updates[client] = handed_in
            self._ask_anew_if_refused(client)
        for client in self.updates.keys() & (set(names) - found.keys()):  # taken back, or lost in a failover
            del self.updates[client]
            self.asked.forget_taken_back(client, most=most_taken_back)

    def learn_verdicts(self, new: Mapping[str, Verdict]) -> None:
        """These verdicts were given."""
        self.view = replace(self.view, verdicts={**self.view.verdicts, **new})
        for client in new:
            self._ask_anew_if_refused(client)

    def _ask_anew_if_refused(self, client: str) -> None:
        """Have the newest try of a client inspected at once, where the one before has its verdict."""
        handed_in, verdict = self.updates.get(client), self.view.verdicts.get(client)
        if handed_in is not None and verdict is not None and not verdict.is_about(handed_in):
            self.asked.forget(client)
