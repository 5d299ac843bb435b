"""The coordinator's lease on its run, and the grace time of clients after a failure that cut all of them off."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from flavor.bus.connection import translated
from flavor.bus.lease import Lease, LeaseKeeper
from flavor.bus.runs import RunStore
from flavor.errors import LeaseLost
from flavor.failpoints import reach


class CoordinatorLease:
    """The right to serve one run: acquired once, renewed by a thread, and given up at the end."""

    def __init__(self, runs: RunStore, *, lease_s: float, tell: Callable[[str], None]) -> None:
        """Acquire the lease. Raises `LeaseHeld` while another coordinator is alive."""
        reach("coordinator.created")
        self._run, self._lease_s = runs.run, lease_s
        self._lost = False
        self._grace_until = 0.0  # monotonic; before that, missing clients may be coming back
        what = f"the coordinator of run {runs.run!r}"
        with translated(runs.where):
            self._lease = Lease(runs.redis, runs.keys.coordinator, ttl_s=lease_s, what=what)
            self._lease.acquire(told=tell)
        self.token = self._lease.token
        """The token that every transition of this coordinator needs."""
        self._keeper = LeaseKeeper(self._lease, lost=self._lease_lost, late=self.give_grace, where=runs.where)

    def start(self) -> None:
        """Begin to renew the lease."""
        self._keeper.start()

    def _lease_lost(self) -> None:
        self._lost = True

    def keep(self) -> None:
        """Renew the lease, or take it again after it lapsed. Raises `LeaseLost` when another coordinator has it."""
        if not self._lease.keep():
            raise LeaseLost(f"run {self._run!r} was taken over by another coordinator: this one ends")
        self._lost = False

    def keep_if_lost(self) -> None:
        """Call `keep` if a renewal found that the lease is gone."""
        if self._lost:
            self.keep()

    def give_grace(self) -> None:
        """Give clients a lease time to come back, after what ended a coordinator or cut the server off from all.

        No second grace begins before another lease time has passed, so that repeated failures cannot extend it.
        """
        now = time.monotonic()
        if now >= self._grace_until + self._lease_s:
            self._grace_until = now + self._lease_s

    @property
    def is_lenient(self) -> bool:
        """Whether a client without a lease does not count as gone for now."""
        return time.monotonic() < self._grace_until or self._keeper.overdue

    def end(self) -> None:
        """Give the lease up."""
        self._keeper.stop()
        with contextlib.suppress(Exception):  # the lease runs out by itself
            self._lease.release()
