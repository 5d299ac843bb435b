"""`flavor status`: show all runs, or one run with its round and its sites."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import connected, opened_run
from flavor.cli.options import redis_option
from flavor.cli.output import print_line, print_table
from flavor.cli.program import one_line_errors
from flavor.durations import shown_duration
from flavor.errors import DamagedRecord
from flavor.printable import printable, quoted
from flavor.records.reported import Reported
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.sizes import shown_bytes

if TYPE_CHECKING:
    from flavor.bus.connection import Redis
    from flavor.bus.runs import RunStore

_ENDED = tuple(state.value for state in RunState if state.ended)
_MOST_METRICS = 4


@click.command(
    cls=GroupedCommand,
    example="flavor status flavor-runs/mammo\nflavor status mammo --redis-url redis://localhost",
)
@click.argument("run", metavar="[RUN|FOLDER]", required=False)
@click.option(
    "--metric",
    metavar="NAME",
    help="Metric in the last column of the table of sites.  [default: the first metric that a site has reported]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of text.")
@redis_option
@one_line_errors
def status(run: str | None, metric: str | None, as_json: bool, redis_url: str | None) -> None:
    """Show all runs, or one run with its round and its sites.

    RUN is the name of a run on Redis. FOLDER is the result folder of `flavor run`, which needs no --redis-url.
    """
    from flavor.bus.runs import RunStore, list_runs
    from flavor.local.record import is_folder
    from flavor.local.waits import Waits
    from flavor.store.url import folder_of
    from flavor.view.described import described

    if run is None:
        redis, url = connected(redis_url)
        _warn_of_dropped_jobs(redis)
        rows = [_row(RunStore(redis, name, url)) for name in list_runs(redis, url)]
        _show_all([row for row in rows if row is not None], as_json, redis, url)
        return
    with opened_run(run, redis_url) as found_run:
        if not is_folder(run):
            _warn_of_dropped_jobs(found_run.redis)
        left = run if found_run.is_left else ""
        found = described(found_run.runs, found_run.url, store=found_run.store, metric=metric, left_in=left)
        if is_folder(run) and found["state"] not in _ENDED:
            notes = {note.stem: note for note in sorted((Path(run) / "logs").glob("*.blocked"))}
            found["absent"] += Waits(notes).blocked()
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        if found["global_model"] and found_run.store and (folder := folder_of(found_run.store)):
            found["global_model"] = str(Path(folder) / found["global_model"])  # else a path in the store
        _show_run(found)


@dataclass(frozen=True)
class _Damaged:
    """A run whose record cannot be read, in the list of all runs."""

    run: str
    reason: str
    state: str = "damaged"
    round: int | None = None
    rounds: int | None = None


def _row(runs: RunStore) -> RunView | _Damaged | None:
    try:
        return runs.find()
    except DamagedRecord as error:
        return _Damaged(runs.run, str(error))


def _show_all(rows: list[RunView | _Damaged], as_json: bool, redis: Redis, url: str) -> None:
    from flavor.bus.connection import shown
    from flavor.bus.runs import RunStore

    if as_json:
        fields = ("run", "state", "round", "rounds", "reason")
        click.echo(json.dumps([{name: getattr(view, name) for name in fields} for view in rows], indent=2))
    elif not rows:
        click.echo(f"There are no runs on {shown(url)}.")
    else:
        now_ms = RunStore(redis, rows[0].run, url).now_ms()
        shown_rows = [
            (view.run, "damaged", "-", "-", view.reason)
            if isinstance(view, _Damaged)
            else (view.run, view.state.value, f"{view.round} of {view.rounds}", _begun(now_ms, view), view.reason)
            for view in rows
        ]
        print_table(("RUN", "STATE", "ROUND", "BEGUN", "WHY"), shown_rows)


def _begun(now_ms: int, view: RunView) -> str:
    return f"{shown_duration((now_ms - view.created_ms) / 1000)} ago" if view.created_ms else "-"


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
    ended = found["state"] in _ENDED
    click.echo("  ".join((found["run"], found["state"], f"round {found['round']} of {found['rounds']}", _clock(found))))
    absent = [each for each in found["absent"] if each != found["waits_for"]]
    last = found["reason"] if ended else f"waits: {found['waits_for']}{_lasting(found['waits_s'])}"
    for line in (*absent, last):  # first what is missing: nothing moves without it
        print_line(line)
    if found["last_round"]:
        print_line(_last_round(found))
    if found["global_model"]:
        print_line(f"global model: {found['global_model']}")
    if not found["clients"]:
        click.echo("no site has joined yet")
        return
    from flavor.view.progress import words_of

    name = found["metric"]
    heads = ["SITE", "STATE", "LAST SEEN", "EXAMPLES", "UPLOADED"]
    heads += [name.upper()] if name else []
    clients = found["clients"].items()
    reasons = {site: "" if client["phase"] == "done" else _why(client) for site, client in clients}
    reports = {site: words_of(Reported(**said) if (said := client["reported"]) else None) for site, client in clients}
    further = {head: cells for head, cells in (("REPORTS", reports), ("WHY", reasons)) if any(cells.values())}
    rows = []
    for site, client in clients:
        value = client["metrics"].get(name) if name else None
        row = [
            site,
            client["progress"],
            "-" if ended else _seen(client, found),
            "-" if client["samples"] is None else str(client["samples"]),
            "-" if client["update_bytes"] is None else shown_bytes(client["update_bytes"]),
        ]
        row += ["-" if value is None else f"{value:.4g}"] if name else []
        rows.append([*row, *(cells[site] for cells in further.values())])
    print_table([*heads, *further], rows)


def _why(client: dict[str, Any]) -> str:
    """Say why a site is in its state, with what the site shares (`--report-output`)."""
    return f"{client['reason']} ({quoted(client['report'])})" if client["report"] else str(client["reason"])


def _clock(found: dict[str, Any]) -> str:
    """Say how long the round has been open and when it closes, or how long a run took that has ended."""
    if found["state"] in _ENDED:
        return f"took {shown_duration(found['age_s'])}" if found["age_s"] is not None else ""
    if found["round_state"] == "open":
        needed, total = found["needed"], found["expected"]
        few = f", with {needed} at the deadline" if needed < total else ", deadline"
        left = found["deadline_s"]
        when = f"{few} in {shown_duration(left)}" if left > 0 else ", the deadline has passed"
        every = "it is" if total == 1 else f"all {total} are"
        return f"open for {shown_duration(found['open_s'])}, {found['in']} in, closes when {every}{when}"
    return ""


def _lasting(seconds: float | None) -> str:
    return "" if seconds is None else f", for {shown_duration(seconds)}"


def _last_round(found: dict[str, Any]) -> str:
    """List the newest merged metrics, with the best value so far of the first."""
    last = found["last_round"]
    names = list(last["metrics"])
    if found["metric"] in names:
        names.remove(found["metric"])
        names.insert(0, found["metric"])
    parts = [f"{name} {last['metrics'][name]:.4g}" for name in names[:_MOST_METRICS]]
    if parts and (best := found["best"]) and best["metric"] == names[0]:
        of = "" if best["rounds"] == last["round"] else f" of the last {best['rounds']}"
        parts[0] += f" (best{of}: {best['value']:.4g}, reported in round {best['round']}, {_began(best['round'])})"
    more = f", and {len(names) - _MOST_METRICS} more" if len(names) > _MOST_METRICS else ""
    return f"round {last['round']}: {', '.join(parts) or 'no metrics'}{more}"


def _began(round_: int) -> str:
    """Say from which model a round began, to which its metrics belong unless a script evaluates its trained model."""
    if round_ == 1:
        return "the first"
    return f"which began from the model of round {round_ - 1}: `flavor get RUN --round {round_ - 1}`"


def _seen(client: dict[str, Any], found: dict[str, Any]) -> str:
    if client["seen_s"] is not None:
        return shown_duration(client["seen_s"])
    if client["state"] in ("stopped", "failed", "left"):  # it said goodbye, and the log does not say when
        return "-"
    return f"over {shown_duration(found['heartbeat_timeout_s'])}"
