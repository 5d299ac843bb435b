"""`flavor event`: events for training scripts that are not Python."""

from __future__ import annotations

import sys

import click

from flavor.cli.help import ExampleGroup, GroupedCommand
from flavor.cli.program import one_line_errors
from flavor.errors import RunOver
from flavor.exit_codes import ExitCode


@click.group(cls=ExampleGroup, example="flavor event set TrainInitDone\nround=$(flavor event wait TrainStarted)")
def event() -> None:
    """Set events and wait for events, in training scripts of any language."""


@event.command("set", cls=GroupedCommand, example="flavor event set TrainFinished")
@click.argument("name")
@one_line_errors
def event_set(name: str) -> None:
    """Set the event NAME in the current round."""
    from flavor.cook import utils

    utils.SetEvent(name)


@event.command(
    "wait",
    cls=GroupedCommand,
    example="round=$(flavor event wait TrainStarted)",
)
@click.argument("name")
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0),
    help="Seconds to wait for the event before giving up with exit code 4.  [default: no limit]",
)
@one_line_errors
def event_wait(name: str, timeout_s: float | None) -> None:
    """Wait for the event NAME and print the round's number.

    The exit code is 0 when the event was set, 6 when the run is finished, 1 when the run has failed or was stopped, and
    4 on a timeout. So `while round=$(flavor event wait TrainStarted); status=$?; [ "$status" -eq 0 ]` repeats
    for each round, and `[ "$status" -eq 6 ] || exit "$status"` after the loop tells a finished run from a failure.
    """
    from flavor.cook import utils

    try:
        click.echo(utils.WaitEvent(name, timeout_s=timeout_s))
    except RunOver as over:
        if over.state == "finished":
            sys.exit(ExitCode.RUN_FINISHED)
        raise


@event.command("is-set", cls=GroupedCommand, example="flavor event is-set TrainStarted && echo open")
@click.argument("name")
@one_line_errors
def event_is_set(name: str) -> None:
    """Test whether the event NAME is set in the current round.

    The exit code is 0 if the event is set, and 1 if not.
    """
    from flavor.cook import utils

    sys.exit(0 if utils.IsSetEvent(name) else 1)
