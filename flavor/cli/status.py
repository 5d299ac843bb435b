"""`flavor status`: show all runs, or one run with its round and its sites."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import connected_to_all, opened_run
from flavor.cli.options import redis_option
from flavor.cli.output import print_line, print_table
from flavor.cli.program import one_line_errors
from flavor.cli.status_lines import columns_of, has_ended, summary_of
from flavor.durations import shown_duration
from flavor.errors import DamagedRecord, FlavorError, InvalidSetting, RunNotFound
from flavor.printable import printable

if TYPE_CHECKING:
    from flavor.bus.connection import Redis
    from flavor.bus.runs import RunStore


@click.command(
    cls=GroupedCommand,
    example="flavor status flavor-runs/mammo --watch\nflavor status mammo --redis-url redis://localhost",
)
@click.argument("run", metavar="[RUN|FOLDER]", required=False)
@click.option(
    "--metric",
    metavar="NAME",
    help="Metric in the last column of the table of sites.  [default: the first metric that a site has reported]",
)
@click.option(
    "--watch",
    "-w",
    is_flag=True,
    help="Show the run, or all runs, again whenever something changes, until the run has ended or Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of text.")
@redis_option
@one_line_errors
def status(run: str | None, metric: str | None, watch: bool, as_json: bool, redis_url: str | None) -> None:
    """Show all runs, or one run with its round and its sites.

    RUN is the name of a run on Redis. FOLDER is the result folder of `flavor run`, which needs no --redis-url.
    """
    from flavor.bus.runs import RunStore, list_runs
    from flavor.local.record import is_folder
    from flavor.local.waits import Waits
    from flavor.store.url import folder_of
    from flavor.view.described import described
    from flavor.view.server import refusal_of

    if watch:
        if as_json:
            raise InvalidSetting("--watch and --json exclude each other: `flavor log RUN --follow --json` goes on")
        if _watched(run, metric, redis_url):
            return
    if run is None:
        redis, url = connected_to_all(redis_url, "flavor status")
        _warn_of_dropped_jobs(redis)
        if refusal := refusal_of(redis):
            click.secho(printable(f"Warning: {refusal}"), fg="red", err=True)
        rows = [_row(RunStore(redis, name, url), url, refusal) for name in list_runs(redis, url)]
        _show_all([row for row in rows if row is not None], as_json, redis, url)
        return
    with opened_run(run, redis_url) as found_run:
        if not is_folder(run):
            _warn_of_dropped_jobs(found_run.redis)
        left = run if found_run.is_left else ""
        found = described(found_run.runs, found_run.url, store=found_run.store, metric=metric, left_in=left)
        if is_folder(run) and not has_ended(found):
            notes = {note.stem: note for note in sorted((Path(run) / "logs").glob("*.blocked"))}
            found["absent"] += Waits(notes).blocked()
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        if found["global_model"] and found_run.store and (folder := folder_of(found_run.store)):
            found["global_model"] = str(Path(folder) / found["global_model"])  # else a path in the store
        _show_run({**found, "folder": run if is_folder(run) else ""})


def _watched(run: str | None, metric: str | None, redis_url: str | None) -> bool:
    """Show all runs, or one run, until it has ended; False for a local run that has no process any more."""
    from flavor.bus.connection import shown
    from flavor.cli.status_watch import terminal, watch_run, watch_runs
    from flavor.local.record import is_folder
    from flavor.store.url import folder_of

    console = terminal()
    if run is None:
        redis, url = connected_to_all(redis_url, "flavor status")
        redis.close()
        watch_runs(url, shown(url), console)
        return True
    with opened_run(run, redis_url) as found:
        found.runs.read()
        if found.is_left:
            return False
        folder = folder_of(found.store) if found.store else None
        logs = Path(run) / "logs" if is_folder(run) else None
        return watch_run(found, console, metric=metric, model_folder=str(folder or ""), logs=logs)


@dataclass(frozen=True)
class _Row:
    """A run in the list of all runs."""

    run: str
    state: str
    round: int | None
    rounds: int | None
    reason: str
    """What is missing, and what the run waits for; or why it ended."""
    created_ms: int = 0


def _row(runs: RunStore, url: str, refusal: str) -> _Row | None:
    """Return the row of a run, also of one that cannot be read; None for one that was removed since it was listed."""
    from flavor.bus.connection import is_away
    from flavor.view.described import brief_of

    try:
        view, why = brief_of(runs, url, refusal=refusal)
    except RunNotFound:
        return None
    except FlavorError as error:
        if is_away(error):
            raise
        return _unreadable(runs, str(error))
    return _Row(view.run, view.state.value, view.round, view.rounds, why, view.created_ms)


def _unreadable(runs: RunStore, why: str) -> _Row | None:
    """Return the row of a run that cannot be read as a whole: what its own record says, as far as that can be read."""
    try:
        view = runs.find()
    except DamagedRecord as error:
        return _Row(runs.run, "damaged", None, None, str(error))
    if view is None:
        return None
    return _Row(view.run, view.state.value, view.round, view.rounds, f"it cannot be read: {why}", view.created_ms)


def _show_all(rows: list[_Row], as_json: bool, redis: Redis, url: str) -> None:
    from flavor.bus.connection import shown
    from flavor.bus.runs import RunStore

    if as_json:
        fields = ("run", "state", "round", "rounds", "reason")
        click.echo(json.dumps([{name: getattr(row, name) for name in fields} for row in rows], indent=2))
    elif not rows:
        click.echo(f"There are no runs on {shown(url)}.")
    else:
        now_ms = RunStore(redis, rows[0].run, url).now_ms()
        shown_rows = [
            (row.run, row.state, "-", "-", row.reason)
            if row.round is None
            else (row.run, row.state, f"{row.round} of {row.rounds}", _begun(now_ms, row), row.reason)
            for row in rows
        ]
        print_table(("RUN", "STATE", "ROUND", "BEGUN", "WHY"), shown_rows)


def _begun(now_ms: int, row: _Row) -> str:
    return f"{shown_duration((now_ms - row.created_ms) / 1000)} ago" if row.created_ms else "-"


def _warn_of_dropped_jobs(redis: Redis) -> None:
    from flavor.bus.dropped_jobs import dropped_lately

    if dropped := dropped_lately(redis):
        newest = dropped[0]
        warning = (
            f"Warning: aggregators dropped {len(dropped)} foreign job{'s' if len(dropped) > 1 else ''} within a week "
            f"(the newest: {newest.get('job')} in queue {newest.get('queue')!r}: {newest.get('reason')}): "
            "another program writes to rq:* on this Redis (XREVRANGE flavor:dropped + -)"
        )
        click.secho(printable(warning), fg="yellow", err=True)


def _show_run(found: dict[str, Any]) -> None:
    head, *lines = summary_of(found)
    click.echo(head.text)
    for line in lines:
        print_line(line.text)
    if found["clients"]:
        columns = columns_of(found)
        cells = [[column.cells[site] for column in columns] for site in found["clients"]]
        print_table([column.head for column in columns], cells)
