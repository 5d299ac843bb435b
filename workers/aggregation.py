"""Make one attempt to aggregate a round: claim it, compute, store the result and its manifest, commit."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rq.timeouts import JobTimeoutException

from flavor.bus.claim import Attempt, Claim
from flavor.bus.runs import RunStore
from flavor.checkpoints import TensorFile
from flavor.checkpoints.kind import CheckpointKind
from flavor.config import RunConfig
from flavor.counted import counted
from flavor.errors import (
    AggregatorFailed,
    FlavorError,
    IllegalMove,
    LeaseLost,
    NoModelPossible,
    StoreError,
    StoreUnavailable,
    UnreadableModel,
    UpdatesRefused,
)
from flavor.failpoints import reach
from flavor.policy.advice import PUT_BACK
from flavor.policy.told_tasks import of_earlier_tasks
from flavor.records.merging import merge_infos, summed
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.round import RoundView, in_model
from flavor.records.run import RunView
from flavor.records.summary import RoundSummary
from flavor.results.summaries import known_metrics, summary_of
from flavor.resume import is_of_fedtrain, not_by_serve
from flavor.store.digests import sha256_file
from flavor.store.paths import global_prefix, named
from flavor.store.trouble import StoreHealth
from flavor.view.event import Notice
from flavor.view.round_events import AttemptFailed, AttemptGivenBack, RoundClosed, RoundNote
from workers.combiner import Combined, Work
from workers.context import WorkerContext
from workers.fault import GivenBack, any_readable, own_fault, require_same_maker
from workers.infos import accepted_infos, read_client_info
from workers.local_steps import steps_of
from workers.manifests import publish_manifest, refuse_if_recorded, stage_manifest
from workers.notes import of_counts, of_parts, of_reading, of_repetition
from workers.once import untold
from workers.reading import CHANGED, ChangedWhileRead, NotAsAccepted, Reading, reading
from workers.stale import stale_of, without_base
from workers.unreadable import unreadable
from workers.updates import open_update, update_file

_LOOKS = 3
"""Times that one attempt reads the updates of a round, where one of them changes during the reading."""


def aggregate_round(context: WorkerContext, run: str, round_: int, attempt_number: int) -> bool:
    """Run one attempt. A stale or doubled job changes nothing; the coordinator judges a failure that is reported here.

    Returns whether this worker aggregated the round. Any other outcome shows nothing about what the worker can do.
    """
    runs = context.run(run)
    view = runs.read_own()
    config = RunConfig.of_run(run, view.config, by=view.release)
    read_closed = functools.cache(runs.read_round)  # of rounds before this one, which change no more
    if config.aggregator is None and round_ > 1:
        require_same_maker(runs, read_closed(round_ - 1), round_, attempt_number, context.combiner.made_by)
    if context.residents is not None and context.hand_over is not None:
        home = context.residents.elsewhere(run, view.rounds, config.aggregation_lease_s)
        if home is not None:
            context.hand_over(home, run, round_, attempt_number, config.aggregation_timeout_s)
            return False
    context.require_record(view)
    attempt = Attempt.of(runs, round_, attempt_number, config.aggregation_lease_s, worker=context.name)
    committed = False
    with suppress(IllegalMove, LeaseLost):  # another attempt is current, or another worker has this one
        claim = Claim(attempt)
        reach("worker.claimed")
        with claim:
            try:
                refuse_if_recorded(context, run, round_)
                made = _aggregated(context, view, config, attempt, read_closed)
                StoreHealth(context.store, run, view.run_id).require(whose=True)  # another share may lie there now
                runs.commit_round(
                    round_,
                    attempt=attempt_number,
                    token=attempt.token,
                    model=made.model,
                    reason=made.reason,
                    manifest=made.manifest,
                    chosen=made.chosen or (),
                    notes=made.notes,
                    told=made.told,
                    made_by=context.combiner.made_by,
                    summary=made.summary,
                )
                reach("worker.committed")
            except (IllegalMove, LeaseLost):
                raise
            except Exception as error:
                if (fault := _own_fault(context, runs, view, round_, error)) is not None:
                    given_back = GivenBack.of(fault)
                    runs.give_back_round(round_, attempt=attempt_number, token=attempt.token, reason=str(given_back))
                    context.observer.hear(AttemptGivenBack(str(given_back), round_, run=run, is_routine=True))
                    raise given_back from error
                if not _reported(context, runs, config, attempt, error, view.global_model):
                    raise
            else:
                committed = True
                publish_manifest(context, run, round_, made.manifest)
                for note in made.notes:
                    context.observer.hear(RoundNote(note, round_, run=run))
    if committed:
        context.observer.hear(RoundClosed(made.reason, round_, run=run))
    return committed


def _own_fault(
    context: WorkerContext, runs: RunStore, view: RunView, round_: int, error: Exception
) -> FlavorError | None:
    """Return the fault of this worker or its store; None where an object, the rule or the time limit is to blame.

    A store that raises an error while every contributor's object can be read is at fault: it does not take the result.
    """
    if fault := own_fault(context.store, view, error):
        return fault
    if not isinstance(error, StoreUnavailable):
        return None
    found = runs.read_round(round_)
    if found is None:
        return None
    readable = [any_readable(context.store, [found.inspected(client).object.path]) for client in found.contributors]
    if all(readable) if error.passing else not any(readable):
        return error
    return None


def _is_of_an_object(error: Exception) -> bool:
    """Return whether an object may be to blame: the error is one of the store's that does not pass by itself."""
    if isinstance(error, StoreUnavailable):
        return not error.passing
    return isinstance(error, StoreError | OSError)


def _reported(
    context: WorkerContext,
    runs: RunStore,
    config: RunConfig,
    attempt: Attempt,
    error: Exception,
    newest: GlobalModel | None,
) -> bool:
    """Report that the attempt failed, for the coordinator to judge; returns whether this project explains the error.

    `newest` is the global model that the round began from.
    """
    round_ = attempt.round
    cause, of_object = error, _is_of_an_object(error)
    lost = _without_base(context, runs, config, round_) if of_object else {}
    if lost:
        error = UpdatesRefused(lost)
    elif newest is not None and of_object and (how := unreadable(context.store, newest)):
        error = UnreadableModel(f"the global model {newest.model.path} {how}: {PUT_BACK}")
    reason = str(error) if isinstance(error, FlavorError) else f"{type(error).__name__}: {error}"
    context.observer.hear(AttemptFailed(reason, round_, attempt=attempt.number, run=runs.run))
    spoiled = _spoiled(context, runs, round_, cause, config.kind) if of_object and not lost else []
    runs.fail_attempt(
        round_,
        attempt=attempt.number,
        token=attempt.token,
        reason=reason,
        spoiled=spoiled,
        unfit=error.refused if isinstance(error, UpdatesRefused) and not lost else {},
        blameless=lost,
        passing=isinstance(error, StoreUnavailable) and error.passing,
        is_hopeless=isinstance(error, NoModelPossible),
    )
    return bool(spoiled) or isinstance(error, FlavorError)


def _without_base(context: WorkerContext, runs: RunStore, config: RunConfig, round_: int) -> dict[str, str]:
    """Return the contributors whose update cannot be used because its base cannot be read, each with the reason.

    Empty where their tasks are gone from Redis: then this attempt is over.
    """
    view = runs.read_round(round_)
    try:
        return {} if view is None else without_base(context.store, stale_of(runs, view, config))
    except IllegalMove:
        return {}


def _spoiled(context: WorkerContext, runs: RunStore, round_: int, error: Exception, kind: CheckpointKind) -> list[str]:
    """Return the contributors whose objects are no longer what was inspected: changed, removed or made unreadable.

    An object that was another one when it was read counts as changed, even if it is right now. If no contributor's
    object can be read, then the store or this worker is at fault: the result then names only the objects that surely
    changed.
    """
    view = runs.read_round(round_)
    if view is None:
        return []
    changed, unreadable = set(), set()
    known = frozenset(error.paths if isinstance(error, NotAsAccepted) else ())
    for client in view.contributors:
        update = view.inspected(client)
        if not known.isdisjoint(update.paths):
            changed.add(client)
            continue
        try:
            if not kind.has_tensors:
                update_file(context.store, update)
            else:
                open_update(Reading(context.store), update)
            read_client_info(context.store, update.info)
        except CHANGED:
            changed.add(client)
        except (StoreError, OSError) as problem:
            if _is_of_an_object(problem):
                unreadable.add(client)
    if len(changed) + len(unreadable) == len(view.contributors):
        unreadable.clear()
    return [client for client in view.contributors if client in changed | unreadable]


def _combined(context: WorkerContext, work: Work, staged: Path) -> Combined:
    """Combine the objects as they were accepted, and write the result to `staged`.

    A site that writes to its object during the reading can make the worker read anything, although the object is right
    before and after. An edge that removes a link to the object changes nothing. So the worker reads the objects again,
    a few times. After that, or when the time is over, it raises `ChangedWhileRead`.
    """
    for looks_left in reversed(range(_LOOKS)):
        try:
            with reading(context.store) as opened:
                return context.combiner.combine(replace(work, opened=opened), staged)
        except ChangedWhileRead as error:
            if not looks_left or isinstance(error.__cause__, JobTimeoutException):
                raise
            context.observer.hear(Notice(f"round {work.round}: {error}: the worker reads it again", run=work.run))
            staged.unlink(missing_ok=True)
    raise AssertionError


@dataclass(frozen=True)
class _Made:
    """What an attempt has stored, ready to be committed."""

    model: GlobalModel
    manifest: ObjectRef
    reason: str
    chosen: tuple[str, ...] | None
    notes: tuple[str, ...]
    told: tuple[str, ...]
    """The causes of notes that are told once in the run, of this round and of those before."""
    summary: RoundSummary


def _aggregated(
    context: WorkerContext,
    view: RunView,
    config: RunConfig,
    attempt: Attempt,
    read_closed: Callable[[int], RoundView | None],
) -> _Made:
    if is_of_fedtrain(view):  # its outer step is nothing that a worker knows
        raise AggregatorFailed(not_by_serve(view))
    round_view = attempt.runs.read_round(attempt.round)
    if round_view is None:
        raise IllegalMove(f"run {view.run!r}: round {attempt.round} is gone")
    verdicts = {client: round_view.verdicts[client] for client in round_view.contributors}
    updates = {client: verdict.inspected for client, verdict in verdicts.items()}
    infos = dict(zip(updates, accepted_infos(context.store, updates.values()), strict=True))
    stale = stale_of(attempt.runs, round_view, config)
    prefix = global_prefix(view.run, attempt.round)
    work = Work(
        run=view.run,
        round=attempt.round,
        config=config,
        store=context.store,
        prefix=prefix,
        old=view.global_model,
        updates=updates,
        constants={client: verdict.constants for client, verdict in verdicts.items() if verdict.constants},
        infos=infos,
        info=merge_infos(list(infos), list(infos.values())),
        opened=Reading(context.store),
        stale=stale,
    )
    with context.store.stage() as staged:
        combined = _combined(context, work, staged)
        reach("worker.combined")
        tensors = len(TensorFile.open(staged)) if config.parts else None
        path = named(prefix, "model", combined.digest, config.kind.object_extension)
        ref = ObjectRef(path, combined.digest, combined.size_bytes)
        context.store.put(ref, staged)
    with context.store.stage() as staged:
        public = combined.info if config.share_names else summed(combined.info)
        staged.write_text(json.dumps(public, allow_nan=False), encoding="utf-8")
        digest, _ = sha256_file(staged)
        info = ObjectRef(named(prefix, "info", digest, ".json"), digest)
        context.store.put(info, staged)
    reach("worker.stored")
    examples = sum(update.num_examples for update in updates.values())
    sealed = ref.sealed(context.store.seal(ref.path))
    model = GlobalModel(sealed, info, combined.state, work.format, tensors)
    now_ms, newest = attempt.runs.now_and_newest_summary()
    manifest = stage_manifest(
        context,
        view,
        round_view,
        attempt.number,
        model=model,
        chosen=combined.chosen,
        now_ms=now_ms,
        stale=stale,
        steps=steps_of(config.aggregator, infos),
    )
    told = (
        *of_parts(work, model),
        *of_reading(work),
        *of_repetition(work, read_closed),
        *of_counts(work.info, work.infos),
    )
    counts = f"{counted(len(verdicts), 'update')}, {counted(examples, 'example')}"
    reason = f"{counts}, a global model of {combined.size_bytes} bytes{in_model(combined.chosen)}"
    reason += of_earlier_tasks(round_view, round_view.contributors)
    sites = {client: info["metrics"] for client, info in infos.items()}
    known = known_metrics(newest)
    summary = summary_of(round_view, attempt=attempt.number, info=combined.info, sites=sites, known=known)
    before = read_closed(attempt.round - 1) if attempt.round > 1 else None
    notes, causes = untold((*told, *combined.notes), before.told if before is not None else ())
    return _Made(model, manifest, reason, combined.chosen, notes, causes, summary)
