"""The right to ask for evaluations, and what a process that had it and was killed has left behind.

Who has the right may have chosen a model that no evaluation is open of yet. So no global model is removed from the
store while a process has it, and who takes it waits for the end of a removal.
Its evaluations are given up and its models removed by the run's coordinator, or by the next process that asks. The
record in Redis of models that it was to remove is written before each of them is put into the store.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator

from flavor.bus.connection import translated
from flavor.bus.lease import Lease, held
from flavor.bus.runs import RunStore
from flavor.coordinator.evaluation_job import give_up_open
from flavor.errors import StoreError
from flavor.records.evaluation import EvaluationKind
from flavor.store.protocol import ObjectStore
from flavor.store.trouble import require_mounted
from flavor.view.event import Notice
from flavor.view.observer import Observer

_LEASE_S = 15.0
"""Lifetime of a lease: for so long a killed command, or a killed removal of models, keeps the next command waiting."""
_LOOK_S = 5.0
_TELL_S = 2.0
"""After so long a command says that it waits for the end of a removal of models."""
_AGAIN_S = 0.1
_GONE = "the process that asked for it has ended"


def _lease(runs: RunStore) -> Lease:
    what, advice = f"an evaluation that was asked for of run {runs.run!r}", "wait for its end, or stop that one"
    return Lease(runs.redis, runs.keys.evaluator, ttl_s=_LEASE_S, what=what, advice=advice)


@contextlib.contextmanager
def asking(runs: RunStore, store: ObjectStore, tell: Callable[[str], None]) -> Iterator[Lease]:
    """Hold the right to ask for evaluations of a run. Raises `LeaseHeld` while another process has it.

    What a killed process has left behind is ended first.
    """
    lease = _lease(runs)
    with translated(runs.where):
        lease.acquire(told=tell)
    with held(lease):
        _await_removal(runs, tell)
        _end_left_behind(runs, store, lease.token, tell)
        yield lease


@contextlib.contextmanager
def removing_models(runs: RunStore) -> Iterator[bool]:
    """Say that global models are being removed; gives whether they may be: not while a process may ask for them."""
    lease = Lease(runs.redis, runs.keys.removing, ttl_s=_LEASE_S, what=f"a removal of models of run {runs.run!r}")
    with translated(runs.where):
        is_ours = lease.try_acquire()  # before the look: who takes the right later, sees it
    if not is_ours:  # of a coordinator that was killed
        yield False
        return
    with held(lease):
        with translated(runs.where):
            may_be = not runs.redis.exists(runs.keys.evaluator)
        yield may_be


def _await_removal(runs: RunStore, tell: Callable[[str], None]) -> None:
    """Wait until no coordinator removes models. What a killed one has left expires with its lease."""
    pause, tells_at = threading.Event(), time.monotonic() + _TELL_S
    with translated(runs.where):
        while runs.redis.exists(runs.keys.removing):
            if time.monotonic() >= tells_at:
                tell(f"run {runs.run!r}: waiting until its coordinator has removed old global models from the store")
                tells_at = math.inf
            pause.wait(_AGAIN_S)


def give_up_asked(runs: RunStore, token: str, why: str) -> None:
    """End what was asked for and is not over, by the token of the lease: only its holder asks."""
    give_up_open(
        runs,
        token,
        EvaluationKind.ASKED,
        lambda view: f"evaluation of {view.what}: {why}",
        by=runs.keys.evaluator,
    )


def _end_left_behind(runs: RunStore, store: ObjectStore, token: str, tell: Callable[[str], None]) -> None:
    give_up_asked(runs, token, _GONE)
    if not (placed := runs.placed()):
        return
    try:
        require_mounted(store, runs.run)  # what is not there cannot be removed
        store.delete(placed)
        require_mounted(store, runs.run)
    except (StoreError, OSError) as error:
        tell(f"models of an evaluation that was asked for stay in the store, which sites read: {error}")
    else:
        runs.forget_placed(placed)


class LeftBehind:
    """Has the coordinator of a run end what a killed process has asked for."""

    def __init__(self, runs: RunStore, store: ObjectStore, observer: Observer) -> None:
        self._runs, self._store, self._observer = runs, store, observer
        self._looked_at = 0.0
        self._told = ""

    def look(self, *, at_once: bool = False) -> None:
        """End what was left behind, if there is something; a few seconds after the last look, unless `at_once`."""
        now = time.monotonic()
        if not at_once and now < self._looked_at + _LOOK_S:
            return
        self._looked_at = now
        asked = [number for _, number in self._runs.evaluating() if EvaluationKind.of(number) is EvaluationKind.ASKED]
        if not (asked or self._runs.placed()):
            return
        lease = _lease(self._runs)
        with translated(self._runs.where):
            if not lease.try_acquire():  # who has asked is alive
                return
        with held(lease):
            _end_left_behind(self._runs, self._store, lease.token, self._tell)

    def _tell(self, line: str) -> None:
        if line != self._told:
            self._told = line
            self._observer.hear(Notice(line))
