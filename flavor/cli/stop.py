"""`flavor stop`: stop a run."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.lacking import read_run
from flavor.cli.opened_run import connected
from flavor.cli.options import redis_option
from flavor.cli.output import print_line
from flavor.cli.program import one_line_errors
from flavor.errors import LeaseHeld
from flavor.records.states import RunState

if TYPE_CHECKING:
    from flavor.bus.runs import RunStore


@click.command(cls=GroupedCommand, example='flavor stop mammo --reason "wrong data" --redis-url redis://localhost')
@click.argument("run")
@click.option(
    "--reason", default="stopped by `flavor stop`", show_default=True, help="Reason that the log and all sites get."
)
@redis_option
@one_line_errors
def stop(run: str, reason: str, redis_url: str | None) -> None:
    """Stop a run.

    Ends the training scripts, the edges and the coordinator of RUN. Closed rounds are kept, and `flavor resume` lets
    the run go on.
    """
    from flavor.bus.runs import RunStore

    redis, url = connected(redis_url)
    runs = RunStore(redis, run, url)
    view = read_run(runs)
    if view.state.ended:
        print_line(f"run {run} is {view.state} already: {view.reason}", err=True)
        return
    runs.end(RunState.STOPPED, reason)
    _end_evaluations(runs)
    closed, _ = runs.closed(runs.read())  # read anew: a round may have been closed in that moment
    click.echo(f"run {run} is stopped after round {closed} of {view.rounds}", err=True)


def _end_evaluations(runs: RunStore) -> None:
    """End what a coordinator that was killed has left open; one that is alive does so itself."""
    from flavor.bus.no_coordinator import no_coordinator
    from flavor.coordinator.evaluation_job import cut_off_open
    from flavor.records.evaluation import EvaluationKind

    if all(EvaluationKind.of(number) is EvaluationKind.ASKED for _, number in runs.evaluating()):
        return
    waits = "a model was being judged: waiting for the coordinator to end that"
    with contextlib.suppress(LeaseHeld), no_coordinator(runs, lambda _: print_line(waits, err=True)) as lease:
        cut_off_open(runs, lease.token)
