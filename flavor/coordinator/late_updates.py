"""Updates of rounds that take none any more: each is refused once, also if nobody heard that it came."""

from __future__ import annotations

from flavor.bus.runs import RunStore
from flavor.coordinator.heard import Heard
from flavor.records.round import RoundView
from flavor.records.states import RoundState
from flavor.records.update import Refused, Update
from flavor.view.client_events import UpdateIgnored


class LateUpdates:
    """What comes too late in one run, and who is told so.

    An edge hands nothing in for a round once the next one is open. So the updates of a round are all there then, and
    it is enough to look once more after each opening; a coordinator that takes over looks for the one before.
    """

    def __init__(self, runs: RunStore, heard: Heard) -> None:
        self._runs, self._heard = runs, heard
        self._round = 0  # the newest that takes no updates any more
        self._missing: set[str] = set()  # of whom none was accepted in it
        self._ignored: set[tuple[int, str]] = set()

    def expect(self, view: RoundView) -> None:
        """This round takes no updates any more: whose comes now is late."""
        accepted = {client for client, verdict in view.verdicts.items() if verdict.accepted}
        self._round, self._missing = view.round, {*view.expected, *view.left_out} - accepted

    def refuse_unheard(self) -> None:
        """Look for those that have come without a word."""
        if self._missing:
            for client in self._runs.updates(self._round, sorted(self._missing)):
                self.refuse(self._round, client)
                self._missing.discard(client)

    def refuse(self, number: int, client: str) -> None:
        """Answer an update of another round than the open one, from whoever had a task in that round."""
        view = self._runs.read_round(number)
        if view is None or view.state is RoundState.OPEN or client not in (*view.expected, *view.left_out):
            return  # open: by another coordinator, which was not paused as this one
        handed_in, verdict = self._runs.updates(number, [client]).get(client), view.verdicts.get(client)
        if handed_in is None:
            return
        if verdict is not None and verdict.is_about(handed_in):
            self._ignore(view, client, handed_in)
        else:
            self._heard.refuse_late(number, client, handed_in.try_id)

    def _ignore(self, view: RoundView, client: str, handed_in: Update | Refused) -> None:
        """Say once that other content than was judged does not count."""
        judged = view.verdicts[client].update
        if _digest(handed_in) == _digest(judged) or (view.round, client) in self._ignored:
            return
        self._ignored.add((view.round, client))
        reason = "handed in again, with other content: the first verdict stands"
        self._heard.note(UpdateIgnored(reason, client, view.round))


def _digest(handed_in: Update | Refused | None) -> str:
    return handed_in.object.digest if isinstance(handed_in, Update) else ""
