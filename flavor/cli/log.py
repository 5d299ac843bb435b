"""`flavor log`: show the events of a run with their reasons."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.lacking import named_or_own_store
from flavor.cli.opened_run import OpenedRun, opened_run, store_of_run
from flavor.cli.options import redis_option
from flavor.cli.output import folded, is_coloured, print_line
from flavor.cli.program import one_line_errors
from flavor.cli.since import since_ms
from flavor.errors import BusUnavailable, FlavorError, InvalidSetting
from flavor.printable import printable
from flavor.records.names import checked_name
from flavor.view.lacking import what_is_lacking

if TYPE_CHECKING:
    from flavor.bus.connection import Redis
    from flavor.view.log import Logged

_MOST_INDENT = 24
_AGAIN_S = 1.0
"""How often a Redis that is away is tried again."""


@click.command(
    cls=GroupedCommand,
    example="flavor log flavor-runs/mammo\nflavor log mammo --since 2h --client site-1 --redis-url redis://localhost",
)
@click.argument("run", metavar="RUN|FOLDER")
@click.option("--follow", "-f", is_flag=True, help="Show new events until the run ends.")
@click.option(
    "--since",
    metavar="WHEN",
    help="Show only events since then: so long ago (90s, 30m, 2h, 1d), a time (03:00), a date (2026-11-29) or both "
    "(2026-11-29T03:00+01:00). The clock of the Redis server counts.",
)
@click.option(
    "--client",
    "clients",
    metavar="SITE",
    multiple=True,
    help="Show only events about this site. Repeat the option for other sites.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option(
    "--color/--no-color",
    "color",
    default=None,
    help="Print colours, or none.  [default: colours on a terminal, unless NO_COLOR is set]",
)
@click.option(
    "--script",
    metavar="SITE",
    help="Show the last output of the training script of SITE in place of the events, if the site shares it "
    "(`flavor-fl --share-log`).",
)
@redis_option
@one_line_errors
def log(
    run: str,
    follow: bool,
    since: str | None,
    clients: tuple[str, ...],
    as_json: bool,
    color: bool | None,
    script: str | None,
    redis_url: str | None,
) -> None:
    """Show every event of a run with its reason.

    RUN is the name of a run on Redis. FOLDER is the result folder of `flavor run`, which needs no --redis-url. Colours
    show what was refused or lost (red), waits (yellow) or is done (green).
    """
    if script is not None:
        others = {"--follow": follow, "--since": since is not None, "--client": bool(clients)}
        if given := [name for name, is_given in others.items() if is_given]:
            hint = ": repeat the command, e.g. with `watch`" if follow else ""
            raise InvalidSetting(f"--script and {given[0]} exclude each other{hint}")
        with opened_run(run, redis_url) as found:
            _show_script(found, script, as_json)
        return
    for client in clients:
        checked_name(client, "--client")
    from flavor.local.record import is_folder
    from flavor.view.log import START, before
    from flavor.view.log import follow as follow_log

    is_tinted = is_coloured(color) and not as_json
    with opened_run(run, redis_url) as found:
        _check_known(found, clients, may_come=follow)
        after = START if since is None else before(since_ms(since, found.runs.now_ms()))
        if follow:  # its end may never come on a Redis that came back older
            _warn_of_lacking(found)
        waits = follow and not is_folder(run)  # the own server of a local run ends with it
        for logged in _patiently(found, after) if waits else follow_log(found.runs, after=after, until_end=follow):
            if not clients or logged.entry.get("client") in clients:
                click.echo(_as_json(logged) if as_json else _line(logged, is_tinted=is_tinted), color=is_tinted)
        if not follow:
            _warn_of_lacking(found)


def _patiently(found: OpenedRun, after: str) -> Iterator[Logged]:
    """Yield the entries until the run's end, also those after an outage of Redis, which is reported."""
    from redis.exceptions import ConnectionError as Unreachable
    from redis.exceptions import TimeoutError as Silent

    from flavor.bus.connection import connect
    from flavor.view.log import follow as follow_log

    while True:
        try:
            for logged in follow_log(found.runs, after=after):
                after = logged.id
                yield logged
            return
        except BusUnavailable as error:
            if not isinstance(error.__cause__, Unreachable | Silent):
                raise
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            print_line(f"the log cannot be read since {since}: {error}; waiting for it", err=True)
        with connect(found.url, patience_s=0.0) as probe:
            while not _answers(probe):
                time.sleep(_AGAIN_S)


def _answers(redis: Redis) -> bool:
    from redis.exceptions import RedisError

    try:
        return bool(redis.time())  # PING is refused where the disk of Redis is full
    except RedisError:
        return False


def _check_known(found: OpenedRun, clients: tuple[str, ...], *, may_come: bool) -> None:
    """Refuse a client that neither is in the run nor has an event in its log; report it if it `may_come`."""
    from flavor.view.log import follow as follow_log

    found.runs.read()
    strange = set(clients).difference(found.runs.members())
    if strange:
        strange -= {logged.entry.get("client", "") for logged in follow_log(found.runs, until_end=False)}
    for client in sorted(strange):
        if not may_come:
            raise InvalidSetting(
                f"--client {client}: no site of this name has joined run {found.run!r}: `flavor status` lists the sites"
            )
        print_line(f"no site {client!r} has joined run {found.run!r} yet: waiting for its events", err=True)


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
    of_run = None
    if not found.store:
        with contextlib.suppress(FlavorError, KeyError):  # also a package's store that the user has not named
            of_run = store_of_run(found.run, found.runs.read().config)
    if lacking := what_is_lacking(found.runs, named_or_own_store(found.store, of_run)):
        print_line(lacking, err=True)


def _as_json(logged: Logged) -> str:
    return json.dumps({"time_ms": logged.time_ms, **logged.entry})


def _line(logged: Logged, *, is_tinted: bool) -> str:
    from flavor.view.styles import COLOUR_OF_EVENT

    ms, entry = logged.time_ms, logged.entry
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000)) + f".{ms % 1000:03d}"
    where = " ".join(
        part for part in (f"round {entry['round']}" if "round" in entry else "", entry.get("client", "")) if part
    )
    event, where, reason = (printable(text) for text in (entry["event"], where, entry.get("reason", "")))
    line = folded(f"{at}  {event:<20} {where:<20} {reason}".rstrip())
    if not is_tinted:
        return line
    what = line.removeprefix(at)
    return f"{click.style(at, dim=True)}{click.style(what, fg=COLOUR_OF_EVENT.get(entry['event']) or None)}"
