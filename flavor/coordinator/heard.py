"""What sites cause, in the log and on the coordinator's terminal: no more of each in a round than is of use."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from flavor.bus.runs import MOST_ENTRIES, Recorded, RunStore, late
from flavor.bus.state import Verdict

_WAIT_S = 600.0
"""Beside as many lines in each round as a site can cause, one about what the run waits for is shown this often."""


class Heard:
    """One way for all of it. The server counts, so that workers and coordinators that follow each other agree."""

    def __init__(self, runs: RunStore, tell: Callable[[str], None]) -> None:
        self._runs, self._tell = runs, tell
        self.round = 0
        """The current one; 0 before the first."""
        self._looked_for: set[int] = set()  # rounds of which entries may have been left out since that was told
        self._told: dict[tuple[int, str], int] = {}  # of a round and a client: entries left out, as told

        self._waits_of, self._waits, self._waits_at = 0, float(MOST_ENTRIES), time.monotonic()

    def note(self, event: str, client: str, reason: str, *, of: int | None = None) -> None:
        """Log and tell what a client has caused: in round `of`, which the entry names then, or just now."""
        round_ = self.round if of is None else of
        recorded = self._runs.note(event, client, reason, round_=round_, names_round=of is not None)
        self._say(recorded, f"{client}: {'' if of is None else f'round {of}: '}{reason}", round_)

    def refuse(self, round_: int, client: str, verdict: Verdict) -> None:
        """Refuse an update, and tell so."""
        self._say(self._runs.judge(round_, client, verdict), f"round {round_}: {client}: {verdict.reason}", round_)

    def refuse_late(self, round_: int, client: str, try_id: str) -> None:
        """Refuse an update whose round takes none any more, and tell so."""
        recorded = self._runs.refuse_late(round_, client, try_id)
        self._say(recorded, f"{client}: the update of round {round_} is refused: {late(round_).reason}", round_)

    def _say(self, recorded: Recorded, text: str, round_: int) -> None:
        if line := recorded.line(text):
            self._tell(line)
        if recorded in (Recorded.COUNTED, Recorded.LAST):
            self._looked_for.add(round_)

    def hears(self, round_: int, verdicts: Iterable[Verdict]) -> bool:
        """These were given in this round, by workers as well; returns whether one of them is a refusal."""
        refused = not all(verdict.accepted for verdict in verdicts)
        if refused:
            self._looked_for.add(round_)
        return refused

    def may_wait(self) -> bool:
        """Whether one more line about what the run waits for is of use: sites that come and go can make many."""
        now = time.monotonic()
        if self._waits_of != self.round:
            self._waits_of, self._waits, self._waits_at = self.round, float(MOST_ENTRIES), now
        self._waits = min(MOST_ENTRIES, self._waits + (now - self._waits_at) / _WAIT_S)
        self._waits_at = now
        if self._waits < 1:
            return False
        self._waits -= 1
        return True

    def round_is_over(self, round_: int) -> None:
        """Log and tell how much was left out of this round, if anything was."""
        if round_ in self._looked_for:
            self._looked_for.discard(round_)
            for client, number in self._new(round_).items():
                self._tell_left_out(client, number, _in_round(round_))

    def run_is_over(self) -> None:
        """Log and tell how much was left out that was not told, in a line for each client."""
        rounds, self._looked_for = sorted(self._looked_for), set()
        new = {round_: self._new(round_) for round_ in rounds}
        for client in sorted({client for numbers in new.values() for client in numbers}):
            of = [round_ for round_, numbers in new.items() if client in numbers]
            where = _in_round(of[0]) if len(of) == 1 else f"in {len(of)} rounds"
            self._tell_left_out(client, sum(new[round_][client] for round_ in of), where)

    def _new(self, round_: int) -> dict[str, int]:
        """Entries that were left out, of each client, as far as that was not told."""
        found = self._runs.left_out(round_)
        new = {client: number - self._told.get((round_, client), 0) for client, number in found.items()}
        self._told.update({(round_, client): number for client, number in found.items()})
        return {client: number for client, number in new.items() if number > 0}

    def _tell_left_out(self, client: str, number: int, where: str) -> None:
        what = "1 more entry is" if number == 1 else f"{number} more entries are"
        reason = f"{what} left out of what it caused {where}"
        self._runs.log("client.left_out", client=client, reason=reason)
        self._tell(f"{client}: {reason}")


def _in_round(round_: int) -> str:
    return f"in round {round_}" if round_ else "before the first round"
