"""`flavor-agg`: one aggregator."""

from __future__ import annotations

import os

import click

from flavor.cli.common import (
    EXIT_CODES,
    needed,
    one_line_errors,
    patience_option,
    redis_option,
    store_option,
    teller,
    version_option,
)


@click.command(epilog=EXIT_CODES)
@redis_option
@store_option
@click.option(
    "--queue",
    envvar="FLAVOR_QUEUE",
    show_envvar=True,
    default="flavor",
    show_default=True,
    help="The RQ queue to work on.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=min(4, os.cpu_count() or 1),
    show_default=True,
    help="Threads of an aggregation.",
)
@patience_option
@version_option
@one_line_errors
def command(redis_url: str | None, store: str | None, queue: str, threads: int, patience_s: float) -> None:
    """Inspect updates and aggregate rounds, of any run whose coordinator uses this queue.

    An RQ worker. Start as many as you like, wherever Redis and the object store can be reached; SIGTERM lets the job
    in hand finish.
    """
    from flavor.store.objects import open_store
    from workers.worker import serve

    url = needed(redis_url, "--redis-url", "FLAVOR_REDIS_URL")
    objects = open_store(needed(store, "--store", "FLAVOR_STORE"), create=True)
    serve(url, objects, queue=queue, threads=threads, tell=teller("[aggregator] "), patience_s=patience_s)


def main() -> None:
    """Entry point."""
    command(prog_name="flavor-agg")


if __name__ == "__main__":
    main()
