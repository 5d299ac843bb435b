"""Tells the run while this client trains: what it is doing and since when, what its script reports, the machine's load.

People read it. It is told by a thread of its own, seldom, and an error there never ends the edge.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from flavor.edge.machine import Machine
from flavor.edge.membership import Membership
from flavor.edge.part import Judgement, Part, Phase
from flavor.errors import LeaseLost
from flavor.programs.report_file import Stamp, read_report, stamp_of
from flavor.records.moved import Moved
from flavor.records.pulse import Doing, Load, Pulse
from flavor.records.reported import Reported

LOOK_S = 1.0
"""Seconds between two looks, and so between two writes. What lasts shorter than that is not told."""
_JOIN_S = 2.0


def doing_of(part: Part, moving: str, judged: int | None = None) -> tuple[Doing | None, int]:
    """What a client is doing, and the round that this is about; None for one whose trainer has left.

    `moving` says which way a model moves at present, as `Transfers.moving` does. `judged` is the round whose model the
    evaluator judges at present; None for none.
    """
    if judged is not None or moving == "up":
        return (Doing.UPLOADING, part.behind) if judged is None else (Doing.EVALUATING, judged)
    if moving == "down" and part.phase is not Phase.STARTING:
        return Doing.DOWNLOADING, part.newest
    if part.phase is Phase.WORKING:
        return Doing.TRAINING, part.round
    if part.phase is Phase.STARTING:
        return Doing.STARTING, 0
    if part.phase is Phase.LEFT:
        return None, part.behind
    if part.update is not None and part.update.round == part.newest:
        if part.update.judgement is Judgement.AWAITED:
            return Doing.UPLOADED, part.newest
        if part.update.judgement is Judgement.ACCEPTED:
            return Doing.INSPECTED, part.newest
    return Doing.WAITING, part.newest


class PulseKeeper:
    """A thread that looks once a second, and writes what has changed into the client's hash.

    It writes a new state once the state has lasted a second, and a report of the script when there is a new one; with
    each heartbeat, it writes all of it again, with the load of the machine. So rounds of less than a second cost no
    command, unless the script reports something. `shares` is whether the script's reports and the load leave the site.
    It also calls `further` with each look.
    """

    def __init__(
        self,
        membership: Membership,
        local_model: Path,
        *,
        part: Callable[[], Part],
        moving: Callable[[], str],
        moved: Callable[[], Moved] = Moved,
        judged: Callable[[], int | None] = lambda: None,
        shares: bool,
        beat_s: float,
        clock: Callable[[], float] = time.monotonic,
        machine: Callable[[], Machine] = Machine,
        further: Callable[[], None] = lambda: None,
    ) -> None:
        self._membership, self._local_model, self._shares = membership, local_model, shares
        self._judged = judged
        self._part, self._moving, self._moved, self._beat_s = part, moving, moved, max(beat_s, LOOK_S)
        self._clock, self._make_machine, self._further = clock, machine, further
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="pulse", daemon=True)
        self._began_at = self._beaten_at = clock()
        self._now: tuple[Doing | None, int] = (None, 0)
        self._told: tuple[Doing | None, int] = (None, 0)
        self._stamp: Stamp | None = stamp_of(local_model)  # of an earlier process of this client
        self._reported: Reported | None = None
        self._reported_at = 0.0  # when that was read, by the clock
        self._reported_ms: int | None = None  # and by the clock of the server, once it is told
        self._is_untold = False  # whether that is not written yet
        self._measures = shares
        self._machine: Machine | None = None
        self._load: Load | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. What it has not told yet is not told."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_JOIN_S)

    def _keep(self) -> None:
        while not self._stop.wait(LOOK_S):
            for look in (self.look, self._further):
                try:
                    look()
                except LeaseLost:  # another process is this client; the lease's keeper ends this one
                    return
                except Exception:  # Redis is away, or anything else: the next look tells it
                    continue

    def look(self) -> None:
        """Look once, and tell what has changed."""
        part, now = self._part(), self._clock()
        if (doing := doing_of(part, self._moving(), self._judged())) != self._now:
            self._now, self._began_at = doing, now
        self._is_untold |= self._shares and self._has_new_report(part)
        is_due = now - self._beaten_at >= self._beat_s
        if self._measures and now - self._beaten_at >= self._beat_s - LOOK_S:
            self._measure(is_due)
        if self._is_untold or is_due or (self._told != self._now and now - self._began_at >= LOOK_S):
            self._tell(now)
            self._told, self._is_untold = self._now, False
            if is_due:
                self._beaten_at = now

    def _has_new_report(self, part: Part) -> bool:
        """Read the script's report, if it has changed and belongs to the round that the trainer is in."""
        stamp = stamp_of(self._local_model)
        if stamp is None or stamp == self._stamp:
            return False
        reported = read_report(self._local_model)
        round_ = 0 if part.phase is Phase.STARTING else part.round or part.behind
        if self._part().round != part.round or stamp_of(self._local_model) != stamp:
            return False  # the next look tells to which round it belongs
        self._stamp = stamp
        if reported is None:
            return False
        self._reported = reported._replace(round=round_)
        self._reported_at, self._reported_ms = self._clock(), None
        return True

    def _measure(self, is_due: bool) -> None:
        """Measure the load since the last heartbeat; begin with it a second before the first one."""
        try:
            if self._machine is None:
                self._machine = self._make_machine()
            elif is_due:
                self._load = self._machine.load()
        except Exception:  # psutil is missing, or the system tells nothing
            self._measures, self._load = False, None

    def _tell(self, now: float) -> None:
        (doing, round_), lasts_ms = self._now, int((now - self._began_at) * 1000)

        def pulse(server_ms: int) -> Pulse:
            if self._reported is not None and self._reported_ms is None:  # once: it is the same with each heartbeat
                self._reported_ms = server_ms - int((now - self._reported_at) * 1000)
            said = self._reported, self._load, self._moved(), self._reported_ms or 0
            return Pulse(doing, round_, server_ms - lasts_ms, *said)

        self._membership.report_pulse(pulse)
