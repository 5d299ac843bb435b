"""`flavor revoke`: cut a client off from a run, or an aggregator off from the server."""

from __future__ import annotations

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import connected
from flavor.cli.options import redis_option
from flavor.cli.output import teller
from flavor.cli.program import one_line_errors
from flavor.errors import MisuseError, RunError
from flavor.records.names import checked_name


@click.command(cls=GroupedCommand, example="flavor revoke mammo site-1 --redis-url redis://localhost")
@click.argument("run", required=False)
@click.argument("client", required=False)
@click.option("--worker", metavar="NAME", help="Cut off an aggregator, which has no RUN and no CLIENT.")
@click.option("--viewer", metavar="NAME", help="Cut off a viewer, which has no RUN and no CLIENT.")
@redis_option
@one_line_errors
def revoke(run: str | None, client: str | None, worker: str | None, viewer: str | None, redis_url: str | None) -> None:
    """Cut a client off from a run, or an aggregator off from the server.

    Undoes `flavor enroll RUN CLIENT`: the token of CLIENT is invalid at once. In a run that goes on, CLIENT counts as
    failed. Everything that CLIENT wrote into Redis is removed, even if Redis is full of it. Accepted updates of CLIENT
    stay. A goal of --stop-when no longer waits for a value of CLIENT. A CLIENT without a token can be revoked once its
    edge has ended: it counts as failed until it joins again.

    With --worker, undoes `flavor enroll --worker NAME`: the aggregator's URL is invalid at once, and its connections
    end. Another aggregator does the work that it had begun. Rounds that it has closed stay.

    With --viewer, undoes `flavor enroll --viewer NAME`: a page that uses the viewer's URL shows nothing new from then
    on.
    """
    from flavor.bus.acl import (
        UserPersistence,
        enrolled,
        enrolled_viewers,
        enrolled_workers,
        revoke_absent,
        revoke_viewer,
        revoke_worker,
    )
    from flavor.bus.acl import revoke as revoke_user
    from flavor.bus.connection import shown

    tell = teller("flavor: ")
    if worker is not None or viewer is not None:
        if run or client or (worker is not None and viewer is not None):
            raise MisuseError("--worker NAME or --viewer NAME goes without RUN and CLIENT, and without the other one")
        what, name = ("aggregator", worker) if worker is not None else ("viewer", viewer or "")
        checked_name(name, "worker" if worker is not None else "viewer")
        redis, url = connected(redis_url)
        remove, there = (revoke_worker, enrolled_workers) if worker is not None else (revoke_viewer, enrolled_viewers)
        kept = remove(redis, name, where=shown(url))
        if kept is None:
            listed = _there(there(redis, where=shown(url)), what)
            raise RunError(f"no {what} {name!r} is enrolled on Redis at {shown(url)}: {listed}")
        tell(f"{what} {name} is revoked")
    elif run and client:
        checked_name(run, "run")
        checked_name(client, "client")
        redis, url = connected(redis_url)
        kept = revoke_user(redis, run, client, where=shown(url))
        if kept is None and revoke_absent(redis, run, client, where=shown(url)):
            tell(f"{client} is revoked for run {run}; it had no token, and takes part again if it is started again")
            return
        if kept is None:
            raise RunError(
                f"no client {client!r} is enrolled for run {run!r} on Redis at {shown(url)}: "
                + _there(enrolled(redis, run, where=shown(url)), "client")
                + "; one without a token can be revoked once its edge has ended"
            )
        tell(f"{client} is revoked for run {run}")
    else:
        raise MisuseError("name the run and the client: flavor revoke RUN CLIENT (or --worker NAME, or --viewer NAME)")
    if kept is UserPersistence.UNKNOWN:
        tell("the server could not save that: look at its log, or the user is back after a restart")


def _there(names: list[str], what: str) -> str:
    return f"there is {', '.join(names)}" if names else f"no {what} is"
