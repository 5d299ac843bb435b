"""`flavor rm`: remove an ended run from Redis."""

from __future__ import annotations

import contextlib

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import connected
from flavor.cli.options import needed, redis_option, store_option, store_settings
from flavor.cli.output import print_line
from flavor.cli.program import one_line_errors
from flavor.errors import BusUnavailable, DamagedRecord, MisuseError, OtherStore, RunNotFound
from flavor.records.run import RunView
from flavor.store.paths import run_prefix, run_record_path
from flavor.store.protocol import ObjectStore


@click.command(cls=GroupedCommand, example="flavor rm mammo --redis-url redis://localhost")
@click.argument("run")
@click.option("--objects", is_flag=True, help="Also remove the objects of the run from the store of --store.")
@redis_option
@store_option
@one_line_errors
def rm(run: str, objects: bool, redis_url: str | None, store: str | None) -> None:
    """Remove an ended run from Redis, or give up one that Redis has lost.

    The objects of RUN stay in the store unless --objects is given. A store without the record of RUN is refused. While
    the objects are in the store, the name of the run cannot be used again, and `flavor recover` can bring the run back.
    The page, `flavor status --watch` and the alerts forget a run that Redis has lost.
    """
    from flavor.bus.acl import enrolled
    from flavor.bus.connection import connect, shown, translated
    from flavor.bus.keys import RUNS
    from flavor.bus.removed import note_removed
    from flavor.bus.runs import RunStore
    from flavor.store.open import open_store

    redis, url = connected(redis_url)
    runs = RunStore(redis, run, url)
    kept = open_store(needed(store, "--store", "FLAVOR_STORE"), settings=store_settings()) if objects else None
    try:
        view, is_damaged = runs.find(), False
    except DamagedRecord:  # no command could end such a run
        view, is_damaged = None, True
    if view is not None and not view.state.ended:
        raise MisuseError(f"run {run!r} is {view.state}: `flavor stop {run}` it first")
    if view is not None and kept is not None:
        _check_store(kept, view)
    is_noted = False
    with contextlib.suppress(BusUnavailable), connect(url, patience_s=0.0) as hasty:
        note_removed(hasty, run, url)  # before it vanishes under those who watch it, unless there is no room
        is_noted = True
    removed = runs.remove_keys()
    with translated(shown(url)):
        removed += redis.zrem(RUNS, run)
    if not is_noted:
        with contextlib.suppress(BusUnavailable):  # then it is taken for lost
            note_removed(redis, run, url)
    is_lost = view is None and not is_damaged
    if is_lost and not removed and not (kept and (kept.list(run_prefix(run)) or kept.folders(run_prefix(run)))):
        raise RunNotFound(
            f"there is no run {run!r} on Redis at {shown(url)}, and nothing is left of one: what shows it as lost "
            "forgets it now; `flavor status` lists the runs"
        )
    if kept is not None:
        kept.remove(run_prefix(run))
    what = f"Redis had lost run {run}; what was left of it" if is_lost and removed else f"run {run}"
    click.echo(f"{what} is forgotten{'' if objects else '; its objects stay in the store'}", err=True)
    with contextlib.suppress(BusUnavailable):  # a user who may remove runs need not be allowed to list users
        if left := enrolled(redis, run, where=shown(url)):
            print_line(f"still enrolled for a run of this name: {', '.join(left)} (`flavor revoke`)", err=True)


def _check_store(store: ObjectStore, view: RunView) -> None:
    """Raise `OtherStore` unless the store has the record of this very run: it may have another run of the name."""
    from flavor.ledger.archive import Archive

    record = Archive(store, view.run).beginning()
    if record is None or record.run_id != view.run_id:
        lack = "is not there" if record is None else "is of another run of this name"
        raise OtherStore(
            f"store {store.url} is not that of run {view.run!r}, as {run_record_path(view.run)} {lack}: nothing was "
            "removed; name the run's store, or leave out --objects"
        )
