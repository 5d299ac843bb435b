"""`flavor export`: write the metrics of a run to TensorBoard, MLflow, tables or JSON."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import opened_run, store_of_run
from flavor.cli.options import redis_option, store_option, store_settings, store_url
from flavor.cli.output import teller
from flavor.cli.program import one_line_errors, raise_on_sigterm

if TYPE_CHECKING:
    from flavor.trackers.export import Exported
    from flavor.trackers.tracker import Tracker

_KINDS = {"csv": "FILE", "json": "FILE", "mlflow": "URI", "tensorboard": "DIR"}


@click.command(
    cls=GroupedCommand,
    example="flavor export flavor-runs/mammo --to csv metrics.csv\n"
    "flavor export mammo --to mlflow http://localhost:5000 \\\n  --redis-url redis://localhost --follow",
)
@click.argument("run", metavar="RUN|FOLDER")
@click.option(
    "--to",
    type=(click.Choice(tuple(_KINDS)), str),
    required=True,
    metavar="KIND PLACE",
    help="Place to write to: csv FILE (and FILE-sites beside it), json FILE, tensorboard DIR, or mlflow URI.",
)
@click.option("--follow", "-f", is_flag=True, help="Write each round as it closes, until the run ends.")
@click.option(
    "--experiment",
    metavar="NAME",
    envvar="MLFLOW_EXPERIMENT_NAME",
    show_envvar=True,
    default="flavor",
    show_default=True,
    help="Experiment in MLflow; it is made if it is not there.",
)
@click.option(
    "--model-name",
    metavar="NAME",
    help="Name under which MLflow registers the final global model of a finished run.  [default: the name of the run]",
)
@click.option("--no-model", is_flag=True, help="Leave the global model out of MLflow.")
@redis_option
@store_option
@one_line_errors
def export(
    run: str,
    to: tuple[str, str],
    follow: bool,
    experiment: str,
    model_name: str | None,
    no_model: bool,
    redis_url: str | None,
    store: str | None,
) -> None:
    """Write the metrics of a run to TensorBoard, MLflow, tables or JSON.

    Writes the metrics of each site and the merged ones of all closed rounds, with the numbers of examples and bytes.
    The numbers are those of metrics.csv. RUN is the name of a run on Redis. FOLDER is the result folder of `flavor
    run`, which needs no --redis-url. The same command writes only what is new: nothing is doubled.
    """
    from flavor.errors import InvalidSetting
    from flavor.stamp import with_times
    from flavor.trackers.export import Export

    kind, place = to
    if kind != "mlflow" and (model_name or no_model):
        raise InvalidSetting(f"{'--model-name' if model_name else '--no-model'} is for --to mlflow")
    if follow:
        with_times()
    raise_on_sigterm()
    tell = teller("[export] " if follow else "")
    tracker = _tracker(kind, place, experiment, model_name, has_model=not no_model, tell=tell)
    exporting = Export(lambda: _opened(run, redis_url, store), tracker, tell)
    if follow:
        exporting.follow()
    else:
        exporting.once()
    tell(exporting.summary())
    click.echo(tracker.where)


@contextlib.contextmanager
def _opened(run: str, redis_url: str | None, store: str | None) -> Iterator[Exported]:
    """Open the run for an export; its Redis, too, if the run has one of its own that is not running."""
    from flavor.local.record import is_folder
    from flavor.store.open import open_store
    from flavor.trackers.export import Exported

    with opened_run(run, redis_url) as found:
        view = found.runs.read()
        url = store_url(store, found.store) or store_of_run(found.run, view.config)
        folder = Path(run).absolute() if is_folder(run) else None
        yield Exported(found.runs, open_store(url, settings=store_settings()), folder)


def _tracker(
    kind: str, place: str, experiment: str, model: str | None, *, has_model: bool, tell: Callable[[str], None]
) -> Tracker:
    """Make the tracker that `--to` names. Raises `InvalidSetting`."""
    from flavor.trackers.files import CsvTracker, JsonTracker

    if kind == "csv":
        return CsvTracker(Path(place), tell)
    if kind == "json":
        return JsonTracker(Path(place), tell)
    if kind == "tensorboard":
        from flavor.trackers.tensorboard import TensorBoardTracker

        return TensorBoardTracker(Path(place), tell)
    from flavor.trackers.mlflow import MlflowTracker

    return MlflowTracker(place, experiment, model=model, has_model=has_model, tell=tell)
