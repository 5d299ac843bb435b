"""`flavor results`: show what sites have measured of a global model."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import named_store, opened_run, store_of_run
from flavor.cli.options import is_of_environment, redis_option, store_option, store_settings, store_url
from flavor.cli.output import print_line, print_table
from flavor.cli.program import one_line_errors
from flavor.cli.round_option import BEST, best_of, evaluation_option, round_option
from flavor.cli.trust_options import trust_option
from flavor.errors import RunError

if TYPE_CHECKING:
    from flavor.policy.selection import Select
    from flavor.records.failed_evaluation import FailedEvaluation
    from flavor.results.evaluated import Evaluated


@dataclass(frozen=True)
class _Shown:
    """An evaluation, and what is known beside it."""

    found: Evaluated
    select: Select | None = None
    ruled: Collection[str] = ()
    """The metrics of the run's rules, by the names that sites use."""
    best_round: int | None = None
    signed_by: str = ""
    """Key of the aggregator whose signature was checked; '' for what was not read from the store."""
    is_trusted: bool = False
    notes: tuple[str, ...] = ()
    failing: list[FailedEvaluation] | None = None
    """The newest evaluations that have no result; None for the store, which has no record of them."""
    reports: dict[str, Any] | None = None
    """What sites have reported beside their metrics; None where none has, or Redis alone was read."""


@click.command(
    cls=GroupedCommand,
    example="flavor results flavor-runs/mammo\nflavor results mammo --round best --redis-url redis://localhost\n"
    "flavor results flavor-runs/mammo --trust aggregator.key.pub",
)
@click.argument("run", metavar="RUN|FOLDER")
@round_option(
    "Number of the round whose global model was judged, or `last` for the newest evaluation, or `best` for the "
    "best model by the run's --select."
)
@evaluation_option(
    "Number of the evaluation, among several of the round's model: 0 for the run's own, from 1 on for those that "
    "`flavor evaluate` has asked for, `central` for the one on the operator's own data. Without --round, 0 and central "
    "name the newest, and the others one of a model that no round has made.  [default: the newest by the sites]"
)
@click.option(
    "--metric",
    "names",
    metavar="NAME",
    multiple=True,
    help="Show this metric. May be repeated.  [default: the first 6, those of the run's rules before others]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all metrics in place of the table.")
@redis_option
@store_option
@trust_option
@one_line_errors
def results(
    run: str,
    round_: int | None,
    evaluation: int | None,
    names: tuple[str, ...],
    as_json: bool,
    redis_url: str | None,
    store: str | None,
    trusted: tuple[str, ...],
) -> None:
    """Show what sites have measured of a global model.

    Prints a table of sites and metrics, of one evaluation (`flavor-fl -e`), with the metrics of all sites together:
    pooled over the examples of all sites, the plain mean, the mean weighted by examples, the lowest and the highest
    value, and the site whose value is worst. A metric whose name does not say which values are better has no worst
    site. docs/merged-metrics.md says what each number means.

    RUN is the name of a run on Redis. FOLDER is a result folder. With --store or --trust the run is read from its
    object store, and each number is checked against the signed record of the evaluation. The evaluation metrics are
    those of the global model that the round has made. Metrics that training scripts report are not shown here.
    """
    from flavor.results.evaluated_table import name_in, why_not_there

    shown = _read(run, round_, evaluation, redis_url, store, trusted)
    found = shown.found
    known = {name: name_in(found, name) for name in names}
    lacking = [name for name, there in known.items() if there is None]
    if as_json:
        click.echo(json.dumps(_described(shown), indent=2))
    else:
        _show(shown, [there or name for name, there in known.items()], is_newest=round_ is None and evaluation is None)
    for note in (*shown.notes, *_lacking(shown)):
        print_line(note, err=True)
    if shown.signed_by and not shown.is_trusted:
        print_line("not checked: whose key the record is signed with (--trust names those you know)", err=True)
    if lacking:
        raise RunError(f"--metric {lacking[0]}: {why_not_there(found, lacking[0])}")


def _read(
    run: str,
    round_: int | None,
    evaluation: int | None,
    redis_url: str | None,
    store: str | None,
    trusted: tuple[str, ...],
) -> _Shown:
    from flavor.policy.selection import Select
    from flavor.results.read_evaluated import (
        FOLDER,
        best_in_folder,
        failing_in_folder,
        from_folder,
        reports_of,
        ruled_in,
        selected_in,
    )

    out = Path(run)
    is_folder = (out / FOLDER).is_dir()
    if trusted or (store and not (is_folder and is_of_environment("store"))):
        return _from_store(run, round_, evaluation, store, trusted)
    if is_folder:
        number = best_in_folder(out) if round_ == BEST else round_
        selected = selected_in(out)
        select = Select.parse(selected.select) if selected is not None else None
        found = from_folder(out, number, evaluation)
        best = selected.round if selected is not None else None
        return _Shown(
            found, select, ruled_in(out, select), best, reports=reports_of(out, found), failing=failing_in_folder(out)
        )
    return _from_redis(run, round_, evaluation, redis_url)


def _from_redis(run: str, round_: int | None, evaluation: int | None, redis_url: str | None) -> _Shown:
    from flavor.config import RunConfig
    from flavor.evaluation_settings import select_of
    from flavor.policy.advice import some
    from flavor.records.evaluation import MOST_METRICS
    from flavor.results.read_evaluated import from_redis
    from flavor.results.table_columns import ruled_columns
    from flavor.results.whole_model import own_of_then
    from flavor.store.open import open_store

    with opened_run(run, redis_url) as found_run:
        view = found_run.runs.read()
        if round_ == BEST:
            round_ = best_of(found_run.runs, view)
        url = store_url(None, found_run.store) or store_of_run(found_run.run, view.config)
        found = from_redis(found_run.runs, round_, evaluation, store=lambda: open_store(url, settings=store_settings()))
        config = RunConfig.known(view.config)
        select = select_of(config)
        failing, notes = found_run.runs.failing(), own_of_then(config, found)
    if cut := [site for site, of in found.sites.items() if of.is_cut or of.are_words_cut]:
        has = "has" if len(cut) == 1 else "have"
        notes.append(f"{some(cut, 5)} {has} more metrics than the {MOST_METRICS} that Redis keeps: --store shows them")
    best = view.best.round if view.best else None
    return _Shown(found, select, ruled_columns(view.config), best, notes=tuple(notes), failing=failing)


def _from_store(
    run: str, round_: int | None, evaluation: int | None, store: str | None, trusted: tuple[str, ...]
) -> _Shown:
    from flavor.config import RunConfig
    from flavor.evaluation_settings import select_of
    from flavor.ledger.archive import Archive
    from flavor.ledger.trust import Trust
    from flavor.records.names import checked_name
    from flavor.results.read_evaluated import from_store
    from flavor.results.table_columns import ruled_columns
    from flavor.results.whole_model import own_of_then
    from flavor.store.open import open_store

    trust = Trust.read(trusted)
    name, url = named_store(run, store)
    archive = Archive(open_store(url, settings=store_settings()), checked_name(name, "run"))
    stored = from_store(archive, None if round_ == BEST else round_, evaluation, best=round_ == BEST, trust=trust)
    begun = archive.beginning()
    config = RunConfig.known(begun.config) if begun is not None else None
    select = select_of(config) if config is not None else None
    own = own_of_then(config, stored.found) if config is not None else []
    return _Shown(
        stored.found,
        select,
        ruled_columns(begun.config) if begun is not None else (),
        stored.best_round or None,
        stored.record.manifest.public_key,
        bool(trust.workers),
        notes=(*own, *stored.notes),
        reports=stored.reports.to_plain() if stored.reports else None,
    )


def _show(shown: _Shown, names: Sequence[str], *, is_newest: bool) -> None:
    from flavor.ledger.keys import fingerprint
    from flavor.results.evaluated_table import lines_of, table_of

    found = shown.found
    for line in lines_of(found, ruled=shown.ruled, names=names):
        print_line(line)
    for each in (shown.failing or ()) if is_newest else ():
        print_line(each.sentence)
    if shown.best_round is not None:
        select = f" by --select {shown.select}" if shown.select else ""
        which = "this one" if shown.best_round == found.round else "another one"
        print_line(f"the best judged model{select} is that of round {shown.best_round}, {which}")
    if shown.signed_by:
        print_line(f"checked against the record that is signed with key {fingerprint(shown.signed_by)}")
    heads, rows, further = table_of(found, select=shown.select, ruled=shown.ruled, names=names)
    if rows:
        print_table(heads, rows)
    if further:
        print_line(further)
    if shown.reports is not None and shown.reports["sites"]:
        print_line(f"{', '.join(shown.reports['sites'])} reported tables, plots or images: --json has them")


def _lacking(shown: _Shown) -> Iterator[str]:
    """Name the sites whose tables, plots and images cannot be read, and why."""
    missing = (shown.reports or {}).get("missing", {})  # an older result folder does not say it
    for site, why in missing.items():
        yield f"without the tables, plots and images of {site}, and merged without them: {why}"


def _described(shown: _Shown) -> dict[str, Any]:
    from flavor.results.evaluated_table import described

    return {
        **described(shown.found, select=shown.select, ruled=shown.ruled),
        "best_round": shown.best_round,
        "signed_by": shown.signed_by or None,
        "reports": shown.reports,
        "not_judged": None if shown.failing is None else [each.described() for each in shown.failing],
    }
