"""The evaluations of a run that is rebuilt on Redis: what Redis had of each, and the best model by `--select`."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flavor.config import RunConfig
from flavor.counted import counted
from flavor.errors import FlavorError
from flavor.evaluation_settings import rules_of, select_of
from flavor.ledger.archive import Archive
from flavor.ledger.chain import Chain
from flavor.ledger.closed_evaluation import verdicts_of
from flavor.ledger.evaluation_signers import compared
from flavor.ledger.evaluations import EvaluationRecord, Signed, newest_of, read_records
from flavor.ledger.trust import Trust
from flavor.policy.advice import some
from flavor.policy.evaluating import is_due
from flavor.policy.selection import value_of
from flavor.records.counts import WORST
from flavor.records.evaluation import AUTOMATIC, BestModel, EvaluationKind, EvaluationSummary
from flavor.records.info import Info
from flavor.records.lacking import reported_by_now
from flavor.records.model import GlobalModel
from flavor.records.not_finite import not_finite_of
from flavor.records.objects import ObjectRef
from flavor.records.own_evaluations import own_evaluations
from flavor.records.states import EvaluationState
from flavor.records.unread_parts import reported_unread, unread_parts, with_unread
from flavor.results.evaluated import OWN_DATA
from flavor.results.evaluation_summary import (
    central_comparison,
    central_lacking,
    evaluation_summary,
    first_ruled,
    ruled_names,
)
from flavor.results.judged_both import JudgedBoth
from flavor.results.read_evaluated import read_merged
from flavor.results.site_results import SiteResults, read_results

_MOST_NAMED = 10
"""Rounds that one line names."""


@dataclass(frozen=True)
class RebuiltEvaluation:
    """One evaluation as Redis has it."""

    round: int
    number: int
    summary: EvaluationSummary
    fields: dict[str, str]
    verdicts: dict[str, str]
    by_readable: EvaluationSummary
    """The summary by the sites whose results can be read: a rule by the worst site depends on single values."""
    reported: Mapping[str, tuple[str, ...]]
    """Which metrics of the run's rules sites have reported by now, for those of which that was not known before."""


@dataclass(frozen=True)
class RebuiltEvaluations:
    """Those of a run, in the order in which they were closed."""

    every: tuple[RebuiltEvaluation, ...] = ()
    best: BestModel | None = None
    """The best model by the run's `--select`, as the newest record names it."""
    reported: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Which metrics of the run's rules each site has reported."""


def rebuilt_evaluations(
    archive: Archive, chain: Chain, trust: Trust, tell: Callable[[str], None]
) -> RebuiltEvaluations:
    """Read the evaluations of the closed rounds. `tell` gets a line about each that is not believed or cannot be read.

    Raises nothing for those: a run is rebuilt without them. Where one site's result cannot be read, its evaluation is
    rebuilt with what was merged, which the record names. An evaluation without a result leaves no record, so that no
    failed one is rebuilt: `tell` gets a line about the rounds that may have had one.
    """
    config, read, signed = RunConfig.known(chain.config), list[EvaluationRecord](), Signed.of(chain, trust)
    for path, record in read_records(archive, chain.listing.paths, signed):
        if isinstance(record, str):
            tell(f"{path}: {record}; the run is rebuilt without it")
        elif record.problems or record.manifest.round <= chain.closed:
            read.append(record)
    believed = list[EvaluationRecord]()
    for record in compared(read, signed):
        if record.is_believed:
            believed.append(record)
        else:
            tell(f"{record.ref.path}: {record.why_not}; the run is rebuilt without it")
    models = {manifest.round: manifest.global_model.to_global("") for manifest in chain.manifests}
    found, best_round, of_best = list[RebuiltEvaluation](), 0, dict[str, Info | None]()
    reported, unread = dict[str, tuple[str, ...]](), _Unread()
    for record in newest_of(believed).values():
        if record.manifest.evaluation == AUTOMATIC:  # the others were revoked by then
            there = {*record.manifest.expected, *(record.manifest.away or ())}
            reported = {site: names for site, names in reported.items() if site in there}
        try:
            results = read_results(archive.store, ((each.client, each.info) for each in record.manifest.judges))
            before, infos = _best(config, best_round, found), results.infos
            each = _rebuilt(archive, record, models.get(record.manifest.round), results, config, reported, before)
        except FlavorError as error:
            tell(f"{record.ref.path}: {error}; the run is rebuilt without it")
            continue
        unread.note(each.round, results.unread)
        found.append(replace(each, summary=_compared(config, each, infos, before, of_best, record.manifest.expected)))
        if each.number == AUTOMATIC:
            reported |= each.reported
        is_own = EvaluationKind.of(each.number) is not EvaluationKind.ASKED
        if is_own and record.manifest.best_round not in (0, best_round):
            best_round = record.manifest.best_round
            judges = record.manifest.judges if best_round == each.round else ()
            of_best = {judge.client: infos.get(judge.client) for judge in judges}
    unread.tell(tell)
    if lacking := _without_record(config, {(each.manifest.round, each.manifest.evaluation) for each in read}, chain):
        tell(
            f"no record says that the {'model' if len(lacking) == 1 else 'models'} of {_rounds(lacking)} had a "
            "result: an evaluation without one leaves no record, and is not rebuilt"
        )
    best = _best(config, best_round, found)
    if best_round and best is None:
        tell(
            f"the run's best model is that of round {best_round}, whose evaluation cannot be read: none is the best now"
        )
    return RebuiltEvaluations(tuple(found), best, reported)


def _without_record(config: RunConfig, recorded: Collection[tuple[int, int]], chain: Chain) -> list[int]:
    """Return the rounds whose models were to be judged by the sites, as later or earlier ones were, without a record.

    The newest round's model may not have been judged yet.
    """
    if not any(number == AUTOMATIC for _, number in recorded):
        return []
    due = (round_ for round_ in range(1, chain.closed) if is_due(config, round_, ends=False))
    return [round_ for round_ in due if (round_, AUTOMATIC) not in recorded]


def _rounds(rounds: list[int]) -> str:
    more = f"{counted(len(rounds), 'round')}, the newest of them " if len(rounds) > _MOST_NAMED else ""
    shown = some([str(each) for each in rounds[-_MOST_NAMED:]], _MOST_NAMED)
    return f"{more}{shown}" if more else f"round{'' if len(rounds) == 1 else 's'} {shown}"


class _Unread:
    """The results of sites that cannot be read."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[list[int], str]] = {}  # by site: rounds, and the first reason

    def note(self, round_: int, unread: Mapping[str, str]) -> None:
        """Note those of one evaluation."""
        for site, why in unread.items():
            self._found.setdefault(site, ([], why))[0].append(round_)

    def tell(self, tell: Callable[[str], None]) -> None:
        """Tell of each site once."""
        for site, (rounds, why) in sorted(self._found.items()):
            models = "model" if len(rounds) == 1 else "models"
            tell(
                f"what {site} has measured of the {models} of {_rounds(rounds)} cannot be read: {why}; the run is "
                "rebuilt with what was merged, and without that site's values"
            )


def _compared(
    config: RunConfig,
    each: RebuiltEvaluation,
    infos: dict[str, Info],
    before: BestModel | None,
    of_best: Mapping[str, Info | None],
    asked: Collection[str],
) -> EvaluationSummary:
    """Return the summary with what the worker has compared: by it, `--stop-after-no-gain` decides as it has before."""
    select, summary = rules_of(config, central=False).select, each.summary
    if select is None or before is None or each.number != AUTOMATIC or not of_best:
        return summary
    found = value_of(select.name, summary, is_larger=select.is_larger)
    judged_both = JudgedBoth(config, select, infos, asked=asked)
    made = judged_both.compare(before, found, judged=of_best, result_of=of_best.get)
    return replace(summary, best_before=before.round, comparison=made)


def _rebuilt(
    archive: Archive,
    record: EvaluationRecord,
    model: GlobalModel | None,
    results: SiteResults,
    config: RunConfig,
    reported: Mapping[str, tuple[str, ...]],
    best: BestModel | None,
) -> RebuiltEvaluation:
    manifest, infos = record.manifest, results.infos
    merged_ref = ObjectRef(manifest.merged_path, manifest.merged_digest)
    merged, metrics = read_merged(archive.store, merged_ref), {site: info["metrics"] for site, info in infos.items()}

    def summary_of(sites: Mapping[str, Mapping[str, Any]]) -> EvaluationSummary:
        made = evaluation_summary(
            manifest.round,
            manifest.evaluation,
            opened_ms=manifest.opened_ms,
            expected=len(manifest.expected),
            missing=set(manifest.expected) - {judge.client for judge in manifest.judges},
            examples=sum(judge.num_examples for judge in manifest.judges),
            merged=merged,
            sites=sites,
            config=config,
            before=reported if manifest.evaluation == AUTOMATIC else {},
            away=manifest.away or (),
            odd={site: not_finite_of(info) for site, info in infos.items()},
        )
        return replace(made, of=manifest.judged)

    by_readable = summary = summary_of(metrics)
    ruled = ruled_names(config, central=False)
    new = reported_by_now(ruled, metrics, reported)
    if results.unread:  # what was merged is of all sites; the lowest and the highest value are not known
        parts = unread_parts(ruled, metrics, results.unread, merged)
        of_all = summary_of({each.client: metrics.get(each.client, {}) for each in manifest.judges})
        summary = replace(of_all, spread={}, lacking=with_unread(by_readable.lacking, parts))
        new |= reported_unread(parts, reported)
    if manifest.central is not None:
        lacking = central_lacking(config, merged)
        summary = replace(summary, sites=1, expected=1, examples=manifest.central, reporters={}, lacking=lacking)
        if best is not None and (select := rules_of(config, central=True).select) is not None:
            value = value_of(select.name, summary, is_larger=select.is_larger)
            made = central_comparison(select, best, value, merged)
            summary = replace(summary, best_before=best.round, comparison=made)
    by = OWN_DATA if manifest.central is not None else counted(len(manifest.judges), "result")
    model = model or GlobalModel(ObjectRef(manifest.model_path, manifest.model_digest))
    fields = {
        "state": EvaluationState.CLOSED.value,
        "expected": json.dumps(list(manifest.expected)),
        "skipped": "[]",
        "attempt": "1",
        "opened_ms": str(manifest.opened_ms),
        "deadline_ms": str(manifest.closed_ms),
        "closed_ms": str(manifest.closed_ms),
        "reason": f"{by}, {counted(summary.examples, 'example')}",
        **model.to_hash(),
        **merged_ref.to_hash("merged_"),
        **record.ref.to_hash("manifest_"),
        **({"training": json.dumps(list(manifest.training))} if manifest.training else {}),
        **({"subject": json.dumps(manifest.judged.to_plain())} if manifest.judged is not None else {}),
    }
    written = {
        client: judged.to_json() for client, judged in verdicts_of(manifest, results, first_ruled(config)).items()
    }
    return RebuiltEvaluation(manifest.round, manifest.evaluation, summary, fields, written, by_readable, new)


def _best(config: RunConfig, best_round: int, found: list[RebuiltEvaluation]) -> BestModel | None:
    """Return the best model with the value by which the run has chosen it."""
    select = select_of(config)
    if select is None or not best_round:
        return None
    kind = EvaluationKind.CENTRAL if rules_of(config, central=True).select is not None else EvaluationKind.SITES
    for each in reversed(own_evaluations(found, kind)):
        if each.round != best_round:
            continue
        known = each.by_readable if select.name.startswith(WORST) else each.summary
        if value := value_of(select.name, known, is_larger=select.is_larger):
            return BestModel(best_round, *value)
    return None
