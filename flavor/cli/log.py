"""`flavor log`: show the events of a run with their reasons."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.lacking import named_or_own_store
from flavor.cli.opened_run import OpenedRun, opened_run, store_of_run
from flavor.cli.options import redis_option
from flavor.cli.output import print_line
from flavor.cli.program import one_line_errors
from flavor.errors import FlavorError, InvalidSetting
from flavor.printable import printable
from flavor.view.lacking import what_is_lacking

if TYPE_CHECKING:
    from flavor.view.log import Logged

_MOST_INDENT = 24


@click.command(
    cls=GroupedCommand,
    example="flavor log flavor-runs/mammo\nflavor log mammo --follow --redis-url redis://localhost",
)
@click.argument("run", metavar="RUN|FOLDER")
@click.option("--follow", "-f", is_flag=True, help="Show new events until the run ends.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option(
    "--script",
    metavar="SITE",
    help="Show the last output of the training script of SITE in place of the events, if the site shares it "
    "(`flavor-fl --share-log`).",
)
@redis_option
@one_line_errors
def log(run: str, follow: bool, as_json: bool, script: str | None, redis_url: str | None) -> None:
    """Show every event of a run with its reason.

    RUN is the name of a run on Redis. FOLDER is the result folder of `flavor run`, which needs no --redis-url.
    """
    if script is not None:
        if follow:
            raise InvalidSetting("--script and --follow exclude each other: repeat the command, e.g. with `watch`")
        with opened_run(run, redis_url) as found:
            _show_script(found, script, as_json)
        return
    from flavor.view.log import follow as follow_log

    with opened_run(run, redis_url) as found:
        if follow:  # its end may never come on a Redis that came back older
            _warn_of_lacking(found)
        for logged in follow_log(found.runs, until_end=follow):
            click.echo(_as_json(logged) if as_json else _line(logged))
        if not follow:
            _warn_of_lacking(found)


def _show_script(found: OpenedRun, site: str, as_json: bool) -> None:
    """Print what a site shares of its script's output, each line after a mark, so that none looks like flavor's own."""
    found.runs.read()
    if site not in found.runs.members():
        raise InvalidSetting(
            f"--script {site}: no site of this name has joined run {found.run!r}: `flavor status` lists them"
        )
    lines = found.runs.shared_log(site)
    if as_json:
        click.echo(json.dumps({"client": site, "lines": lines}))
    elif not lines:
        raise InvalidSetting(
            f"--script {site}: the site shares no output of its script, or there is none yet: its user shares it with "
            "`flavor-fl --share-log 200`; the scripts of a local run write into the folder logs of its results"
        )
    else:
        for line in lines:
            click.echo(f"{printable(site)} | {_indented(line)}")


def _indented(line: str) -> str:
    """A line of a script without control characters, and with its indentation, which no terminal's width can hide."""
    text = line.expandtabs(4)
    indent = min(len(text) - len(text.lstrip(" ")), _MOST_INDENT)
    return " " * indent + printable(text.strip(" "))


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
