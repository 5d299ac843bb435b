"""`flavor revoke`: cut a client off from a run."""

from __future__ import annotations

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import connected
from flavor.cli.options import redis_option
from flavor.cli.output import teller
from flavor.cli.program import one_line_errors
from flavor.errors import RunError
from flavor.records.names import checked_name


@click.command(cls=GroupedCommand, example="flavor revoke mammo site-1 --redis-url redis://localhost")
@click.argument("run")
@click.argument("client")
@redis_option
@one_line_errors
def revoke(run: str, client: str, redis_url: str | None) -> None:
    """Cut a client off from a run.

    Undoes `flavor enroll RUN CLIENT`: the token of CLIENT is invalid at once. In a run that goes on, CLIENT counts as
    failed. Everything that CLIENT wrote into Redis is removed, even if Redis is full of it. Accepted updates of CLIENT
    stay.
    """
    from flavor.bus.acl import UserPersistence, enrolled
    from flavor.bus.acl import revoke as revoke_user
    from flavor.bus.connection import shown

    checked_name(run, "run")
    checked_name(client, "client")
    redis, url = connected(redis_url)
    kept = revoke_user(redis, run, client, where=shown(url))
    if kept is None:
        others = enrolled(redis, run, where=shown(url))
        raise RunError(
            f"no client {client!r} is enrolled for run {run!r} on Redis at {shown(url)}: "
            + (f"there is {', '.join(others)}" if others else "no client is")
        )
    tell = teller("flavor: ")
    tell(f"{client} is revoked for run {run}")
    if kept is UserPersistence.UNKNOWN:
        tell("the server could not save that: look at its log, or the user is back after a restart")
