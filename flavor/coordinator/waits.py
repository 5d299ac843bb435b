"""What a run waits for, told and written to its log when it changes."""

from __future__ import annotations

from collections.abc import Callable

from flavor.bus.runs import RunStore
from flavor.coordinator.current_round import CurrentRound
from flavor.coordinator.heard import Heard


class Waits:
    """Tells each reason once, within the bounds of `Heard`."""

    def __init__(self, runs: RunStore, heard: Heard, *, tell: Callable[[str], None]) -> None:
        self._runs, self._heard, self._tell = runs, heard, tell
        self._told = ""

    def forget(self) -> None:
        """The run waits for nothing: the next reason is a new one."""
        self._told = ""

    def of_run(self, reason: str, *, logged: bool = False) -> None:
        """The run waits for this."""
        if reason == self._told or not self._heard.may_wait():
            return
        if logged:
            self._runs.log("run.waiting", reason=reason)
        self._tell(f"waiting: {reason}")
        self._told = reason

    def held(self, round_: CurrentRound, reason: str) -> None:
        """The round is held by this."""
        if reason != round_.held and self._heard.may_wait():
            round_.held = reason
            self._tell(f"round {round_.number}: {reason}")
            self._runs.log("round.waiting", round_=round_.number, reason=reason)
