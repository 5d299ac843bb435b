"""`check-agg`: try an aggregator of one's own, together with a training script."""

from __future__ import annotations

import json
import os
import sys

import click

from flavor.cli.common import one_line_errors, raise_on_sigterm, version_option


@click.command(epilog="Exit codes: 0 nothing failed, 1 a check failed, 2 wrong use, 130 interrupted.")
@click.option("-m", "--main", "main_command", required=True, metavar="CMD", help="The aggregator's command.")
@click.option("-cm", "--client-main", "client_command", required=True, metavar="CMD", help="The training command.")
@click.option("-cp", "--client-preprocess", "preprocess_command", metavar="CMD", help="A command to run once before.")
@click.option("--rounds", type=click.IntRange(min=2), default=2, show_default=True, help="Rounds to run.")
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="How long each step may take: a round of training, an aggregation.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
@click.option("-y", "--yes", is_flag=True, help="Accepted for scripts: check-agg asks nothing.")
@version_option
@one_line_errors
def command(
    *,
    main_command: str,
    client_command: str,
    preprocess_command: str | None,
    rounds: int,
    timeout_s: float,
    as_json: bool,
    yes: bool,
) -> None:
    """Check that an aggregator and a training script work together.

    Runs both on this machine through two rounds, without Redis: the aggregator is started anew in each round, with
    the models of three clients, of which two are made of the script's. In round one it is run four times more, to
    see that its result follows each of them. The paths are those of check-fl.
    """
    from flavor.command import parse_command

    aggregator = parse_command(main_command, "-m")
    trainer = parse_command(client_command, "-cm")
    preprocess = parse_command(preprocess_command, "-cp") if preprocess_command else None

    from flavor.check.aggregator import CommandAggregation
    from flavor.check.folders import Folders
    from flavor.check.screen import Screen, show
    from flavor.check.trainer import Settings, TrainerCheck

    raise_on_sigterm()
    folders = Folders(os.environ)
    failed = False
    try:
        with Screen(quiet=as_json, name="check-agg") as screen:
            screen.tell(f"{main_command} with {client_command}: {rounds} rounds, without Redis")
            aggregation = CommandAggregation(
                aggregator, folders, rounds=rounds, timeout_s=timeout_s, environment=os.environ, screen=screen
            )
            settings = Settings(trainer, preprocess, rounds, timeout_s)
            report = TrainerCheck(
                settings, folders, environment=os.environ, screen=screen, aggregation=aggregation
            ).run()
        sections = {"trainer": report, "aggregator": aggregation.report}
        failed = not all(part.ok for part in sections.values())
    finally:
        kept = folders.close(keep=failed)
    if as_json:
        checks = [{"section": name, **result.as_dict()} for name, part in sections.items() for result in part.results]
        click.echo(
            json.dumps({"passed": not failed, "checks": checks, "workspace": kept and os.fspath(kept)}, indent=2)
        )
    else:
        for name, part in sections.items():
            show(part, title=name, ready="nothing failed", wrong="it is not ready")
        if kept is not None:
            click.echo(f"The files and logs are kept in {kept}")
    sys.exit(1 if failed else 0)


def main() -> None:
    """Entry point."""
    command(prog_name="check-agg")


if __name__ == "__main__":
    main()
