"""`flavor log`: what a run did, with the reasons."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from flavor.bus.connection import translated
from flavor.bus.runs import RunStore
from flavor.cli.opened_run import opened_run
from flavor.cli.options import redis_option
from flavor.cli.program import one_line_errors
from flavor.printable import printable


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
    with opened_run(run, redis_url) as found:
        _print_log(found.runs, follow=follow, as_json=as_json)


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
