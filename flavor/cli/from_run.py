"""`--from-run`: a run begins from the global model of another one."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flavor.cli.opened_run import opened_run, store_of_run
from flavor.cli.options import store_settings
from flavor.cli.round_option import chosen_round, parse_round
from flavor.errors import InvalidSetting, RunError, StoreError

if TYPE_CHECKING:
    from flavor.ledger.manifest import BegunFrom

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Beginning:
    """Pre-trained weights that a run begins from."""

    path: Path
    begun_from: BegunFrom | None = None
    """The run and the round that made them; None for a file of the user's."""


def from_run_options(function: Command) -> Command:
    """Add `--from-run` and `--from-round`."""
    for option in (
        click.option(
            "--from-round",
            metavar="NUMBER|last|best",
            default="last",
            show_default=True,
            callback=parse_round,
            help="Which global model of --from-run: that of a round, of the newest closed round, or of the best one.",
        ),
        click.option(
            "--from-run",
            metavar="RUN|FOLDER",
            help="Begin from a global model of another run: a run on the same Redis, or the result folder of a `flavor "
            "run`. The record of the new run names the run, the round and the model's digest.",
        ),
    ):
        function = option(function)
    return function


@contextlib.contextmanager
def beginning_of(
    init_model: Path | None, from_run: str | None, from_round: int | None, redis_url: str | None
) -> Iterator[Beginning | None]:
    """Give the weights that these options name; None without any. Raises `InvalidSetting`, `RunError`.

    The file of a model of another run is there for the body alone.
    """
    if from_run is None:
        yield Beginning(init_model) if init_model else None
        return
    if init_model is not None:
        raise InvalidSetting("--init-model and --from-run exclude each other: both name the weights to begin from")
    with tempfile.TemporaryDirectory(prefix="flavor-from-run-") as folder:
        yield _fetched(from_run, from_round, redis_url, Path(folder))


def _fetched(from_run: str, from_round: int | None, redis_url: str | None, into: Path) -> Beginning:
    """Write the model of the other run into a file in the format of its training scripts."""
    from flavor.ledger.manifest import BegunFrom
    from flavor.ledger.rounds import closed_round
    from flavor.results.folder import write_model
    from flavor.results.whole_model import why_not_whole
    from flavor.store.open import open_store

    with opened_run(from_run, redis_url) as other:
        runs = other.runs
        view = runs.read()
        closed, _ = runs.closed(view)
        number = chosen_round(runs, view, closed, from_round)
        objects = open_store(other.store or store_of_run(other.run, view.config), settings=store_settings())
        try:
            found = closed_round(runs, objects, number, newest=view.round) if number else None
            if found is None or found.model is None:
                have = f"rounds 1 to {closed} are closed" if closed else "no round of it is closed yet"
                raise RunError(f"--from-run: run {other.run!r} has no model of round {number or 1}: {have}")
            if why := why_not_whole(view):
                raise RunError(f"--from-run: {why}: a run begins from whole models")
            path = write_model(view, found.model, objects, into / "initial_model", whole=True)
        except StoreError as error:
            raise RunError(
                f"--from-run: the model of round {number} of run {other.run!r} cannot be read: {error}"
            ) from None
        return Beginning(path, BegunFrom(run=view.run, run_id=view.run_id, round=number, digest=found.model.digest))
