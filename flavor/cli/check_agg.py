"""`check-agg`: check a user's own aggregator together with a training script."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import click

from flavor.cli.help import SpelledCommand
from flavor.cli.installed import InstalledOption, complete_kind, kinds_installed
from flavor.cli.options import version_option
from flavor.cli.program import one_line_errors, raise_on_sigterm
from flavor.cli.script_options import step_timeout_option
from flavor.counted import counted
from flavor.errors import InvalidSetting
from flavor.exit_codes import OF_CHECKS, exit_codes_line

if TYPE_CHECKING:
    from flavor.check.report import Report
    from flavor.checkpoints.kind import CheckpointKind


@click.command(
    cls=SpelledCommand,
    example='check-agg -m "python aggregate.py" -cm "python main.py"',
    epilog=exit_codes_line(OF_CHECKS, DONE="nothing failed", FAILED="a check failed"),
)
@click.option(
    "-m",
    "--main",
    "main_command",
    required=True,
    metavar="CMD",
    help="Command of your own aggregator, e.g. 'python aggregate.py'.",
)
@click.option(
    "-cm",
    "--client-main",
    "client_command",
    required=True,
    metavar="CMD",
    help="Training command, e.g. 'python main.py'.",
)
@click.option(
    "-cp",
    "--client-preprocess",
    "preprocess_command",
    metavar="CMD",
    help="Command to run once before the training command.",
)
@click.option(
    "--init-once",
    is_flag=True,
    help="Start the aggregator once, and drive it with events.  [default: start it in each round]",
)
@click.option(
    "--checkpoint",
    cls=InstalledOption,
    installed=kinds_installed,
    shell_complete=complete_kind,
    metavar="KIND",
    default="tensors",
    show_default=True,
    help="Kind of checkpoint that the training command saves: tensors (a state_dict), opaque (any file), or a kind "
    "that a package adds.",
)
@click.option(
    "--env",
    "passed",
    metavar="NAME",
    multiple=True,
    help="Also pass this variable to the aggregator, which gets all variables except FLAVOR_*, addresses, keys and "
    "credentials (AWS_*, *TOKEN*, …). May be repeated.",
)
@click.option(
    "--env-only",
    is_flag=True,
    help="Pass only PATH, HOME, PYTHON*, CUDA* and similar variables, and the variables of --env.",
)
@click.option(
    "-r",
    "--rounds",
    type=click.IntRange(min=2),
    default=3,
    show_default=True,
    help="Number of rounds to run. From the third round on there are four clients.",
)
@click.option(
    "-e", "--epochs", type=click.IntRange(min=1), hidden=True, help="The ancestor's word: rounds after the first."
)
@step_timeout_option("each step in seconds: a round of training, or an aggregation.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.option(
    "-y",
    "--yes",
    is_flag=True,
    help="Accepted for old scripts, without effect: check-agg asks no questions.",
)
@version_option
@one_line_errors
def command(
    *,
    main_command: str,
    client_command: str,
    preprocess_command: str | None,
    init_once: bool,
    checkpoint: str,
    passed: tuple[str, ...],
    env_only: bool,
    rounds: int,
    epochs: int | None,
    timeout_s: float,
    as_json: bool,
    yes: bool,
) -> None:
    """Check that an aggregator and a training script work together.

    Runs both on this machine through three rounds, without Redis. The aggregator gets the models of three clients, and
    of four in the third round; all but one of them are derived from the script's model. The script gets the global
    model in its own format, as flavor-fl writes it. Then check-agg runs the aggregator alone several times, to check
    that the result depends on each local model. Aggregator and script have the environment that they have under
    flavor-agg and flavor-fl. The script has the same paths as under check-fl.
    """
    from flavor.checkpoints.kinds import kind_named
    from flavor.programs.command import parse_command

    aggregator = parse_command(main_command, "-m")
    trainer = parse_command(client_command, "-cm")
    preprocess = parse_command(preprocess_command, "-cp") if preprocess_command else None
    for name in passed:
        if name not in os.environ:
            raise InvalidSetting(f"--env {name}: no such variable is set here: give the name alone, and set it before")

    check_both(
        aggregator,
        trainer,
        preprocess,
        what=f"{main_command} with {client_command}",
        name="check-agg",
        passed=passed,
        only=env_only,
        init_once=init_once,
        kind=kind_named(checkpoint),
        rounds=rounds if epochs is None else epochs + 1,
        timeout_s=timeout_s,
        as_json=as_json,
    )


def check_both(
    aggregator: Sequence[str],
    trainer: Sequence[str],
    preprocess: Sequence[str] | None,
    *,
    what: str,
    name: str,
    passed: Sequence[str] = (),
    only: bool = False,
    init_once: bool,
    kind: CheckpointKind,
    rounds: int,
    timeout_s: float,
    as_json: bool,
) -> NoReturn:
    """Check these two commands together, print the results, and exit with 1 if a check failed, else with 0."""
    from flavor.check.aggregator import CommandAggregation
    from flavor.check.aggregator_process import CheckedAggregator
    from flavor.check.folders import Folders
    from flavor.check.output import Screen
    from flavor.check.trainer import CheckedTrainer, TrainerCheck
    from flavor.programs.aggregator import UserAggregator

    if rounds < 2:
        raise InvalidSetting(f"--rounds {rounds}: whether an aggregator fits shows in the second round: leave it out")
    raise_on_sigterm()
    folders = Folders(os.environ)
    failed = False
    try:
        with Screen(quiet=as_json, name=name) as screen:
            screen.tell(f"{what}: {counted(rounds, 'round')}, without Redis")
            aggregation = CommandAggregation(
                CheckedAggregator(
                    UserAggregator(tuple(aggregator), folders.root, tuple(passed), only=only),
                    rounds,
                    timeout_s,
                    os.environ,
                    folders.workspace.log,
                ),
                folders,
                screen=screen,
                init_once=init_once,
                checkpoints=kind,
            )
            settings = CheckedTrainer(trainer, preprocess, rounds, timeout_s, kind)
            report = TrainerCheck(
                settings, folders, environment=os.environ, screen=screen, aggregation=aggregation
            ).run()
        sections = {"trainer": report, "aggregator": aggregation.report}
        failed = not all(part.ok for part in sections.values())
    finally:
        kept = folders.close(keep=failed)
    _print(sections, os.fspath(kept) if kept else None, as_json=as_json)
    sys.exit(1 if failed else 0)


def _print(sections: dict[str, Report], kept: str | None, *, as_json: bool) -> None:
    from flavor.check.output import show

    if as_json:
        checks = [{"section": name, **result.as_dict()} for name, part in sections.items() for result in part.results]
        passed = all(part.ok for part in sections.values())
        click.echo(json.dumps({"passed": passed, "checks": checks, "workspace": kept}, indent=2))
        return
    for name, part in sections.items():
        show(part, title=name, ready="nothing failed", wrong="it is not ready")
    if kept is not None:
        click.echo(f"The files and logs are kept in {kept}")


def main() -> None:
    """Entry point."""
    command(prog_name="check-agg")


if __name__ == "__main__":
    main()
