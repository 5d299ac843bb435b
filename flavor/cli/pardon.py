"""`flavor pardon`: end the quarantine of a client."""

from __future__ import annotations

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.lacking import read_run
from flavor.cli.opened_run import connected
from flavor.cli.options import redis_option
from flavor.cli.program import one_line_errors
from flavor.errors import RunError


@click.command(cls=GroupedCommand, example="flavor pardon mammo site-2 --redis-url redis://localhost")
@click.argument("run")
@click.argument("client")
@redis_option
@one_line_errors
def pardon(run: str, client: str, redis_url: str | None) -> None:
    """End the quarantine of a client.

    Forgets how many updates of CLIENT were refused in a row, so that CLIENT gets tasks of RUN again.
    """
    from flavor.bus.runs import RunStore

    redis, url = connected(redis_url)
    runs = RunStore(redis, run, url)
    read_run(runs)
    if client not in (members := runs.members()):
        known = ", ".join(sorted(members)) or "none yet"
        raise RunError(f"client {client!r} is not in run {run!r}; there are: {known}")
    done = runs.pardon(client)
    told = "has no refused update since its last accepted one: nothing to forget"
    if done:
        told = "gets tasks again: stop flavor-fl there and start it again to train the open round"
    click.echo(f"client {client} of run {run} {told}", err=True)
