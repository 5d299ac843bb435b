"""The parts that a worker process works with, set once at its start; the arguments of a job only name things."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from flavor.bus.connection import Redis
from flavor.bus.runs import RunStore
from flavor.errors import StoreError
from flavor.ledger.keys import SigningKey
from flavor.records.run import RunView
from flavor.store.protocol import ObjectStore
from flavor.view.observer import Observer, Silent
from workers.builtin import Engine
from workers.central_judge import CentralJudge
from workers.combiner import Combiner
from workers.fault import GivenBack, require_record
from workers.residents import Residents


def silent(_: str) -> None:
    """Say nothing."""


@dataclass
class WorkerContext:
    """The bus, the store and the observer of one worker."""

    redis: Redis
    redis_url: str = field(repr=False)
    store: ObjectStore
    combiner: Combiner = field(default_factory=lambda: Engine(threads=2))
    residents: Residents | None = None
    """The users' aggregators that this worker keeps, with `--init-once`."""
    hand_over: Callable[[str, str, int, int, float], None] | None = None
    """Gives another worker, by its home, the aggregation of a run, round and attempt, with its limit in seconds."""
    judge: CentralJudge | None = None
    """Judges models on the operator's own data, with `flavor-agg -e`."""
    observer: Observer = field(default_factory=Silent)
    key: SigningKey = field(default_factory=SigningKey.generate)
    """Signs the manifests of this worker's rounds."""
    name: str = field(default_factory=lambda: f"{socket.gethostname()}:{secrets.token_hex(6)}")
    _runs: dict[str, RunStore] = field(default_factory=dict, repr=False)
    _known: set[tuple[str, int]] = field(default_factory=set, repr=False)

    def run(self, run: str) -> RunStore:
        """Return the state of one run."""
        if run not in self._runs:
            self._runs[run] = RunStore(self.redis, run, self.redis_url)
        return self._runs[run]

    def require_record(self, view: RunView) -> None:
        """Raise `GivenBack` unless this worker's store is the run's: it has the record with which the run began.

        Checks each run once, and again only when something of the run is missing; see `workers.fault`.
        """
        run = (view.run, view.created_ms)
        if run in self._known or view.manifest is None:
            return
        try:
            require_record(self.store, view)
        except StoreError as error:
            raise GivenBack.of(error) from error
        self._known.add(run)


_context: WorkerContext | None = None


def set_context(context: WorkerContext | None) -> None:
    """Make `context` the context of this process's jobs."""
    global _context  # noqa: PLW0603 - RQ calls functions by name and passes them nothing but their arguments
    _context = context


def context() -> WorkerContext:
    """Return the context of this process; raises `RuntimeError` where none is set."""
    if _context is None:
        raise RuntimeError("a job of this project runs only in a worker that `flavor-agg` started")
    return _context
