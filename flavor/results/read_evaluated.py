"""Reads evaluations that have a result: from Redis, from the signed records in a store, and from a result folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from flavor.bus.runs import RunStore
from flavor.counted import counted
from flavor.errors import DamagedRecord, FlavorError, InvalidInfo, InvalidRecord, RunError, RunNotFound
from flavor.ledger.archive import Archive
from flavor.ledger.chain import read_rounds
from flavor.ledger.closed_evaluation import recorded_evaluation
from flavor.ledger.evaluation_signers import compared
from flavor.ledger.evaluations import EvaluationRecord, Signed, merged_problem, newest_of, read_records
from flavor.ledger.trust import Trust
from flavor.plain_file import read_plain
from flavor.policy.near_names import there_are
from flavor.policy.selection import Select
from flavor.records.evaluation import AUTOMATIC, CENTRAL, EvaluationSummary, EvaluationView
from flavor.records.failed_evaluation import FailedEvaluation
from flavor.records.info import Info
from flavor.records.merging import sites_of
from flavor.records.not_finite import without_value
from flavor.records.objects import ObjectRef
from flavor.records.own_evaluations import shown_of
from flavor.records.sound_counts import left_out_of
from flavor.records.subject import Subject, SubjectKind
from flavor.results.chosen_evaluation import chosen_of, found_by, numbered_of, without_number
from flavor.results.evaluated import Evaluated, beside, evaluated_of, missing_of, null_in, numbers_of
from flavor.results.evaluation_shapes import BestShape, ReportsShape, RulesShape
from flavor.results.failed_evaluations import failed_in, failing_among, why_failed
from flavor.results.reports import Reports, reports_in
from flavor.results.rounds import scalars
from flavor.results.selected import Selected
from flavor.results.site_measures import SiteMeasures
from flavor.results.site_results import UNREADABLE, SiteResults, read_results
from flavor.results.table_columns import ruled_by
from flavor.results.unjudged import NEEDED, unjudged
from flavor.store.paths import evaluations_folder
from flavor.store.protocol import ObjectStore

FOLDER = "evaluations"
"""The folder of evaluations in a result folder."""
OF_SITES, REPORTS = "-sites.json", "-reports.json"
BEST = "best.json"
"""The best model by the run's `--select`, in that folder."""
RULES = "rules.json"
"""The metrics of the run's rules, in that folder."""
_MOST_MERGED_BYTES = 2**28


# -- from Redis


def summaries_after(runs: RunStore, first: int) -> list[EvaluationSummary | None]:
    """Return what Redis keeps of evaluations with a result from entry `first` on, None for damaged entries."""
    found: list[EvaluationSummary | None] = []
    for text in runs.evaluated(first):
        try:
            found.append(EvaluationSummary.from_json(text))
        except DamagedRecord:
            found.append(None)
    return found


def failed_after(runs: RunStore, first: int) -> list[FailedEvaluation | None]:
    """Return what Redis keeps of evaluations that have failed from entry `first` on, None for damaged entries."""
    found: list[FailedEvaluation | None] = []
    for text in runs.unjudged(first):
        try:
            found.append(FailedEvaluation.from_json(text))
        except DamagedRecord:
            found.append(None)
    return found


def summaries(runs: RunStore) -> list[EvaluationSummary]:
    """Return what Redis keeps of the evaluations with a result, oldest first, without entries that are damaged."""
    return [each for each in summaries_after(runs, 0) if each is not None]


def from_redis(
    runs: RunStore,
    round_: int | None = None,
    number: int | None = None,
    *,
    store: Callable[[], ObjectStore | None] = lambda: None,
) -> Evaluated:
    """Return the newest evaluation, or that of the model of `round_`, as `whole_of`.

    `number` chooses one among several, as `numbered_of`.
    """

    def why() -> str:
        return "; ".join(each.reason for each in unjudged(runs, runs.read(), round_))

    every = summaries(runs)
    if number is not None:
        return whole_of(runs, numbered_among(runs.run, every, round_, number), store)
    return whole_of(runs, chosen_among(runs.run, every, round_, why), store)


class Chosen(NamedTuple):
    """One evaluation of several."""

    summary: EvaluationSummary
    central: SiteMeasures | None
    """What is known of its model on the operator's own data."""


def chosen_among(
    run: str, every: Sequence[EvaluationSummary], round_: int | None = None, why: Callable[[], str] = lambda: ""
) -> Chosen:
    """Return the newest of these evaluations, or that of `round_`, as `chosen_of`.

    Raises `RunError` for none, with what is known of `why` that is.
    """
    chosen = chosen_of([numbers_of(each) for each in every], round_)
    if chosen is None:
        raise RunError(_lacking(run, round_, sorted({each.round for each in every if each.subject.counts}), why()))
    found = next(each for each in reversed(every) if (each.round, each.number) == (chosen.round, chosen.number))
    return Chosen(found, chosen.central)


def numbered_among(run: str, every: Sequence[EvaluationSummary], round_: int | None, number: int) -> Chosen:
    """Return the evaluation of this number, of any model, as `numbered_of`. Raises `RunError` where there is none."""
    by_name = {(each.round, each.number): each for each in every}
    found = by_name[numbered_of(run, list(by_name), round_, number)]
    own = by_name.get((found.round, CENTRAL))
    return Chosen(found, numbers_of(own).central if own is not None and found.subject.counts else None)


def whole_of(
    runs: RunStore, chosen: Chosen, store: Callable[[], ObjectStore | None], *, most: int | None = None
) -> Evaluated:
    """Return a chosen evaluation with what each site has measured: of an old one, from the run's `store`.

    With `most`, reads the metrics of no more than so many sites there. Raises `RunError` where both lack it, and
    `StoreError` for a store that is away.
    """
    summary, found = chosen.summary, None
    view = runs.read_evaluation(summary.round, summary.number)
    if view is not None:
        found = evaluated_of(runs.run, view, summary)
    elif (objects := store()) is not None and (view := recorded_evaluation(runs, objects, summary)) is not None:
        merged, results = results_in(objects, view, most=most)
        found = evaluated_of(runs.run, view, summary, merged=merged, results=results)
        found = replace(found, reporters=summary.reporters)
    if found is None:
        raise RunError(
            f"Redis no longer has the evaluation of the model of round {summary.round} of run {runs.run!r}, and its "
            "record cannot be read from the run's store"
        )
    return replace(found, central=chosen.central)


def _lacking(run: str, round_: int | None, rounds: list[int], why: str = "") -> str:
    if not rounds:
        return f"no model of run {run!r} has been judged: {why or NEEDED}"
    newest = ", ".join(map(str, rounds[-5:]))
    more = f"{counted(len(rounds), 'round')}, the newest of them {newest}" if len(rounds) > 5 else f"rounds {newest}"
    why = f"{why}; " if why else ""
    return f"the model of round {round_} of run {run!r} has not been judged: {why}there are evaluations of {more}"


def results_in(
    store: ObjectStore, view: EvaluationView, *, most: int | None = None
) -> tuple[dict[str, Any] | None, SiteResults]:
    """Return the merged information of a closed evaluation and that of each site, as far as they are in the store.

    With `most`, those of the first sites by name. Raises `StoreError` for a store that is away.
    """
    merged: dict[str, Any] | None = None
    with contextlib.suppress(*UNREADABLE):
        merged = read_merged(store, view.info) if view.info is not None else None
    some = sorted(view.accepted.items())[:most]
    return merged, read_results(store, ((site, each.result.info) for site, each in some if each.result is not None))


def read_merged(store: ObjectStore, ref: ObjectRef) -> dict[str, Any]:
    """Return the merged information of an evaluation. Raises `StoreError` or `InvalidInfo`."""
    try:
        found = json.loads(store.read(ref, most=_MOST_MERGED_BYTES))
        if not all(isinstance(found[part], dict) for part in ("metadata", "metrics")):
            raise ValueError("its metadata or its metrics are no JSON object")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, FlavorError):
            raise
        raise InvalidInfo(f"{ref.path}: no merged information: {str(error)[:200]}") from None
    return dict(found)


# -- from the store


class Stored(NamedTuple):
    """An evaluation as the store has it, checked against its signed record."""

    found: Evaluated
    record: EvaluationRecord
    reports: Reports
    best_round: int
    """The run's best model, as the newest record names it; 0 where none is."""
    notes: list[str]
    """Records that are not believed, and why, and what is wrong with those of rounds."""


def from_store(
    archive: Archive,
    round_: int | None = None,
    number: int | None = None,
    *,
    best: bool = False,
    trust: Trust | None = None,
    run_id: str = "",
) -> Stored:
    """Return the newest evaluation in the store, or that of the model of `round_`, checked against its signed record.

    `number` chooses as in `from_redis`. `best` takes that of the run's best model. A record counts where an aggregator
    has signed it whose key the rounds or `trust` name. Raises `RunError` where there is none, and `InvalidRecord` where
    its record, or what that names, is not as it was signed.
    """
    chain = read_rounds(archive, trust, run_id=run_id)
    signed = Signed.of(chain, trust or Trust())
    paths = archive.store.list(evaluations_folder(archive.run))
    read = [each for _, each in read_records(archive, paths, signed) if isinstance(each, EvaluationRecord)]
    every = compared(read, signed)
    known = newest_of(each for each in every if each.is_believed)
    best_round = next((each.manifest.best_round for each in reversed(known.values()) if each.manifest.best_round), 0)
    if best:
        if not best_round:
            raise RunError(
                f"no record of an evaluation of run {archive.run!r} names a best model: --select chooses one"
            )
        round_ = best_round
    counting = [each for each in known.values() if each.manifest.counts]
    counting = counting or [each for each in known.values() if each.manifest.judged == Subject(SubjectKind.UNKNOWN)]
    bad = [each for each in every if not each.is_believed]
    if number is not None:
        name = found_by(list(known), round_, number)
        chosen = [known[name]] if name is not None else []
        those = [each for each in bad if found_by([each.name], round_, number) is not None]
    else:
        chosen = [each for each in counting if round_ in (None, each.manifest.round)]
        by_sites = [each for each in chosen if each.manifest.central is None]
        chosen = (by_sites if round_ is None else shown_of(by_sites)) or chosen
        those = [each for each in bad if round_ in (None, each.manifest.round)]
    if not chosen:
        if those:
            raise InvalidRecord(f"{those[0].ref.path}: {those[0].why_not}")
        if chain.record is None and not chain.links:
            raise RunNotFound(f"there is no run {archive.run!r} in the store {archive.store.url}")
        if number is not None:
            raise RunError(without_number(archive.run, list(known), round_, number))
        raise RunError(_lacking(archive.run, round_, sorted({each.manifest.round for each in counting})))
    record = _checked(archive, chosen[-1])
    found, infos = _of_record(archive, record)
    own = known.get((found.round, CENTRAL))
    if own is not None and not found.is_central and found.subject.counts:
        found = beside(found, _of_record(archive, _checked(archive, own))[0])
    reports = reports_in(archive.store, infos, run=archive.run, round_=found.round, number=found.number)
    notes = [f"{each.ref.path}: {each.why_not}: it is left out" for each in bad]
    if chain.problems:
        notes.append(f"{chain.problems[0]}: `flavor verify {archive.run}` shows everything")
    return Stored(found, record, reports, best_round, notes)


def _checked(archive: Archive, record: EvaluationRecord) -> EvaluationRecord:
    """Return a believed record. Raises `InvalidRecord` where its merged information contradicts it."""
    if problem := merged_problem(archive, record.manifest):
        raise InvalidRecord(f"{record.ref.path}: {problem}")
    return record


def _of_record(archive: Archive, record: EvaluationRecord) -> tuple[Evaluated, dict[str, Info]]:
    """Read the objects of a record, whose bytes must be those that were signed. Raises `StoreError`, `InvalidInfo`.

    A site's result that cannot be read is told in `unread`.
    """
    manifest, store = record.manifest, archive.store
    merged = read_merged(store, ObjectRef(manifest.merged_path, manifest.merged_digest))
    metrics, judges = scalars(merged["metrics"]), sorted(manifest.judges, key=lambda judge: judge.client)
    infos, unread = read_results(store, ((each.client, each.info) for each in judges))
    found = Evaluated(
        run=manifest.run,
        round=manifest.round,
        number=manifest.evaluation,
        model=manifest.model_digest,
        opened_ms=manifest.opened_ms,
        closed_ms=manifest.closed_ms,
        expected=manifest.expected,
        sites={
            each.client: SiteMeasures.of_info(each.num_examples, infos[each.client])
            if each.client in infos
            else SiteMeasures(each.num_examples)
            for each in judges
        },
        missing=missing_of(manifest.missing, manifest.training or ()),
        metrics=metrics,
        null=null_in(merged),
        few=sites_of(merged)[0],
        merged_of=0 if manifest.central is None else 1,
        central=None if manifest.central is None else SiteMeasures(manifest.central, metrics, without_value(merged)),
        of=manifest.judged,
        left_out=left_out_of(merged),
        unread=unread,
    )
    return found, infos


# -- from a result folder


def from_folder(out: Path, round_: int | None = None, number: int | None = None) -> Evaluated:
    """Return the newest evaluation in a result folder, or that of the model of `round_`; `number` as in `from_redis`.

    Raises `RunError` where there is none, and `InvalidRecord` for a file that cannot be read.
    """
    found = sorted(in_folder(out), key=lambda each: (each.closed_ms, each.round, each.number))
    if number is not None:
        by_name = {(each.round, each.number): each for each in found}
        named = by_name[numbered_of(str(out), list(by_name), round_, number)]
        own = by_name.get((named.round, CENTRAL))
        return beside(named, own) if own is not None else named
    chosen = chosen_of(found, round_)
    if chosen is None:
        rounds = sorted({each.round for each in found})
        raise RunError(_lacking(str(out), round_, rounds, why_failed(out / FOLDER, round_)))
    return chosen


def failing_in_folder(out: Path) -> list[FailedEvaluation]:
    """Return what a result folder has of the newest evaluations that have failed, as `RunStore.failing`."""
    return failing_among(failed_in(out / FOLDER), in_folder(out))


def in_folder(out: Path) -> Iterator[Evaluated]:
    """Yield the evaluations of a result folder by their names. Raises `InvalidRecord` for a file that is damaged."""
    for path in sorted((out / FOLDER).glob(f"round-*{OF_SITES}")):
        with contextlib.suppress(FileNotFoundError):
            yield Evaluated.from_json(read_plain(path), str(path))


def reports_of(out: Path, found: Evaluated) -> dict[str, Any] | None:
    """Return what sites have reported beside their metrics, as `Reports.to_plain` has it; None where none has.

    Raises `InvalidRecord` for a file that is damaged.
    """
    with contextlib.suppress(FileNotFoundError):
        return ReportsShape.read(out / FOLDER / f"{found.name}{REPORTS}").model_dump()
    return None


def selected_in(out: Path) -> Selected | None:
    """Return the best model by the run's `--select`, as a result folder has it; None for none.

    Raises `InvalidRecord` for a file that is damaged.
    """
    with contextlib.suppress(FileNotFoundError):
        found = BestShape.read(out / FOLDER / BEST)
        return Selected(found.select, found.round, found.value, found.sites)
    return None


def ruled_in(out: Path, select: Select | None) -> frozenset[str]:
    """Return the metrics on which the rules of a result folder's run depend, by the names that sites use.

    A folder of an earlier release knows those of `--select` alone. Raises `InvalidRecord` for a file that is damaged.
    """
    with contextlib.suppress(FileNotFoundError):
        return frozenset(RulesShape.read(out / FOLDER / RULES).metrics)
    return ruled_by([select])


def best_in_folder(out: Path) -> int:
    """Return the round of the best model in a result folder. Raises `RunError` where no model is the best."""
    if (selected := selected_in(out)) is not None:
        return selected.round
    there = there_are("", (name for each in in_folder(out) for name in each.metrics))
    raise RunError(
        f"{out} has no best model: the run was begun without --select, or no evaluation has had its metric: {there}"
    )


def is_automatic(found: Evaluated) -> bool:
    """Whether the coordinator has opened this evaluation, of all sites that have an evaluator."""
    return found.number == AUTOMATIC
