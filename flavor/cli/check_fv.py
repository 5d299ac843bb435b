"""`check-fv`: check an evaluator before it takes part in a run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from flavor.cli.help import SpelledCommand
from flavor.cli.options import version_option
from flavor.cli.program import one_line_errors, raise_on_sigterm
from flavor.cli.script_options import evaluator_options, step_timeout_option
from flavor.errors import InvalidSetting
from flavor.exit_codes import OF_CHECKS, exit_codes_line


@click.command(
    cls=SpelledCommand,
    example='check-fv -m "python evaluate.py" --model flavor-runs/mammo/global_model.pkl',
    epilog=exit_codes_line(OF_CHECKS, DONE="nothing failed", FAILED="a check failed, or nothing is decided"),
)
@evaluator_options("Command that judges one model, e.g. 'python evaluate.py'.")
@click.option(
    "--model",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Model to judge, in the format in which the training script saves, e.g. one of `flavor get`.  [default: the "
    "file at $WEIGHT_PATH if there is one, else a made-up model of 15 numbers]",
)
@step_timeout_option("one evaluation in seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.option("-y", "--yes", is_flag=True, help="Accepted for old scripts, without effect: check-fv asks no questions.")
@version_option
@one_line_errors
def command(
    main_command: str,
    preprocess_command: str | None,
    model: Path | None,
    timeout_s: float,
    as_json: bool,
    yes: bool,
) -> None:
    """Check that an evaluator can judge the models of a federated run, with flavor-fv or flavor-fl -e.

    Runs the script on this machine three times without a run: with the model, once more with the same model, and with a
    model whose weights are all 0. Checks each thing that a run needs, and says what to change. INPUT_PATH, OUTPUT_PATH,
    LOG_PATH and WEIGHT_PATH are used if they are set; the other paths lie in a temporary folder, which is kept if a
    check fails. A model at WEIGHT_PATH is restored at the end; a result.json in OUTPUT_PATH is replaced.
    """
    from flavor.check.evaluator import CheckedEvaluator, EvaluatorCheck
    from flavor.check.folders import Folders
    from flavor.check.output import Screen, show
    from flavor.programs.command import parse_command
    from flavor.programs.evaluator_environment import folders_named

    parsed = parse_command(main_command, "-m")
    preprocess = parse_command(preprocess_command, "-p") if preprocess_command else None
    if model is not None and not model.is_file():
        raise InvalidSetting(f"--model {model}: it is no file: a pipe or a device cannot be read twice")
    settings = CheckedEvaluator(parsed, preprocess, model, timeout_s)
    raise_on_sigterm()
    environment = folders_named(os.environ)
    folders = Folders(environment, name="check-fv")
    failed = False
    try:
        with Screen(quiet=as_json, name="check-fv") as screen:
            screen.tell(f"{main_command}: 3 evaluations, without a run")
            if folders.input_is_empty:
                screen.tell("INPUT_PATH is not set: the script gets an empty folder")
            report = EvaluatorCheck(settings, folders, environment=environment, screen=screen).run()
        failed = not report.ok
    finally:
        kept = folders.close(keep=failed)
    if as_json:
        checks = [result.as_dict() for result in report.results]
        click.echo(json.dumps({"passed": report.ok, "checks": checks, "workspace": kept and os.fspath(kept)}, indent=2))
    else:
        show(report, ready="the script is ready for flavor-fv")
        if kept is not None:
            click.echo(f"Its files and logs are kept in {kept}")
    sys.exit(1 if failed else 0)


def main() -> None:
    """Entry point."""
    command(prog_name="check-fv")


if __name__ == "__main__":
    main()
