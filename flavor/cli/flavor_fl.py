"""`flavor-fl`: run the edge of a site."""

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
from flavor.cli.script_options import trainer_options
from flavor.cli.secrets import keep_private
from flavor.cli.site_options import allow_cross_option, check_together, no_outside_models_option, site_options
from flavor.exit_codes import OF_RUNS, exit_codes_line
from flavor.records.names import MOST_LOG_LINES


@click.command(
    cls=GroupedCommand,
    example='flavor-fl --join @site-1.token -m "python main.py"',
    epilog=exit_codes_line(OF_RUNS),
)
@trainer_options
@click.option(
    "-e",
    "--evaluate-main",
    "evaluate_command",
    metavar="CMD",
    help="Command that judges one global model with this site's data, e.g. 'python evaluate.py'. It is run once for "
    "each evaluation, between rounds: it loads $GLOBAL_MODEL_PATH, calls SaveInfoJson, and ends with exit code 0.",
)
@site_options(
    "flavor-fl",
    "training script",
    formats="Format of the training script's checkpoints; 'sharded' is a folder of safetensors shards.  [default: the "
    "format in which it saves]",
)
@click.option(
    "--strip-prefix",
    is_flag=True,
    help="Remove the prefixes 'module.' (DataParallel) and '_orig_mod.' (torch.compile) from the names of tensors, and "
    "add them to the global model again.",
)
@click.option(
    "--report-output",
    is_flag=True,
    help="Share the last output of the training script with the operator when it fails.  [default: its exit code only]",
)
@allow_cross_option
@no_outside_models_option
@click.option(
    "--no-report",
    is_flag=True,
    envvar="FLAVOR_NO_REPORT",
    show_envvar=True,
    help="Keep at this site what the training script reports of its progress (Report), how busy this machine is, and "
    "the versions of flavor and Python.  [default: the run's operator sees all of it]",
)
@click.option(
    "--share-log",
    type=click.IntRange(0, MOST_LOG_LINES),
    default=0,
    show_default=True,
    metavar="LINES",
    envvar="FLAVOR_SHARE_LOG",
    show_envvar=True,
    help="Share the last lines of the training script's output with the operator while it runs, up to 64 KiB.",
)
@click.option(
    "--relay-events",
    type=click.Choice(["files"]),
    metavar="files",
    envvar="FLAVOR_RELAY_EVENTS",
    show_envvar=True,
    help="Pass the events of the training script on by files in the folder of --workspace, for a script that srun or "
    "sbatch starts on a compute node without a way to Redis. Both machines must share that folder.  [default: the "
    "script connects to Redis itself]",
)
@site_patience_option("The training script waits for Redis for as long.")
@click.option(
    "--join-timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds to wait for a run that does not exist yet, has failed or was stopped.  [default: no limit]",
)
@click.option(
    "--grace-s",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds that the training script has to end after the end of the run.",
)
@version_option
@one_line_errors
def command(
    main_command: str,
    preprocess_command: str | None,
    evaluate_command: str | None,
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
    strip_prefix: bool,
    report_output: bool,
    allow_cross: bool,
    no_outside_models: bool,
    no_report: bool,
    share_log: int,
    relay_events: str | None,
    patience_s: float | None,
    join_timeout_s: float | None,
    grace_s: float,
) -> None:
    """Take part in a run with your own training script.

    Starts the training command of -m, which trains one round between the events TrainStarted and TrainFinished, and
    transfers the checkpoints of the command. The command is split into words as a shell does it, and runs without a
    shell. An exit code of the command other than 0 says that the training failed.
    """
    from flavor.edge.agent import Stopped, take_part
    from flavor.edge.config import EdgeConfig, default_key
    from flavor.programs.command import parse_command
    from flavor.script_settings import checked_pattern, parse_own_settings
    from flavor.stamp import with_times
    from flavor.view.blocked import noting
    from flavor.view.observer import Lines

    check_together(allow_cross=allow_cross, no_outside_models=no_outside_models)
    identity = identity_of(join, run=run, client=client, redis_url=redis_url, store=store, workspace=workspace)
    run, client = identity.run, identity.client
    uploads = (workspace or default_workspace(run, client)).absolute() / "uploads"
    config = EdgeConfig(
        run=run,
        client=client,
        redis_url=identity.address,
        store=identity.store,
        names_store=identity.names_store,
        store_settings=replace(store_settings(), uploads=uploads),
        command=tuple(parse_command(main_command, "-m")),
        preprocess=tuple(parse_command(preprocess_command, "-p")) if preprocess_command else None,
        evaluator=tuple(parse_command(evaluate_command, "-e")) if evaluate_command else None,
        workspace=workspace or default_workspace(run, client),
        trust=(*trust, *identity.trust),
        key=key or default_key(client, workspace, default_workspace(run, client), os.environ),
        input=input_path,
        format=format_,
        opaque=opaque,
        checkpoint=checkpoint,
        allow_set=tuple(checked_pattern(pattern) for pattern in allow_set),
        own_settings=parse_own_settings(own_settings),
        strip_prefix=strip_prefix,
        report_output=report_output,
        allow_cross=allow_cross,
        outside_models=not no_outside_models,
        report=not no_report,
        share_log=share_log,
        relays=relay_events is not None,
        patience_s=patience_s,
        join_timeout_s=join_timeout_s,
        grace_s=grace_s,
        journal=Path(journal) if (journal := os.environ.get("FLAVOR_JOURNAL")) else None,
    )
    raise_on_sigterm(Stopped)
    with_times()
    alive.begin(os.environ)
    tell = teller(f"[{client}] flavor: ")
    try:
        take_part(config, observer=noting(os.environ, Lines(tell)))
    except (Stopped, KeyboardInterrupt) as stopped:
        tell("stopped; started again with the same command, it joins the round that is open then")
        raise (Terminated if isinstance(stopped, Stopped) else stopped) from None


def main() -> None:
    """Entry point."""
    keep_private()
    run_program(command, "flavor-fl")


if __name__ == "__main__":
    main()
