"""Exports a run to a tracker: what is there, and on request what comes until the run ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from flavor.bus.connection import is_away
from flavor.bus.runs import RunStore
from flavor.counted import counted
from flavor.errors import BusUnavailable, LocalFault, RunError, StoreUnavailable, TrackerUnavailable
from flavor.records.run import RunView
from flavor.results.folder import final_model
from flavor.store.protocol import ObjectStore
from flavor.trackers.source import EvaluationSource, RoundSource
from flavor.trackers.tracker import Held, Tracker
from flavor.view.log import newest_entry, read_log

_AT_ONCE = 50
"""How many rounds are read before they are written."""
_TELL_S = 5.0
_LOOK_MS = 1000
_PAUSE_S = 2.0
_PASSING = (BusUnavailable, StoreUnavailable, LocalFault, TrackerUnavailable)
"""What an export that follows a run waits for."""


@dataclass(frozen=True)
class Exported:
    """A run that is open for an export."""

    runs: RunStore
    store: ObjectStore
    folder: Path | None = None
    """The result folder of the run, if the run was named by it."""


class Export:
    """One export of a run to one tracker."""

    def __init__(
        self,
        opened: Callable[[], AbstractContextManager[Exported]],
        tracker: Tracker,
        tell: Callable[[str], None],
    ) -> None:
        """Make an export of the run that `opened` opens, again after its Redis was away."""
        self._opened, self._tracker, self._tell = opened, tracker, tell
        self._begun = False
        self._held, self._run = Held(), ""
        self._run_id = ""
        self._incarnation: object = None
        self._told, self._told_at = "", 0.0
        self._read = 0
        self._evaluations, self._has_evaluations = EvaluationSource(), False
        self.judged = 0
        """How many evaluations this export has written that the tracker did not have yet."""
        self.written = 0
        """How many rounds this export has written that the tracker did not have yet, or not as they are."""
        self.is_over = False
        """Whether the run has ended, and the tracker knows it."""

    def once(self) -> None:
        """Export the rounds that are closed. Raises `FlavorError`."""
        with self._opened() as found:
            self._catch_up(found)

    def follow(self) -> None:
        """Export the rounds that are closed, and each that closes, until the run ends.

        Waits for a Redis, a store or a tracker that goes away, without a limit of time. Raises `FlavorError` for
        everything else, and where they are away from the beginning.
        """
        while not self.is_over:
            try:
                with self._opened() as found:
                    self._follow(found)
            except _PASSING as error:
                if not self._begun or (isinstance(error, BusUnavailable) and not is_away(error)):
                    raise
                if str(error) != self._told:
                    self._told = str(error)
                    self._tell(f"waiting, and trying again: {error}")
                time.sleep(_PAUSE_S)

    def _follow(self, found: Exported) -> None:
        newest = newest_entry(found.runs)
        while True:
            self._catch_up(found)
            if self._told:
                self._tell("going on")
                self._told = ""
            if self.is_over:
                return
            logged = read_log(found.runs, after=newest, wait_ms=_LOOK_MS)
            newest = logged[-1].id if logged else newest

    def _catch_up(self, found: Exported) -> None:
        view = found.runs.read()
        self._run = view.run
        source = RoundSource(found.runs, found.store, folder=found.folder, tell=self._tell)
        if not self._begun:
            self._begin(view, source)
        elif view.incarnation != self._incarnation:
            self._check_same(view, source)
        rounds = source.after(self._held.round, view)
        while chunk := list(islice(rounds, _AT_ONCE)):
            if found.runs.read().incarnation != self._incarnation:  # made again while these were read
                self._catch_up(found)
                return
            self.written += self._tracker.write(chunk)
            self._held = Held(chunk[-1].round, chunk[-1].manifest)
            self._read += len(chunk)
            if self._read > _AT_ONCE and time.monotonic() - self._told_at > _TELL_S:
                self._told_at = time.monotonic()
                self._tell(f"round {self._held.round} of {view.round}")
        source.tell_lacking()
        if self._evaluations.read(found.runs, found.store, view) or self._has_evaluations:
            self._has_evaluations = True  # until the tracker has them
            self.judged += self._tracker.write_evaluations(self._evaluations.found)
            self._has_evaluations = False
        if view.state.ended:
            reason = found.runs.how_it_ended() or view.reason
            self._tracker.end(view, reason, lambda folder: final_model(view, found.store, folder))
            self.is_over = True

    def _begin(self, view: RunView, source: RoundSource) -> None:
        """Have the tracker ready. Raises `RunError` where it holds rounds that are no longer those of the run."""
        self._held = self._tracker.begin(view)
        self._run_id = view.run_id
        self._check_same(view, source)
        self._begun, self._told_at = True, time.monotonic()

    def _check_same(self, view: RunView, source: RoundSource) -> None:
        """Check that the rounds that the tracker holds are those of the run, which may have been made again.

        Raises `RunError`.
        """
        held = self._held
        if view.run_id != self._run_id:
            raise RunError(
                f"run {view.run!r} was removed, and another run has its name now: export that one to another place "
                f"than {self._tracker.where}"
            )
        if held.round:
            now = source.manifest(held.round, view)
            is_other = bool(held.manifest and now and held.manifest != now)
            if held.round > view.round or is_other:
                raise RunError(
                    f"{self._tracker.where} holds round {held.round} of run {view.run!r}, which the run "
                    f"{'has made again since' if is_other else 'does not have any more'}: it was rebuilt from the "
                    "store: export it to another place, or remove that one first"
                )
        self._incarnation = view.incarnation

    def summary(self) -> str:
        """Say in a line what was written."""
        if self.written or self.judged:
            rounds = [counted(self.written, "round")] if self.written else []
            evaluations = [counted(self.judged, "evaluation")] if self.judged else []
            return f"{' and '.join([*rounds, *evaluations])} of run {self._run} written"
        return f"nothing is new in run {self._run}" if self._held.round else f"run {self._run} has no closed round yet"
