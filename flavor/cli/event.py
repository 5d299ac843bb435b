"""`flavor event`: events for training scripts that are not Python."""

from __future__ import annotations

import sys

import click

from flavor.cli.program import one_line_errors
from flavor.cook import utils
from flavor.errors import RunOver
from flavor.exit_codes import ExitCode


@click.group()
def event() -> None:
    """Set and wait for events, from a training script in any language."""


@event.command("set")
@click.argument("name")
@one_line_errors
def event_set(name: str) -> None:
    """Say that the event NAME has happened in the current round."""
    utils.SetEvent(name)


@event.command("wait")
@click.argument("name")
@click.option("--timeout-s", type=click.FloatRange(min=0), help="Give up after this long, with exit code 4.")
@one_line_errors
def event_wait(name: str, timeout_s: float | None) -> None:
    """Wait for the event NAME and print the round's number.

    Exit code 0 when it came; 6 when the run is finished, so that `while flavor event wait TrainStarted` ends; 1 when
    the run failed or was stopped; 4 on a timeout.
    """
    try:
        click.echo(utils.WaitEvent(name, timeout_s=timeout_s))
    except RunOver as over:
        if over.state == "finished":
            sys.exit(ExitCode.RUN_FINISHED)
        raise


@event.command("is-set")
@click.argument("name")
@one_line_errors
def event_is_set(name: str) -> None:
    """Exit with 0 if the event NAME has happened in the current round, else with 1."""
    sys.exit(0 if utils.IsSetEvent(name) else 1)
