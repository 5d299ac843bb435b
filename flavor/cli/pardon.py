"""`flavor pardon`: end the quarantine of a client."""

from __future__ import annotations

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.lacking import read_run
from flavor.cli.opened_run import connected
from flavor.cli.options import redis_option
from flavor.cli.program import one_line_errors
from flavor.errors import RunError
from flavor.records.round import RoundView
from flavor.records.states import RoundState


def _gets_tasks(round_: RoundView | None, client: str) -> str:
    """Say how a pardoned client gets tasks again: while the round of its refusal is open, that takes another try."""
    verdict = round_.verdicts.get(client) if round_ is not None and round_.state is RoundState.OPEN else None
    if verdict is None or verdict.accepted:
        return (
            "gets tasks again by itself, from the next one on: where the cause is not mended yet, mend it there, and "
            "stop and start flavor-fl"
        )
    return (
        "gets tasks again: unless flavor-fl was started again there since the refusal, mend the cause, stop it and "
        "start it again to train the open round"
    )


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
    view = read_run(runs)
    if client not in (members := runs.members()):
        known = ", ".join(sorted(members)) or "none yet"
        raise RunError(f"client {client!r} is not in run {run!r}; there are: {known}")
    done = runs.pardon(client)
    told = "has no refused update since its last accepted one: nothing to forget"
    if done:
        told = _gets_tasks(runs.read_round(view.round) if view.round else None, client)
    click.echo(f"client {client} of run {run} {told}", err=True)
