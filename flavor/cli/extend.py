"""`flavor extend`: have more rounds in a run that has finished."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.options import patience_option, redis_option, store_option, store_url
from flavor.cli.output import print_line
from flavor.cli.program import one_line_errors
from flavor.counted import are, counted
from flavor.errors import InvalidSetting, RunError
from flavor.exit_codes import OF_RUNS, exit_codes_line

if TYPE_CHECKING:
    from flavor.records.run import RunView


@click.command(
    cls=GroupedCommand,
    example="flavor extend flavor-runs/mammo --rounds 80\n"
    "flavor extend mammo --rounds 80 --redis-url redis://localhost",
    epilog=exit_codes_line(OF_RUNS),
)
@click.argument("run", metavar="RUN|FOLDER")
@click.option(
    "--rounds",
    type=click.IntRange(min=1, max=1_000_000),
    required=True,
    help="Number of rounds that the run is to have in all, with those that it has.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="For a FOLDER: print one JSON object at the end and nothing else."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="FLAVOR_OUT",
    show_envvar=True,
    help="For a RUN: folder into which metrics, a plot, client information and models are written.  [default: none]",
)
@redis_option
@store_option
@patience_option
@one_line_errors
def extend(
    run: str,
    rounds: int,
    as_json: bool,
    out: Path | None,
    redis_url: str | None,
    store: str | None,
    patience_s: float,
) -> None:
    """Have more rounds in a run that has finished.

    The run goes on exactly as if it had been started with so many rounds: with the state of its server step, the same
    samples of clients and the same settings. RUN is coordinated as `flavor serve` does, and the sites start `flavor-fl`
    again with the same command. FOLDER is the result folder of `flavor run`, which goes on on this machine. A run that
    ended by --stop-when or --stop-after-no-gain ends again at once: `flavor resume` changes these settings, and goes on
    with a run that has failed or was stopped as well.
    """
    from flavor.local.record import is_folder

    if is_folder(run):
        from flavor.cli.run import Beside, go_on_in

        beside = Beside(False, None, (), 0.0)
        sys.exit(
            go_on_in(
                Path(run).absolute(),
                redis_url,
                as_json,
                beside,
                given={"rounds": rounds},
                check=lambda view, closed: check_finished(view, closed, rounds, folder=run),
            )
        )
    from flavor.cli.resume import go_on_with

    go_on_with(
        run,
        {"rounds": rounds},
        redis_url=redis_url,
        store=store_url(store, None),
        out=out,
        patience_s=patience_s,
        check=lambda view, closed: check_finished(view, closed, rounds),
    )


def check_finished(view: RunView, closed: int, rounds: int, *, folder: str = "") -> None:
    """Raise unless the run has finished, and `rounds` are more than the `closed` ones.

    Says so before it goes on where the run has reached its goal, and so will end again at once.
    """
    from flavor.records.states import RunState
    from flavor.resume import goes_on_by, is_of_fedtrain, not_by_serve

    if is_of_fedtrain(view) and not folder:
        raise RunError(not_by_serve(view))
    if not view.state.ended:
        raise RunError(f"run {view.run!r} {view.state.is_now}, and only a finished run is extended: {goes_on_by(view)}")
    how = f"flavor run --resume {shlex.quote(folder)}" if folder else f"flavor resume {view.run}"
    if view.state is not RunState.FINISHED:
        was = "was stopped" if view.state is RunState.STOPPED else "has failed"
        only = "and only a finished run is extended"
        raise RunError(f"run {view.run!r} {was}, {only}: `{how} --rounds {rounds}` goes on with it")
    if rounds <= closed:
        raise InvalidSetting(
            f"--rounds {rounds}: {counted(closed, 'round')} {are(closed)} closed already, and --rounds is the number "
            f"of rounds in all: name more than {closed}"
        )
    if view.is_met:
        print_line(
            f"run {view.run!r} ended because it had reached its goal, and ends again at once with the same rules: "
            f"{view.reason}. `{how} --rounds {rounds}` with another --stop-when or --stop-after-no-gain goes on",
            err=True,
        )
