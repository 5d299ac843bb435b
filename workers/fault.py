"""Decide who is to blame for a job that cannot be done: a site, or this worker with its machine and its store.

A site answers for its own object, and for nothing else. An error of the worker's disk, mount or store is no verdict on
any site: the job goes back into the queue, for another worker or for later.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from flavor.bus.runs import RunStore
from flavor.disk import FULL, GONE, LIMITS, file_of, found_no_room
from flavor.errors import FlavorError, LocalFault, StoreError, StoreFull
from flavor.ledger.archive import Archive
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.states import RoundState
from flavor.rule_settings import COMMAND
from flavor.store.paths import run_record_path
from flavor.store.protocol import ObjectStore

_OWN = (errno.EROFS, *LIMITS, *GONE)
"""Errors that no other party's file can cause: a full table, a mount that is gone."""


class GivenBack(Exception):
    """A job that this worker could not do and for which no site is to blame; the message is one line with the reason.

    `run` is set where the reason holds for the jobs of this run alone, and not for those of other runs.
    """

    def __init__(self, reason: str, *, run: str = "") -> None:
        super().__init__(reason)
        self.run = run

    @classmethod
    def of(cls, fault: BaseException) -> GivenBack:
        """Return the exception for a fault that `own_fault` or `require_record` found."""
        return cls(" ".join(str(fault).split()), run=fault.run if isinstance(fault, NotItsStore) else "")


class NotItsStore(LocalFault):
    """This worker's store is not the store of `run`."""

    def __init__(self, message: str, run: str) -> None:
        self.run = run
        super().__init__(message)


def own_fault(store: ObjectStore, view: RunView, error: BaseException) -> FlavorError | None:
    """Return `error` as a fault of this worker or its store; None where an object or its site may be to blame.

    Where both are possible, the record of the run decides: it lies in the same store. If it cannot be read either, the
    fault is the worker's.
    """
    if isinstance(error, LocalFault | StoreFull):
        return error
    if isinstance(error, OSError):
        if error.errno in FULL:
            return found_no_room(error)
        if error.errno in _OWN:
            where = file_of(error, "this machine")
            return LocalFault(f"{where}: {error.strerror}: check this machine, its disks and its mounts")
    if not isinstance(error, StoreError | OSError):
        return None
    try:
        require_record(store, view)
    except (StoreError, OSError) as missing:
        return missing if isinstance(missing, StoreError) else LocalFault(f"store {store.url}: {missing.strerror}")
    return None


def require_record(store: ObjectStore, view: RunView) -> None:
    """Raise `NotItsStore` unless this store has the record of the run: else it is another store, or an empty folder.

    A share that is not mounted is an empty folder. Raises `StoreUnavailable` where the store gives no answer.
    """
    record, path = Archive(store, view.run).beginning(), run_record_path(view.run)
    if record is None or record.run_id != view.run_id:
        has = "does not have" if record is None else "has another run's"
        raise NotItsStore(
            f"the store {store.url} {has} {path}, with which run {view.run!r} began: "
            "mount the share here, or have an aggregator with the run's own --store on this queue",
            view.run,
        )


def require_same_maker(runs: RunStore, before: RoundView | None, round_: int, attempt: int, made_by: str) -> None:
    """Raise `GivenBack` unless `made_by`, as `Combiner.made_by`, has also made the model of `before`.

    `before` is the round before `round_`, None where it is pruned.

    A run that names no rule is aggregated by a worker's own aggregator, or else by `fedavg`. Its rule must not change
    half way. Nothing is known of rounds that an older release has closed, or that `flavor recover` has rebuilt. A job
    of an attempt that is over is not given back: it changes nothing.
    """
    if before is None or before.made_by in ("", made_by):
        return
    now = runs.read_round(round_)
    if now is None or (now.state, now.attempt) != (RoundState.AGGREGATING, attempt):
        return
    if before.made_by == COMMAND:
        made, here = "by a worker with an aggregator of its own (-m)", "this worker has none"
    else:
        made, here = "by a worker without -m", "this worker has an aggregator of its own (-m)"
    raise GivenBack(
        f"round {round_ - 1} of run {runs.run!r} was aggregated {made}, and {here}: start `flavor-agg` as before, or "
        "begin another run",
        run=runs.run,
    )


def any_readable(store: ObjectStore, paths: Iterable[str]) -> bool | None:
    """Return whether this worker can read one of these objects; None if there are none to try."""
    tried = None
    for path in paths:
        tried = False
        try:
            store.start(path, 1)
        except (StoreError, OSError):
            continue
        return True
    return tried
