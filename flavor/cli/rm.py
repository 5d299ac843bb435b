"""`flavor rm`: remove an ended run from Redis."""

from __future__ import annotations

import contextlib

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import connected
from flavor.cli.options import needed, redis_option, store_option, store_settings
from flavor.cli.output import print_line
from flavor.cli.program import one_line_errors
from flavor.errors import BusUnavailable, DamagedRecord, MisuseError
from flavor.store.paths import run_prefix


@click.command(cls=GroupedCommand, example="flavor rm mammo --redis-url redis://localhost")
@click.argument("run")
@click.option("--objects", is_flag=True, help="Also remove the objects of the run from the store of --store.")
@redis_option
@store_option
@one_line_errors
def rm(run: str, objects: bool, redis_url: str | None, store: str | None) -> None:
    """Remove an ended run from Redis.

    The objects of RUN stay in the store unless --objects is given. While they are in the store, the name of the run
    cannot be used again, and `flavor recover` can bring the run back.
    """
    from flavor.bus.acl import enrolled
    from flavor.bus.connection import shown, translated
    from flavor.bus.keys import RUNS
    from flavor.bus.runs import RunStore
    from flavor.store.open import open_store

    redis, url = connected(redis_url)
    runs = RunStore(redis, run, url)
    kept = open_store(needed(store, "--store", "FLAVOR_STORE"), settings=store_settings()) if objects else None
    try:
        view, is_damaged = runs.find(), False
    except DamagedRecord:  # no command could end such a run
        view, is_damaged = None, True
    if view is None and not is_damaged and not (kept and (kept.list(run_prefix(run)) or kept.folders(run_prefix(run)))):
        runs.read()  # says that there is none
    if view is not None and not view.state.ended:
        raise MisuseError(f"run {run!r} is {view.state}: `flavor stop {run}` it first")
    runs.remove_keys()
    with translated(shown(url)):
        redis.zrem(RUNS, run)
    if kept is not None:
        kept.remove(run_prefix(run))
    click.echo(f"run {run} is forgotten{'' if objects else '; its objects stay in the store'}", err=True)
    with contextlib.suppress(BusUnavailable):  # a user who may remove runs need not be allowed to list users
        if left := enrolled(redis, run, where=shown(url)):
            print_line(f"still enrolled for a run of this name: {', '.join(left)} (`flavor revoke`)", err=True)
