"""`flavor-fl`: one site's edge."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import get_args

import click

from flavor.cli.common import (
    EXIT_CODES,
    Terminated,
    needed,
    one_line_errors,
    patience_option,
    raise_on_sigterm,
    redis_option,
    run_option,
    store_option,
    teller,
    version_option,
)
from flavor.edge.config import CheckpointFormat


@click.command(epilog=EXIT_CODES)
@click.option(
    "-m",
    "--main",
    "main_command",
    required=True,
    metavar="CMD",
    help="The training command, e.g. 'python main.py'.",
)
@click.option("-p", "--preprocess", "preprocess_command", metavar="CMD", help="A command to run once before it.")
@run_option
@click.option(
    "--client",
    envvar="FLAVOR_CLIENT",
    show_envvar=True,
    metavar="NAME",
    help="This site's name in the run.  [default: the host name]",
)
@redis_option
@store_option
@click.option(
    "--workspace",
    envvar="FLAVOR_WORKSPACE",
    show_envvar=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the trainer's folders are made, unless OUTPUT_PATH, LOG_PATH, … are set.  "
    "[default: flavor-work/RUN/CLIENT]",
)
@click.option(
    "--key",
    envvar="FLAVOR_KEY",
    show_envvar=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The key that signs this site's updates (PEM, Ed25519); made if there is none, and never sent.  "
    "[default: WORKSPACE/client.key]",
)
@click.option(
    "--input",
    "input_path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The trainer's INPUT_PATH.  [default: $INPUT_PATH, or the current folder]",
)
@click.option(
    "--format",
    "format_",
    envvar="FLAVOR_FORMAT",
    show_envvar=True,
    type=click.Choice(get_args(CheckpointFormat)),
    help="The trainer's checkpoint format.  [default: as it saves]",
)
@patience_option
@click.option(
    "--join-timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    help="Give up if the run has not appeared.  [default: never]",
)
@click.option(
    "--grace-s",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="How long the trainer may take to end after the run has.",
)
@version_option
@one_line_errors
def command(
    main_command: str,
    preprocess_command: str | None,
    run: str,
    client: str | None,
    redis_url: str | None,
    store: str | None,
    workspace: Path | None,
    key: Path | None,
    input_path: Path | None,
    format_: CheckpointFormat | None,
    patience_s: float,
    join_timeout_s: float | None,
    grace_s: float,
) -> None:
    """Take part in a federated run with a training script of your own.

    Starts the command given by -m, which trains one round between TrainStarted and TrainFinished, and moves its
    checkpoints. The command is parsed as a shell would, and run without one; its success is its exit code.
    """
    from flavor.bus.names import checked_name
    from flavor.command import parse_command
    from flavor.edge.agent import Stopped, take_part
    from flavor.edge.config import EdgeConfig

    run, client = checked_name(run, "run"), checked_name(client or socket.gethostname(), "client")
    config = EdgeConfig(
        run=run,
        client=client,
        redis_url=needed(redis_url, "--redis-url", "FLAVOR_REDIS_URL"),
        store=store,
        command=tuple(parse_command(main_command, "-m")),
        preprocess=tuple(parse_command(preprocess_command, "-p")) if preprocess_command else None,
        workspace=workspace or Path("flavor-work") / run / client,
        key=key,
        input=input_path,
        format=format_,
        patience_s=patience_s,
        join_timeout_s=join_timeout_s,
        grace_s=grace_s,
    )
    raise_on_sigterm(Stopped)
    try:
        take_part(config, tell=teller(f"[{client}] flavor: "))
    except Stopped:
        raise Terminated from None


def main() -> None:
    """Entry point."""
    command(prog_name="flavor-fl")


if __name__ == "__main__":
    main()
