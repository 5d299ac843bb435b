"""`flavor-agg`: run an aggregator."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import click

from flavor import alive
from flavor.cli.help import GroupedCommand
from flavor.cli.options import needed, patience_option, redis_option, store_option, store_settings, version_option
from flavor.cli.output import teller
from flavor.cli.own_commands import OwnCommands
from flavor.cli.program import one_line_errors, run_program
from flavor.cli.secrets import keep_private

_EXIT_CODES = (
    "Exit codes: 0 told to end (SIGTERM, SIGINT), 1 failed, 2 wrong use, 3 no Redis; told twice, with a job in hand: "
    "130 interrupted, 143 terminated."
)


@click.command(
    cls=GroupedCommand,
    example="flavor-agg --redis-url redis://localhost --store store",
    epilog=_EXIT_CODES,
)
@click.option(
    "-m",
    "--main",
    "main_command",
    metavar="CMD",
    help="Command of your own aggregator, e.g. 'python aggregate.py', which is started in each round.  "
    "[default: the rule that each run names]",
)
@click.option(
    "--init-once",
    is_flag=True,
    help="Start your own aggregator once for each run, and drive it with events.",
)
@click.option(
    "-e",
    "--evaluate-main",
    "evaluator",
    metavar="CMD",
    help="Command that judges global models on your own data, e.g. 'python evaluate.py', beside the rounds; the "
    "coordinators' --evaluate says which models.",
)
@click.option(
    "--evaluate-input",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of your own data for --evaluate-main, which finds it as INPUT_PATH.",
)
@click.option(
    "--workspace",
    envvar="FLAVOR_WORKSPACE",
    show_envvar=True,
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("flavor-work/aggregator"),
    show_default=True,
    help="Folder in which the folders of your own commands are created.",
)
@click.option(
    "--env",
    "passed",
    metavar="NAME",
    multiple=True,
    help="Also pass this variable to your own commands, which get all variables except FLAVOR_*, addresses, keys "
    "and credentials (AWS_*, *TOKEN*, …). May be repeated.",
)
@click.option(
    "--env-only",
    is_flag=True,
    help="Pass only PATH, HOME, PYTHON*, CUDA* and similar variables, and the variables of --env.",
)
@click.option(
    "--key",
    envvar="FLAVOR_KEY",
    show_envvar=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of the private key that signs the manifests of rounds (PEM, Ed25519). It is created if it does not "
    "exist.  [default: aggregator.key in --workspace]",
)
@click.option(
    "--memory-limit",
    metavar="SIZE",
    help="Maximum private memory of each process of your own commands, e.g. 8GiB, without files mapped for reading.",
)
@click.option(
    "--cpu-limit-s",
    type=click.IntRange(min=1),
    help="Maximum processor time of each process of your own commands, for a round, or for a run with --init-once.",
)
@click.option("--file-size-limit", metavar="SIZE", help="Maximum size of each file that your own commands write.")
@click.option(
    "--user",
    metavar="NAME",
    help="Run your own commands as this user of the machine. Needs root, and cannot be used with --init-once.",
)
@redis_option
@store_option
@click.option(
    "--queue",
    envvar="FLAVOR_QUEUE",
    show_envvar=True,
    default="flavor",
    show_default=True,
    help="Name of the RQ queue to work on.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=min(4, os.cpu_count() or 1),
    show_default=True,
    help="Number of threads of an aggregation.",
)
@patience_option
@version_option
@one_line_errors
def command(
    main_command: str | None,
    init_once: bool,
    evaluator: str | None,
    evaluate_input: Path | None,
    workspace: Path,
    passed: tuple[str, ...],
    env_only: bool,
    key: Path | None,
    memory_limit: str | None,
    cpu_limit_s: int | None,
    file_size_limit: str | None,
    user: str | None,
    redis_url: str | None,
    store: str | None,
    queue: str,
    threads: int,
    patience_s: float,
) -> None:
    """Aggregate the rounds of all runs whose coordinators use the same queue.

    Inspects updates and aggregates rounds, as an RQ worker. Start as many aggregators as you like, on machines that can
    reach Redis and the object store. On SIGTERM the aggregator finishes its current job first.

    With -m, your own command aggregates the runs. The command finds its files with GetPaths and writes the model to
    GetPaths("globalModel")[0]. OUTPUT_PATH and LOG_PATH are used if they are set. With --init-once, the command is
    started once for each run and repeats WaitEvent("AggregateStarted") and SetEvent("AggregateFinished"); one
    aggregator keeps the process of a run. Check the command with check-agg.

    With -e, your own command judges global models on the data of --evaluate-input, as the evaluators of sites do. It
    runs beside the rounds, which do not wait for it.
    """
    from flavor.errors import InvalidSetting
    from flavor.ledger.keys import SigningKey
    from flavor.ownfolder import make_own_folder
    from flavor.programs.supervision import supervised
    from flavor.stamp import with_times
    from flavor.store.opening import opened_once_usable
    from flavor.store.url import folder_of
    from workers.serving import serve

    with_times()
    tell = teller("[aggregator] ")
    if init_once and main_command is None:
        raise InvalidSetting("--init-once is for an aggregator of your own: flavor-agg --init-once -m CMD")
    if user and init_once:
        raise InvalidSetting("--user goes with a command that is started anew in each round: leave out --init-once")
    commands = OwnCommands(passed, env_only, memory_limit, cpu_limit_s, file_size_limit, user)
    own, judges = commands.of(main_command, evaluator, evaluate_input, workspace.absolute(), tell)
    url = needed(redis_url, "--redis-url", "FLAVOR_REDIS_URL")
    store = needed(store, "--store", "FLAVOR_STORE")
    if (folder := folder_of(store)) and not os.path.lexists(folder):
        if not os.path.isabs(folder):
            raise InvalidSetting(
                f"--store {store}: there is no folder {os.path.abspath(folder)!r}: start flavor-agg in the folder in "
                "which the coordinator runs, or name the coordinator's store by its absolute path"
            )
        tell(f"the store {folder} is not there yet and is made: is it the coordinator's?")
    name = secrets.token_hex(16)
    make_own_folder(workspace, needed=False)
    supervised(tell)
    alive.begin(os.environ)
    with contextlib.suppress(KeyboardInterrupt):  # from when it listens on its queue on, this is heard otherwise
        serve(
            url,
            opened_once_usable(store, create=True, settings=store_settings(), tell=tell),
            queue=queue,
            threads=threads,
            tell=tell,
            patience_s=patience_s,
            aggregator=own,
            init_once=init_once,
            evaluator=judges,
            key=SigningKey.kept(key, workspace / "aggregator.key", tell, "--key"),
            name=name,
        )


def main() -> None:
    """Entry point."""
    keep_private()
    run_program(command, "flavor-agg")


if __name__ == "__main__":
    main()
