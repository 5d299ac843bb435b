"""`flavor-fv`: run the edge of a site that judges models and trains nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import click

from flavor import alive
from flavor.cli.help import GroupedCommand
from flavor.cli.identity import default_workspace, identity_of
from flavor.cli.options import site_patience_option, store_settings, version_option
from flavor.cli.output import teller
from flavor.cli.program import Terminated, one_line_errors, raise_on_sigterm, run_program
from flavor.cli.script_options import evaluator_options
from flavor.cli.secrets import keep_private
from flavor.cli.site_options import allow_cross_option, check_together, no_outside_models_option, site_options
from flavor.exit_codes import OF_RUNS, exit_codes_line


@click.command(
    cls=GroupedCommand,
    example='flavor-fv --join @site-1.token -m "python evaluate.py"',
    epilog=exit_codes_line(OF_RUNS),
)
@evaluator_options(
    "Command that judges one global model with this site's data, e.g. 'python evaluate.py'. It is run once for "
    "each evaluation: it loads $WEIGHT_PATH, writes $OUTPUT_PATH/result.json or calls SaveInfoJson, and ends with exit "
    "code 0."
)
@site_options(
    "flavor-fv",
    "evaluation script",
    formats="Format in which the evaluation script reads the model.  [default: the format in which most sites save]",
)
@click.option(
    "--report-output",
    is_flag=True,
    help="Share the last output of the evaluation script with the operator when it fails.  [default: its exit code "
    "only]",
)
@allow_cross_option
@no_outside_models_option
@click.option(
    "--no-report",
    is_flag=True,
    envvar="FLAVOR_NO_REPORT",
    show_envvar=True,
    help="Keep at this site how busy this machine is, and the versions of flavor and Python.  [default: the run's "
    "operator sees both]",
)
@site_patience_option()
@click.option(
    "--join-timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds to wait for a run that does not exist yet.  [default: no limit]",
)
@click.option(
    "--until-end",
    is_flag=True,
    help="End with the run.  [default: stay until Ctrl-C or SIGTERM, because the models of a run that is over can "
    "still be judged]",
)
@version_option
@one_line_errors
def command(
    main_command: str,
    preprocess_command: str | None,
    join: str | None,
    run: str | None,
    client: str | None,
    redis_url: str | None,
    store: str | None,
    workspace: Path | None,
    key: Path | None,
    trust: tuple[str, ...],
    input_path: Path | None,
    format_: str | None,
    opaque: bool,
    checkpoint: str | None,
    allow_set: tuple[str, ...],
    own_settings: tuple[str, ...],
    report_output: bool,
    allow_cross: bool,
    no_outside_models: bool,
    no_report: bool,
    patience_s: float | None,
    join_timeout_s: float | None,
    until_end: bool,
) -> None:
    """Judge the models of a run with this site's data, and train nothing.

    Starts the command of -m once for each evaluation. The site is none of those that train: no round waits for it, and
    --min-clients and --quorum do not count it. It stays after the end of the run, unless --until-end is given: Ctrl-C
    or SIGTERM ends it.
    """
    from flavor.edge.agent import Stopped, take_part
    from flavor.edge.config import EdgeConfig, default_key
    from flavor.edge.judging import JudgingEdge
    from flavor.programs.command import parse_command
    from flavor.script_settings import checked_pattern, parse_own_settings
    from flavor.stamp import with_times
    from flavor.view.blocked import noting
    from flavor.view.observer import Lines

    check_together(allow_cross=allow_cross, no_outside_models=no_outside_models)
    identity = identity_of(join, run=run, client=client, redis_url=redis_url, store=store, workspace=workspace)
    run, client = identity.run, identity.client
    folder = workspace or default_workspace(run, client)
    config = EdgeConfig(
        run=run,
        client=client,
        redis_url=identity.address,
        store=identity.store,
        names_store=identity.names_store,
        store_settings=replace(store_settings(), uploads=folder.absolute() / "uploads"),
        evaluator=tuple(parse_command(main_command, "-m")),
        preprocess=tuple(parse_command(preprocess_command, "-p")) if preprocess_command else None,
        until_end=until_end,
        workspace=folder,
        trust=(*trust, *identity.trust),
        key=key or default_key(client, workspace, default_workspace(run, client), os.environ),
        input=input_path,
        format=format_,
        opaque=opaque,
        checkpoint=checkpoint,
        allow_set=tuple(checked_pattern(pattern) for pattern in allow_set),
        own_settings=parse_own_settings(own_settings),
        report_output=report_output,
        allow_cross=allow_cross,
        outside_models=not no_outside_models,
        report=not no_report,
        patience_s=patience_s,
        join_timeout_s=join_timeout_s,
    )
    raise_on_sigterm(Stopped)
    with_times()
    alive.begin(os.environ)
    tell = teller(f"[{client}] flavor: ")
    try:
        take_part(config, observer=noting(os.environ, Lines(tell)), kind=JudgingEdge)
    except (Stopped, KeyboardInterrupt) as stopped:
        tell("stopped; started again with the same command, it judges the models that are judged then")
        raise (Terminated if isinstance(stopped, Stopped) else stopped) from None


def main() -> None:
    """Entry point."""
    keep_private()
    run_program(command, "flavor-fv")


if __name__ == "__main__":
    main()
