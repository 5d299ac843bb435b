"""Refuses updates that arrive after their round closed: each one once, even if the event of its arrival was lost."""

from __future__ import annotations

from collections.abc import Mapping

from flavor.bus.runs import RunStore
from flavor.coordinator.client_log import ClientLog
from flavor.records.round import RoundView
from flavor.records.states import RoundState
from flavor.records.update import Refused, Update
from flavor.view.client_events import UpdateIgnored


class LateUpdates:
    """Refuses the late updates of one run.

    An edge hands in no update for a round once it has a task of the next one. So it is enough to look for late updates
    once more after each opening of a round. A coordinator that takes over looks at the round before the current one.
    In an asynchronous run the updates are late whose tasks were given up. An edge may hear of that some rounds later.
    """

    def __init__(self, runs: RunStore, client_log: ClientLog) -> None:
        self._runs, self._client_log = runs, client_log
        self._round = 0  # the newest round that is closed for updates
        self._missing: set[str] = set()  # clients without an accepted update in that round
        self._given_up: dict[str, int] = {}  # the newest task of each client that was given up, by its round
        self._ignored: set[tuple[int, str]] = set()

    def expect(self, view: RoundView) -> None:
        """Record that this round is closed for updates: an update that comes now is late."""
        if view.is_buffered:  # what comes now counts in the next round
            self._round, self._missing = view.round, set()
            return
        accepted = {client for client, verdict in view.verdicts.items() if verdict.accepted}
        self._round, self._missing = view.round, {*view.expected, *view.left_out} - accepted

    def expect_of(self, given_up: Mapping[str, int]) -> None:
        """Record that no update of these tasks counts: client to the round of its task, in an asynchronous run.

        One that was handed in before, while no round took updates, is refused at once.
        """
        self._given_up.update(given_up)
        self.refuse_unheard()

    def refuse_unheard(self) -> None:
        """Refuse late updates whose event was lost."""
        if self._given_up:
            for client in self._runs.updates(0, sorted(self._given_up), since=self._given_up):
                self.refuse(self._given_up.pop(client), client)
        if self._missing:
            for client in self._runs.updates(self._round, sorted(self._missing)):
                self.refuse(self._round, client)
                self._missing.discard(client)

    def refuse(self, number: int, client: str) -> None:
        """Refuse an update of a round that is not open, from a client that had a task in that round."""
        view = self._runs.read_round(number)
        if view is None or view.state is RoundState.OPEN or client not in (*view.expected, *view.left_out):
            return  # open: another coordinator has taken over while this one was paused
        handed_in, verdict = self._runs.updates(number, [client]).get(client), view.verdicts.get(client)
        if handed_in is None:
            return
        if verdict is not None and verdict.is_about(handed_in):
            self._ignore(view, client, handed_in)
        else:
            self._client_log.refuse_late(number, client, handed_in)

    def _ignore(self, view: RoundView, client: str, handed_in: Update | Refused) -> None:
        """Log once that an update handed in after its acceptance, with other content, does not count.

        A refusal keeps nothing of what was refused, so that it cannot be known whether its try has other content now.
        """
        verdict = view.verdicts[client]
        if (
            not verdict.accepted
            or _digest(handed_in) == _digest(verdict.update)
            or (view.round, client) in self._ignored
        ):
            return
        self._ignored.add((view.round, client))
        reason = "handed in again, with other content: the first verdict stands"
        self._client_log.note(UpdateIgnored(reason, client, view.round))


def _digest(handed_in: Update | Refused | None) -> str:
    return handed_in.object.digest if isinstance(handed_in, Update) else ""
