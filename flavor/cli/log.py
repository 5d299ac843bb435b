"""`flavor log`, `flavor stop`, `flavor pardon`, `flavor rm`: what a run did, and ending it."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import click

from flavor.bus.acl import enrolled
from flavor.bus.connection import shown, translated
from flavor.bus.keys import RUNS
from flavor.bus.runs import RunStore
from flavor.cli.common import needed, one_line_errors, redis_option, store_option
from flavor.cli.place import connected, opened
from flavor.errors import BusUnavailable, MisuseError, RunError
from flavor.printable import printable
from flavor.records.states import RunState
from flavor.store.open import open_store
from flavor.store.paths import run_prefix


@click.command()
@click.argument("run", metavar="RUN|FOLDER")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@redis_option
@one_line_errors
def log(run: str, follow: bool, as_json: bool, redis_url: str | None) -> None:
    """Show every transition of a run with its reason.

    FOLDER is the result folder of `flavor run`: what lies there is shown, and needs no --redis-url.
    """
    with opened(run, redis_url) as place:
        _print_log(place.runs, follow=follow, as_json=as_json)


def _print_log(runs: RunStore, *, follow: bool, as_json: bool) -> None:
    runs.read()
    newest = "0"
    while True:
        ended = runs.read().state.ended
        with translated(runs.where):
            batches: Any = runs.redis.xread(
                {runs.keys.log: newest}, count=1000, block=1000 if follow and not ended else None
            )
        entries = batches[0][1] if batches else []
        for newest, fields in entries:
            click.echo(_entry(newest, fields, as_json))
        if not entries and (ended or not follow):
            return


def _entry(entry_id: str, fields: dict[str, str], as_json: bool) -> str:
    ms = int(entry_id.partition("-")[0])
    if as_json:
        return json.dumps({"time_ms": ms, **fields})
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000)) + f".{ms % 1000:03d}"
    where = " ".join(
        part for part in (f"round {fields['round']}" if "round" in fields else "", fields.get("client", "")) if part
    )
    return printable(f"{at}  {fields['event']:<20} {where:<20} {fields.get('reason', '')}".rstrip())


@click.command()
@click.argument("run")
@click.option("--reason", default="stopped by `flavor stop`", show_default=True, help="What to tell everyone.")
@redis_option
@one_line_errors
def stop(run: str, reason: str, redis_url: str | None) -> None:
    """Stop a run: trainers, edges and the coordinator end; what is closed stays."""
    redis, url = connected(redis_url)
    runs = RunStore(redis, run, url)
    view = runs.read()
    if view.state.ended:
        click.echo(f"run {run} is {view.state} already: {view.reason}", err=True)
        return
    runs.end(RunState.STOPPED, reason)
    closed, _ = runs.closed(runs.read())  # read anew: a round may have been closed in that moment
    click.echo(f"run {run} is stopped after round {closed} of {view.rounds}", err=True)


@click.command()
@click.argument("run")
@click.argument("client")
@redis_option
@one_line_errors
def pardon(run: str, client: str, redis_url: str | None) -> None:
    """End a client's quarantine: its refused updates are forgotten, and it gets tasks again."""
    redis, url = connected(redis_url)
    runs = RunStore(redis, run, url)
    runs.read()
    if client not in (members := runs.members()):
        known = ", ".join(sorted(members)) or "none yet"
        raise RunError(f"client {client!r} is not in run {run!r}; there are: {known}")
    done = runs.pardon(client)
    told = "has no refused update since its last accepted one: nothing to forget"
    if done:
        told = "gets tasks again: start flavor-fl there once more to train the open round"
    click.echo(f"client {client} of run {run} {told}", err=True)


@click.command()
@click.argument("run")
@click.option("--objects", is_flag=True, help="Remove its objects from the store, too.")
@redis_option
@store_option
@one_line_errors
def rm(run: str, objects: bool, redis_url: str | None, store: str | None) -> None:
    """Forget an ended run: its keys in Redis go; its objects in the store stay, unless --objects is given.

    As long as they are there, its name is taken, and `flavor recover` can bring it back.
    """
    redis, url = connected(redis_url)
    runs = RunStore(redis, run, url)
    place = open_store(needed(store, "--store", "FLAVOR_STORE")) if objects else None
    view = runs.find()
    if view is None and not (place and (place.list(run_prefix(run)) or place.folders(run_prefix(run)))):
        runs.read()  # says that there is none
    if view is not None and not view.state.ended:
        raise MisuseError(f"run {run!r} is {view.state}: `flavor stop {run}` it first")
    runs.remove_keys()
    with translated(shown(url)):
        redis.zrem(RUNS, run)
    if place is not None:
        place.remove(run_prefix(run))
    click.echo(f"run {run} is forgotten{'' if objects else '; its objects stay in the store'}", err=True)
    with contextlib.suppress(BusUnavailable):  # whoever may end a run need not be one who enrolls
        if left := enrolled(redis, run, where=shown(url)):
            click.echo(f"still enrolled for a run of this name: {', '.join(left)} (`flavor revoke`)", err=True)
