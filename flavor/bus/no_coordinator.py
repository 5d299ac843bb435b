"""A run without a coordinator, for a command that changes the run itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from flavor.bus.connection import translated
from flavor.bus.lease import Lease, held
from flavor.bus.runs import RunStore

_LEASE_S = 15.0
"""Lifetime of the lease: for so long a killed command keeps a coordinator waiting."""


@contextlib.contextmanager
def no_coordinator(runs: RunStore, tell: Callable[[str], None]) -> Iterator[Lease]:
    """Hold the coordinator's lease: no coordinator serves the run in the body, and one that is started waits.

    Waits for the lease of a coordinator that has died to expire, and calls `tell` with a line before that. Raises
    `LeaseHeld` where the coordinator is alive. The run need not exist.
    """
    lease = Lease(runs.redis, runs.keys.coordinator, ttl_s=_LEASE_S, what=f"the coordinator of run {runs.run!r}")
    with translated(runs.where):
        lease.acquire(told=tell)
    with held(lease):
        yield lease
