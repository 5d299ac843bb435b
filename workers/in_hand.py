"""The lease of the worker that works on an evaluation: as long as it is renewed, no other attempt begins."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from flavor.bus.connection import translated
from flavor.bus.lease import Lease, held
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.records.evaluation import EvaluationView
from flavor.records.run import RunView


@contextlib.contextmanager
def in_hand(
    runs: RunStore,
    view: RunView,
    evaluation: EvaluationView,
    *,
    lost: Callable[[], None] = lambda: None,
    beat: Callable[[], object] | None = None,
) -> Iterator[bool]:
    """Hold the lease to the end of the body, and renew it; gives False where another worker has it.

    `lost` and `beat` are as in `LeaseKeeper`. An error of the body is to be reported after the body, once the lease is
    free: the next attempt may begin at once.
    """
    round_, number = evaluation.round, evaluation.number
    lease = Lease(
        runs.redis,
        runs.keys.evaluation_lease(round_, number),
        ttl_s=RunConfig.of_run(runs.run, view.config).aggregation_lease_s,
        what=f"evaluation {number} of round {round_} of run {runs.run!r}",
    )
    with translated(runs.where):
        is_ours = lease.try_acquire()
    if not is_ours:
        yield False
        return
    with held(lease, lost=lost, beat=beat):
        yield True
