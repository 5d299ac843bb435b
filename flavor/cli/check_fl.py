"""`check-fl`: check a training script before it takes part in a run."""

from __future__ import annotations

import json
import os
import sys

import click

from flavor.cli.help import SpelledCommand
from flavor.cli.installed import InstalledOption, complete_kind, kinds_installed
from flavor.cli.options import version_option
from flavor.cli.program import one_line_errors, raise_on_sigterm
from flavor.cli.script_options import step_timeout_option, trainer_options
from flavor.counted import counted
from flavor.errors import InvalidSetting
from flavor.exit_codes import OF_CHECKS, exit_codes_line
from flavor.parts import Parts


@click.command(
    cls=SpelledCommand,
    example='check-fl -m "python main.py"',
    epilog=exit_codes_line(OF_CHECKS, DONE="nothing failed", FAILED="a check failed"),
)
@trainer_options
@click.option(
    "--ignore-ckpt",
    is_flag=True,
    help="Do not look into the checkpoint, because your own aggregator reads it.",
)
@click.option(
    "-am",
    "--aggregator-main",
    "aggregator_command",
    metavar="CMD",
    help="Command of your own aggregator, which makes the global models of the check.  [default: the mean]",
)
@click.option(
    "--init-once",
    is_flag=True,
    help="Start your own aggregator once, and drive it with events.  [default: start it in each round]",
)
@click.option(
    "--checkpoint",
    cls=InstalledOption,
    installed=kinds_installed,
    shell_complete=complete_kind,
    metavar="KIND",
    default="tensors",
    show_default=True,
    help="Kind of checkpoint that the script saves: tensors (a state_dict), opaque (any file, as with --ignore-ckpt), "
    "or a kind that a package adds.",
)
@click.option(
    "--share",
    metavar="PATTERN",
    multiple=True,
    help="Check the script for a run with this --share, and say which tensors would be shared. May be repeated.",
)
@click.option(
    "--local",
    metavar="PATTERN",
    multiple=True,
    help="Check the script for a run with this --local, and say which tensors would stay at the site. May be repeated.",
)
@click.option(
    "-r",
    "--rounds",
    type=click.IntRange(min=1),
    help="Number of rounds to run, which the script finds in TOTAL_ROUNDS. One round does not show whether the script "
    "goes on from a global model.  [default: 3; 1 with --ignore-ckpt and without -am]",
)
@step_timeout_option("each step in seconds: getting ready, or a round of training.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.option("-y", "--yes", is_flag=True, help="Accepted for old scripts, without effect: check-fl asks no questions.")
@version_option
@one_line_errors
def command(
    *,
    main_command: str,
    preprocess_command: str | None,
    ignore_ckpt: bool,
    aggregator_command: str | None,
    init_once: bool,
    checkpoint: str,
    share: tuple[str, ...],
    local: tuple[str, ...],
    rounds: int | None,
    timeout_s: float,
    as_json: bool,
    yes: bool,
) -> None:
    """Check that a training script can take part in a federated run.

    Runs the script on this machine through three rounds, with an aggregation after each and without Redis. Checks each
    thing that flavor-fl needs, and says what to change. INPUT_PATH, OUTPUT_PATH, LOG_PATH, LOCAL_MODEL_PATH and
    GLOBAL_MODEL_PATH are used if they are set; the other paths lie in a temporary folder, which is kept if a check
    fails. The first round may start from weights at GLOBAL_MODEL_PATH, which are restored at the end. A file at
    LOCAL_MODEL_PATH is removed at the beginning.

    With --ignore-ckpt, name your own aggregator with -am: only it can make a global model for a second round. Without
    -am, one round is run.
    """
    from flavor.checkpoints.kinds import OPAQUE, TENSORS, kind_named
    from flavor.programs.command import parse_command

    parsed = parse_command(main_command, "-m")
    preprocess = parse_command(preprocess_command, "-p") if preprocess_command else None
    kind, parts = kind_named(OPAQUE.name if ignore_ckpt else checkpoint), Parts(share, local)
    if parts and (kind.name != TENSORS.name or aggregator_command is not None):
        what = "-am" if aggregator_command is not None else f"{kind.name} checkpoints"
        raise InvalidSetting(
            f"{parts.options} divides a state_dict, which this check does not do with {what}: leave it out"
        )
    if aggregator_command is not None:
        from flavor.cli.check_agg import check_both

        check_both(
            parse_command(aggregator_command, "-am"),
            parsed,
            preprocess,
            what=f"{main_command} with {aggregator_command}",
            name="check-fl",
            init_once=init_once,
            kind=kind,
            rounds=rounds or 3,
            timeout_s=timeout_s,
            as_json=as_json,
        )
    if init_once:
        raise InvalidSetting("--init-once is for an aggregator of your own: name it with -am CMD")
    if not kind.has_tensors and (rounds or 1) > 1:
        raise InvalidSetting(
            f"--rounds {rounds}: with --ignore-ckpt nothing here can make a global model for a second round: name your "
            "aggregator with -am CMD, or leave out --rounds"
        )
    rounds = rounds or (3 if kind.has_tensors else 1)

    from flavor.check.folders import Folders
    from flavor.check.output import Screen, show
    from flavor.check.trainer import CheckedTrainer, TrainerCheck

    further = "--rounds 2 shows it"
    if not kind.has_tensors:
        further = "name your aggregator with -am CMD: then there is a second round"
    settings = CheckedTrainer(parsed, preprocess, rounds, timeout_s, kind, parts, second_round=further)
    raise_on_sigterm()
    folders = Folders(os.environ)
    failed = False
    try:
        with Screen(quiet=as_json) as screen:
            screen.tell(f"{main_command}: {counted(rounds, 'round')}, without Redis")
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
