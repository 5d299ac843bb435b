"""`flavor log`: show the events of a run with their reasons."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.lacking import named_or_own_store, what_is_lacking
from flavor.cli.opened_run import OpenedRun, opened_run, store_of_run
from flavor.cli.options import redis_option
from flavor.cli.output import print_line
from flavor.cli.program import one_line_errors
from flavor.errors import FlavorError
from flavor.printable import printable

if TYPE_CHECKING:
    from flavor.view.log import Logged


@click.command(
    cls=GroupedCommand,
    example="flavor log flavor-runs/mammo\nflavor log mammo --follow --redis-url redis://localhost",
)
@click.argument("run", metavar="RUN|FOLDER")
@click.option("--follow", "-f", is_flag=True, help="Show new events until the run ends.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@redis_option
@one_line_errors
def log(run: str, follow: bool, as_json: bool, redis_url: str | None) -> None:
    """Show every event of a run with its reason.

    RUN is the name of a run on Redis. FOLDER is the result folder of `flavor run`, which needs no --redis-url.
    """
    from flavor.view.log import follow as follow_log

    with opened_run(run, redis_url) as found:
        if follow:  # its end may never come on a Redis that came back older
            _warn_of_lacking(found)
        for logged in follow_log(found.runs, until_end=follow):
            click.echo(_as_json(logged) if as_json else _line(logged))
        if not follow:
            _warn_of_lacking(found)


def _warn_of_lacking(found: OpenedRun) -> None:
    own = found.store
    if not own:
        with contextlib.suppress(FlavorError, KeyError):  # also a package's store that the user has not named
            own = store_of_run(found.run, found.runs.read().config)
    if lacking := what_is_lacking(found.runs, named_or_own_store(own)):
        print_line(lacking, err=True)


def _as_json(logged: Logged) -> str:
    return json.dumps({"time_ms": logged.time_ms, **logged.entry})


def _line(logged: Logged) -> str:
    ms, entry = logged.time_ms, logged.entry
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000)) + f".{ms % 1000:03d}"
    where = " ".join(
        part for part in (f"round {entry['round']}" if "round" in entry else "", entry.get("client", "")) if part
    )
    event, where, reason = (printable(text) for text in (entry["event"], where, entry.get("reason", "")))
    return f"{at}  {event:<20} {where:<20} {reason}".rstrip()
