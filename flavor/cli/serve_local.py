"""The coordinator of a local run, which `flavor run` starts; its settings are in the run's result folder.

    python -P -m flavor.cli.serve_local FOLDER

A command line would show each setting to all users of the machine, and a script's may be secret.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from flavor.bus.runs import RunStore
from flavor.cli.from_run import Beginning
from flavor.cli.opened_run import connected
from flavor.cli.options import needed, patience_option, redis_option, store_option
from flavor.cli.program import one_line_errors, run_program
from flavor.cli.serve import coordinate
from flavor.config import RunConfig
from flavor.ledger.manifest import BegunFrom
from flavor.local.record import Record
from flavor.view.blocked import noting
from flavor.view.observer import Lines


@click.command(hidden=True)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@redis_option
@store_option
@patience_option
@one_line_errors
def serve_local(folder: Path, redis_url: str | None, store: str | None, patience_s: float) -> None:
    """Coordinate the run of this result folder."""
    noting(os.environ, Lines(lambda _: None))  # what else blocks it is in the run's log
    record = Record.of(folder)
    config = RunConfig.of_run(record.run, record.federation["config"])
    url = needed(redis_url, "--redis-url", "FLAVOR_REDIS_URL")
    initial, begun_from = record.federation["init_model"], record.federation.get("begun_from")
    if initial and RunStore(connected(url, patience_s=patience_s)[0], record.run, url).find() is not None:
        initial = None  # a run that goes on needs the file no more, which may have changed since
    beginning = None
    if initial:
        beginning = Beginning(Path(initial), BegunFrom(**begun_from) if begun_from else None)
    coordinate(record.run, config, url, beginning=beginning, patience_s=patience_s)


def main() -> None:
    """Entry point."""
    run_program(serve_local, "flavor")


if __name__ == "__main__":
    main()
