"""`check-fl`: try a training script before it is bundled."""

from __future__ import annotations

import json
import os
import sys

import click

from flavor.cli.common import one_line_errors, raise_on_sigterm, version_option

_EXIT_CODES = "Exit codes: 0 nothing failed, 1 a check failed, 2 wrong use, 130 interrupted."


@click.command(epilog=_EXIT_CODES)
@click.option(
    "-m",
    "--main",
    "main_command",
    required=True,
    metavar="CMD",
    help="The training command, e.g. 'python main.py'.",
)
@click.option("-p", "--preprocess", "preprocess_command", metavar="CMD", help="A command to run once before it.")
@click.option("--ignore-ckpt", is_flag=True, help="Do not look into the checkpoint, for an aggregator of your own.")
@click.option(
    "--checkpoint",
    type=click.Choice(["tensors", "opaque"]),
    default="tensors",
    show_default=True,
    help="What the script saves: a state_dict of tensors, or any file; `opaque` is the same as --ignore-ckpt.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=2),
    default=2,
    show_default=True,
    help="Rounds to run; TOTAL_ROUNDS of the script.",
)
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="How long each step may take: getting ready, a round of training.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
@click.option("-y", "--yes", is_flag=True, help="Accepted for scripts: check-fl asks nothing.")
@version_option
@one_line_errors
def command(
    *,
    main_command: str,
    preprocess_command: str | None,
    ignore_ckpt: bool,
    checkpoint: str,
    rounds: int,
    timeout_s: float,
    as_json: bool,
    yes: bool,
) -> None:
    """Check that a training script can take part in a federated run.

    Runs it on this machine through two rounds, with aggregation in between and no Redis, and says of each
    thing that flavor-fl needs whether it is there and what to change. INPUT_PATH, OUTPUT_PATH, LOG_PATH,
    LOCAL_MODEL_PATH and GLOBAL_MODEL_PATH are used where they are set; the others get a temporary folder,
    kept if a check fails. Weights at GLOBAL_MODEL_PATH are what the first round may start from; they are
    put back at the end. What lies at LOCAL_MODEL_PATH is removed first.
    """
    from flavor.command import parse_command

    parsed = parse_command(main_command, "-m")
    preprocess = parse_command(preprocess_command, "-p") if preprocess_command else None

    from flavor.check.folders import Folders
    from flavor.check.screen import Screen, show
    from flavor.check.trainer import Settings, TrainerCheck

    opaque = ignore_ckpt or checkpoint == "opaque"
    settings = Settings(parsed, preprocess, rounds, timeout_s, ignore_ckpt=opaque)
    raise_on_sigterm()
    folders = Folders(os.environ)
    failed = False
    try:
        with Screen(quiet=as_json) as screen:
            screen.tell(f"{main_command}: {rounds} rounds, without Redis")
            if folders.input_is_empty:
                screen.tell("INPUT_PATH is not set: the script gets an empty folder")
            report = TrainerCheck(settings, folders, environment=os.environ, screen=screen).run()
        failed = not report.ok
    finally:
        kept = folders.close(keep=failed)
    if as_json:
        checks = [result.as_dict() for result in report.results]
        click.echo(json.dumps({"passed": report.ok, "checks": checks, "workspace": kept and os.fspath(kept)}, indent=2))
    else:
        show(report)
        if kept is not None:
            click.echo(f"Its files and logs are kept in {kept}")
    sys.exit(1 if failed else 0)


def main() -> None:
    """Entry point."""
    command(prog_name="check-fl")


if __name__ == "__main__":
    main()
