"""Evaluations that have a result, from Redis, or from the store once Redis has no more of them than their summaries."""

from __future__ import annotations

from collections.abc import Iterable

from flavor.bus.runs import RunStore
from flavor.counted import counted
from flavor.errors import InvalidRecord, ObjectMissing, ObjectWithheld, OtherProtocol
from flavor.ledger.archive import Archive
from flavor.ledger.evaluation import EvaluationManifest, manifest_ref, read_manifest
from flavor.records.evaluation import EvaluationSummary, EvaluationView, Result, ResultVerdict
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.states import EvaluationState
from flavor.results.site_measures import Kept, first_names, kept_of
from flavor.results.site_results import SiteResults
from flavor.store.protocol import ObjectStore
from flavor.store.trouble import require_mounted


def closed_evaluation(runs: RunStore, store: ObjectStore | None, summary: EvaluationSummary) -> EvaluationView | None:
    """Return an evaluation from Redis, or else as `recorded_evaluation`; None where neither has it."""
    view = runs.read_evaluation(summary.round, summary.number)
    if view is None:
        return recorded_evaluation(runs, store, summary)
    return view if view.closed_ms is not None else None


def recorded_evaluation(runs: RunStore, store: ObjectStore | None, summary: EvaluationSummary) -> EvaluationView | None:
    """Return an evaluation whose hash is gone from Redis, from the signed record that Redis still names.

    Its verdicts have no metrics, which are in the sites' information, and it has no `skipped`. None where Redis names
    no record, and where the store has none with this digest. Raises `StoreError` for a store that is away.
    """
    digest = runs.recorded_digest(summary.round, summary.number)
    if store is None or not digest:
        return None
    ref = manifest_ref(runs.run, summary.round, summary.number, digest)
    try:
        manifest = read_manifest(Archive(store, runs.run), ref)
    except ObjectMissing:
        require_mounted(store, runs.run)
        return None
    except (ObjectWithheld, InvalidRecord, OtherProtocol):
        return None
    return EvaluationView(
        round=summary.round,
        number=summary.number,
        state=EvaluationState.CLOSED,
        model=GlobalModel(ObjectRef(manifest.model_path, manifest.model_digest)),
        expected=manifest.expected,
        skipped=(),
        opened_ms=manifest.opened_ms,
        deadline_ms=manifest.closed_ms,
        closed_ms=summary.closed_ms,
        of=summary.of,
        info=ObjectRef(manifest.merged_path, manifest.merged_digest),
        manifest=ref,
        verdicts=verdicts_of(manifest, SiteResults({}, {})),
        training=manifest.training or (),
    )


def verdicts_of(
    manifest: EvaluationManifest, results: SiteResults, ruled: Iterable[str] = ()
) -> dict[str, ResultVerdict]:
    """Return the verdicts that Redis had of an evaluation, with the first metrics of each site's information.

    Where that cannot be read, the verdict says why. `ruled` are the metrics of the run's rules, which are kept first.
    """
    verdicts, infos = {}, results.infos
    first = first_names(infos.values(), ruled)
    for judge in manifest.judges:
        result = Result(judge.info, judge.num_examples, manifest.model_digest, judge.public_key, judge.signature)
        info = infos.get(judge.client)
        kept = kept_of(info, first) if info is not None else Kept({}, {}, is_cut=True, are_words_cut=True)
        said, why = counted(judge.num_examples, "example"), results.unread.get(judge.client, "")
        verdicts[judge.client] = ResultVerdict(True, said, result, *kept, unread=why)
    return verdicts | {client: ResultVerdict(False, reason) for client, reason in manifest.missing.items()}
