"""`flavor event` and `flavor info`: the trainer's face for scripts that are not Python."""

from __future__ import annotations

import json
import sys
from typing import IO

import click

from flavor.cli.common import one_line_errors
from flavor.cook import utils
from flavor.errors import InvalidInfo, RunOver

_RUN_FINISHED = 6


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
            sys.exit(_RUN_FINISHED)
        raise


@event.command("is-set")
@click.argument("name")
@one_line_errors
def event_is_set(name: str) -> None:
    """Exit with 0 if the event NAME has happened in the current round, else with 1."""
    sys.exit(0 if utils.IsSetEvent(name) else 1)


@click.group()
def info() -> None:
    """Client information, from a training script in any language."""


@info.command("save")
@click.argument("file", type=click.File("r"))
@one_line_errors
def info_save(file: IO[str]) -> None:
    """Check the client information in the JSON FILE (- for stdin) and save it beside $LOCAL_MODEL_PATH."""
    try:
        value = json.load(file)
    except ValueError as error:
        raise InvalidInfo(f"{file.name}: not complete JSON: {error}") from None
    utils.SaveInfoJson(value)
