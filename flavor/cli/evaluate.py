"""`flavor evaluate`: have sites judge a model now."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import opened_run, store_of_run
from flavor.cli.options import redis_option, store_option, store_settings, store_url
from flavor.cli.output import print_line, print_table, teller
from flavor.cli.program import one_line_errors, raise_on_sigterm
from flavor.cli.round_option import chosen_round, round_option, why_pruned
from flavor.errors import InvalidSetting, RunError, StoreError

if TYPE_CHECKING:
    from flavor.bus.runs import RunStore
    from flavor.cli.cross import Crossed
    from flavor.cli.judging_sites import JudgingSites
    from flavor.config import RunConfig
    from flavor.coordinator.asked_evaluation import Asked
    from flavor.records.model import GlobalModel
    from flavor.records.run import RunView
    from flavor.results.evaluated import Evaluated
    from flavor.store.protocol import ObjectStore


@click.command(
    cls=GroupedCommand,
    example="flavor evaluate mammo --redis-url redis://localhost\n"
    "flavor evaluate mammo --round best --clients site-1 \\\n  --redis-url redis://localhost",
)
@click.argument("run", metavar="RUN")
@round_option(
    "Number of the round whose global model is judged, or `last` for the newest closed round, or `best` for the best "
    "by the run's --select."
)
@click.option(
    "--model",
    "model_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Checkpoint that is judged in place of a global model of the run, in any checkpoint format. Sites that trust "
    "certain aggregators only (flavor-fl --trust) judge it if their --trust names the digest, which is printed first.",
)
@click.option(
    "--clients", metavar="NAME,...", help="Sites that judge the model.  [default: all that have an evaluator]"
)
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds to wait for the sites.  [default: the run's --evaluation-timeout-s]",
)
@click.option(
    "--cross",
    "is_cross",
    is_flag=True,
    help="Have the sites that allow it (flavor-fl --allow-cross) judge each other's updates of the round as well, and "
    "print a matrix of sites and models.",
)
@click.option("--metric", metavar="NAME", help="Metric of the matrix of --cross.  [default: the first]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all metrics in place of the table.")
@redis_option
@store_option
@one_line_errors
def evaluate(
    run: str,
    round_: int | None,
    model_path: Path | None,
    clients: str | None,
    timeout_s: float | None,
    is_cross: bool,
    metric: str | None,
    as_json: bool,
    redis_url: str | None,
    store: str | None,
) -> None:
    """Have sites judge a model now.

    Waits for the sites' results, has an aggregator merge them, and prints a table of sites and metrics. `flavor
    results` shows it again: the last line says by which command. The run may go on: a site judges the model before its
    next round. After the end of a run those sites judge that are started with `flavor-fv`; of a run in a result folder
    none can. Ctrl-C gives the evaluation up.
    """
    from dataclasses import replace

    from flavor.cli.judging_sites import judging_sites
    from flavor.config import RunConfig
    from flavor.results.table_columns import ruled_columns
    from flavor.store.opening import opened_once_usable

    context = click.get_current_context()
    is_given = context.get_parameter_source("round_") not in (None, click.core.ParameterSource.DEFAULT)
    if model_path is not None and is_given:
        raise InvalidSetting("--model and --round exclude each other: both name the model")
    if is_cross and (model_path is not None or clients is not None):
        raise InvalidSetting("--cross has sites judge their own models: leave out --model and --clients")
    if metric is not None and not is_cross:
        raise InvalidSetting("--metric is for --cross: `flavor results --metric` chooses those of the table")
    raise_on_sigterm()
    tell = teller("flavor: ") if not as_json else (lambda line: print_line(line, err=True))
    with opened_run(run, redis_url) as found_run, contextlib.ExitStack() as stack:
        runs = found_run.runs
        view = runs.read_own()
        config = RunConfig.of_run(found_run.run, view.config)
        url = store_url(store, found_run.store) or store_of_run(found_run.run, view.config)
        objects = opened_once_usable(url, settings=store_settings(), tell=tell)
        sites = stack.enter_context(judging_sites(found_run, view, config, objects, tell, outside=model_path))
        names = tuple(name.strip() for name in (clients or "").split(",") if name.strip())
        asked = _asked(runs, view, config, objects, round_, model_path)
        if model_path is not None:
            digest = f"sha256:{asked.model.model.digest}"
            tell(
                f"the model is {digest}: a site with --trust judges it if it was started with --trust {digest} as well"
            )
        asked = replace(asked, clients=names, timeout_s=timeout_s or config.evaluation_timeout_s)
        if is_cross:
            _show_cross(_crossed(runs, view, config, objects, asked, sites, tell), metric, as_json)
        else:
            _show(run, sites.judge(asked), as_json, ruled_columns(view.config))


def _asked(
    runs: RunStore,
    view: RunView,
    config: RunConfig,
    objects: ObjectStore,
    round_: int | None,
    model_path: Path | None,
) -> Asked:
    """Find the model that is to be judged, or put it into the store."""
    from dataclasses import replace

    from flavor.coordinator.asked_evaluation import Asked
    from flavor.coordinator.initial_model import store_for_sites
    from flavor.ledger.rounds import closed_round
    from flavor.records.model import GlobalModel
    from flavor.records.subject import Subject

    if model_path is not None:
        model = store_for_sites(objects, view, model_path, config.kind, what="--model")
        if differs := _difference(objects, view, config, model):
            print_line(f"Warning: --model {model_path} is not like the run's model: {differs}", err=True)
        format_ = view.global_model.format if view.global_model is not None else ""
        return Asked(Subject.of_round(0), replace(model, format=format_ or model.format))
    closed, _ = runs.closed(view)
    number = chosen_round(runs, view, closed, round_)
    try:
        found = closed_round(runs, objects, number, newest=view.round) if number else None
    except StoreError as error:
        raise RunError(f"the model of round {number} of run {runs.run!r} cannot be read: {error}") from None
    if found is None or found.model is None:
        have = f"rounds 1 to {closed} are closed" if closed else "no round is closed yet"
        raise RunError(f"run {runs.run!r} has no model of round {number or 1}: {have}")
    if not objects.exists(found.model.path):
        raise RunError(why_pruned(runs.run, number))
    format_ = view.global_model.format if view.global_model is not None else ""
    return Asked(Subject.of_round(number), GlobalModel(found.model, found.info, format=format_))


def _difference(objects: ObjectStore, view: RunView, config: RunConfig, model: GlobalModel) -> str:
    """Return in which names, shapes and types a model differs from the run's newest; '' where that is not known."""
    from flavor.errors import CheckpointError

    if view.global_model is None or not config.kind.is_inspected:
        return ""
    with contextlib.suppress(StoreError, CheckpointError):
        newest = objects.open(view.global_model.model)
        return config.kind.compare(objects.open(model.model), newest, "the run's model")
    return ""


def _crossed(
    runs: RunStore,
    view: RunView,
    config: RunConfig,
    objects: ObjectStore,
    asked: Asked,
    sites: JudgingSites,
    tell: Callable[[str], None],
) -> Crossed:
    from flavor.cli.cross import cross
    from flavor.ledger.rounds import closed_round

    round_ = closed_round(runs, objects, asked.round, newest=view.round)
    if round_ is None:
        raise RunError(f"run {runs.run!r}: round {asked.round} is gone")
    return cross(runs, view, config, objects, round_, asked, sites, tell)


def _show(run: str, found: Evaluated, as_json: bool, ruled: Collection[str]) -> None:
    from flavor.results.chosen_evaluation import naming
    from flavor.results.evaluated_table import described, lines_of, table_of

    if as_json:
        click.echo(json.dumps(described(found), indent=2))
        return
    for line in lines_of(found, ruled=ruled):
        print_line(line)
    heads, rows, further = table_of(found, ruled=ruled)
    print_table(heads, rows)
    if further:
        print_line(further)
    print_line(f"`flavor results {shlex.quote(run)} {naming(found.round, found.number)}` shows it again")


def _show_cross(crossed: Crossed, metric: str | None, as_json: bool) -> None:
    from flavor.results.evaluated_table import described

    if as_json:
        click.echo(json.dumps(crossed.described(described), indent=2))
        return
    name, heads, rows = crossed.table(metric)
    print_line(f"{name or 'no metric'} of each model of round {crossed.round}, as each site measures it")
    print_table(heads, rows)
    for site, reason in crossed.missing.items():
        print_line(f"without the model of {site}: {reason}")
