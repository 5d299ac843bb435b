"""Make, sign and stage the manifest of a round before the commit; put it in place after the commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from flavor.errors import FlavorError, StateLost
from flavor.ledger.archive import Archive
from flavor.ledger.manifest import Contributor, Manifest, Model
from flavor.ledger.witnesses import Witnesses
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.view.event import Notice
from flavor.view.round_events import RoundNote
from workers.stale import Stale

if TYPE_CHECKING:
    from workers.context import WorkerContext


def refuse_if_recorded(context: WorkerContext, run: str, round_: int) -> None:
    """Raise `StateLost` where a round that is open on Redis has its manifest in the store: Redis came back older.

    A manifest that another party made up is reported and stops nothing: the coordinator puts the true one in its place.
    """
    archive, runs = Archive(context.store, run), context.run(run)
    manifest = archive.manifest(round_)
    if manifest is None:
        return
    own = str(context.key.public)
    witnesses = Witnesses.of_run(runs, archive, runs.read().config, newest=round_ - 1, own=own)
    if witnesses.vouch_for(manifest):
        raise StateLost(
            f"round {round_} is closed in the object store, but not on Redis, which came back older: "
            "`flavor recover` rebuilds the run from the store"
        )
    told = f"round {round_}: {witnesses.against(manifest)}"
    runs.log("round.note", round_=round_, reason=told)
    context.observer.hear(RoundNote(told, round_, run=run, names_round=False))


def stage_manifest(
    context: WorkerContext,
    view: RunView,
    round_: RoundView,
    attempt: int,
    *,
    model: GlobalModel,
    chosen: tuple[str, ...] | None,
    now_ms: int,
    stale: Mapping[str, Stale] | None = None,
    steps: Mapping[str, float] | None = None,
) -> ObjectRef:
    """Put the signed manifest of this attempt beside its model.

    `chosen` are the clients that the rule kept, where it left others out. `steps` are the clients' local steps, where
    the rule has divided by them.
    """
    replaced = context.run(view.run).replaced()
    manifest = Manifest(
        run=view.run,
        run_id=view.run_id,
        round=round_.round,
        attempt=attempt,
        config=dict(view.config),  # as its coordinator wrote it, which may be of another version
        opened_ms=round_.opened_ms,
        closed_ms=now_ms,
        pauses=round_.pauses or None,
        expected=round_.expected,
        trained_from=view.global_model.model.digest if view.global_model else "",
        contributors=tuple(
            _contributor(round_, client, replaced, stale or {}, (steps or {}).get(client))
            for client in round_.contributors
        ),
        chosen=chosen,
        global_model=Model.of(model),
        previous=view.manifest.digest if view.manifest else "",
    )
    return Archive(context.store, view.run).stage(manifest.signed(context.key))


def _contributor(
    round_: RoundView,
    client: str,
    replaced: Mapping[str, tuple[str, ...]],
    stale: Mapping[str, Stale],
    local_steps: float | None,
) -> Contributor:
    update, keys = round_.inspected(client), replaced.get(client, ())
    if (older := stale.get(client)) is None:
        return Contributor.of(client, update, keys, local_steps=local_steps)
    stale_update = replace(update, base=older.base.model)
    return Contributor.of(client, stale_update, keys, task_round=older.task_round, local_steps=local_steps)


def publish_manifest(context: WorkerContext, run: str, round_: int, ref: ObjectRef) -> None:
    """Put the manifest of a committed round in place. After an error here the coordinator does it again."""
    try:
        Archive(context.store, run).publish(round_, ref)
    except (FlavorError, OSError) as error:
        line = f"round {round_}: its manifest could not be put in place: {error}"
        context.observer.hear(Notice(line, run=run))
