"""The coordinator's lease on its run, and the grace that clients have after something kept everyone away."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from flavor.bus.connection import translated
from flavor.bus.lease import Lease, LeaseKeeper
from flavor.bus.runs import RunStore
from flavor.errors import LeaseLost
from flavor.failpoints import reach


class Tenure:
    """The right to serve one run: acquired once, renewed beside the loop, given up at the end."""

    def __init__(self, runs: RunStore, *, lease_s: float, tell: Callable[[str], None]) -> None:
        """Acquire the lease. Raises `LeaseHeld` while another coordinator is alive."""
        reach("coordinator.created")
        self._run, self._lease_s = runs.run, lease_s
        self._lost = False
        self._grace_until = 0.0  # monotonic; before that, clients that are missing may be on their way back
        what = f"the coordinator of run {runs.run!r}"
        with translated(runs.where):
            self._lease = Lease(runs.redis, runs.keys.coordinator, ttl_s=lease_s, what=what)
            self._lease.acquire(told=tell)
        self.token = self._lease.token
        """What every transition of this coordinator is made with."""
        self._keeper = LeaseKeeper(self._lease, lost=self._lease_lost, late=self.give_grace, where=runs.where)

    def start(self) -> None:
        """Renew the lease from now on."""
        self._keeper.start()

    def _lease_lost(self) -> None:
        self._lost = True

    def keep(self) -> None:
        """Make sure that the lease is ours, also if it only lapsed. Raises `LeaseLost` when another has it."""
        if not self._lease.keep():
            raise LeaseLost(f"run {self._run!r} was taken over by another coordinator: this one ends")
        self._lost = False

    def keep_if_lost(self) -> None:
        """`keep`, where a renewal has found the lease gone."""
        if self._lost:
            self.keep()

    def give_grace(self) -> None:
        """Whatever ended a coordinator, or kept the server away, did so to the edges: let them come back.

        For a lease time, and not again before another has passed: nobody can make it last.
        """
        now = time.monotonic()
        if now >= self._grace_until + self._lease_s:
            self._grace_until = now + self._lease_s

    @property
    def is_lenient(self) -> bool:
        """Whether a client's lease that is missing says nothing about the client."""
        return time.monotonic() < self._grace_until or self._keeper.overdue

    def end(self) -> None:
        """Give the lease up."""
        self._keeper.stop()
        with contextlib.suppress(Exception):  # the lease runs out by itself
            self._lease.release()
