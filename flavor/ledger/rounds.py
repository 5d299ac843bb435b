"""Read closed rounds: from Redis, which keeps the newest, or from the manifests in the store, which keeps all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from flavor.bus.runs import RunStore
from flavor.counted import counted
from flavor.errors import DamagedRecord, StoreError
from flavor.ledger.archive import Archive
from flavor.ledger.canonical import sha256
from flavor.ledger.manifest import Manifest
from flavor.records.objects import ObjectRef
from flavor.records.round import RoundView, in_model
from flavor.records.states import RoundState
from flavor.records.summary import RoundSummary
from flavor.records.verdict import Verdict
from flavor.store.paths import manifest_path
from flavor.store.protocol import ObjectStore


def closed_rounds(runs: RunStore, store: ObjectStore | None, *, after: int = 0) -> Iterator[RoundView]:
    """Yield the closed rounds of a run from round `after` + 1 on, oldest first.

    Raises `RunNotFound`, and `StoreError` for a round that Redis no longer has, without a `store` or its manifest.
    """
    newest = runs.read().round
    for number in range(after + 1, newest + 1):
        if (view := closed_round(runs, store, number, newest=newest)) is not None:
            yield view


def closed_round(runs: RunStore, store: ObjectStore | None, number: int, *, newest: int) -> RoundView | None:
    """Return a round of a run that is in round `newest`; None for a round that is not closed. Raises `StoreError`."""
    view = runs.read_round(number)
    if view is None and 0 < number < newest:
        return _recorded(runs, store, number)
    if view is None or view.state is not RoundState.CLOSED:
        return None
    if view.verdicts.keys() >= set(view.contributors):
        return view
    return replace(_recorded(runs, store, number), closed_ms=view.closed_ms)


def _recorded(runs: RunStore, store: ObjectStore | None, round_: int) -> RoundView:
    """Return a round from its manifest, closed when Redis closed it, as far as Redis still knows.

    The manifest was signed before that, and has an earlier time.
    """
    run = runs.run
    data = Archive(store, run).data(round_) if store is not None else None
    if data is None:
        where = "name the --store of the run" if store is None else f"and its manifest from the store {store.url}"
        raise StoreError(f"round {round_} of run {run!r} is gone from Redis: {where}")
    manifest = Manifest.parse(data, manifest_path(run, round_))
    ref = ObjectRef(manifest_path(run, round_), sha256(data))
    view = RoundView.from_hash(round_, round_fields(manifest, ref), round_verdicts(manifest))
    closed_ms = _closed_ms(runs, round_)
    return replace(view, closed_ms=closed_ms) if closed_ms >= view.opened_ms else view


def _closed_ms(runs: RunStore, round_: int) -> int:
    """Return when Redis closed a round, from what it keeps for the whole run; 0 where it does not know."""
    for text in runs.summaries_around(round_):
        with contextlib.suppress(DamagedRecord):
            if (summary := RoundSummary.from_json(text)).round == round_:
                return summary.closed_ms
    return 0


def round_fields(manifest: Manifest, ref: ObjectRef) -> dict[str, str]:
    """Return the hash of a closed round, as Redis has it."""
    examples = sum(each.num_examples for each in manifest.contributors)
    since = {each.client: each.task_round for each in manifest.contributors if each.task_round is not None}
    return {
        "state": RoundState.CLOSED.value,
        "expected": json.dumps(list(manifest.expected)),
        "contributors": json.dumps([each.client for each in manifest.contributors]),
        "opened_ms": str(manifest.opened_ms),
        "deadline_ms": str(manifest.closed_ms),
        "closed_ms": str(manifest.closed_ms),
        "attempt": str(manifest.attempt),
        **manifest.global_model.object.to_hash(),
        "info_path": manifest.global_model.info_path,
        "info_digest": manifest.global_model.info_digest,
        "reason": f"{counted(len(manifest.contributors), 'update')}, {counted(examples, 'example')} "
        "(rebuilt from the store)" + in_model(manifest.chosen),
        **({"pauses": json.dumps([list(pause) for pause in manifest.pauses])} if manifest.pauses else {}),
        **({"since": json.dumps(since)} if since else {}),
        **({"chosen": json.dumps(list(manifest.chosen))} if manifest.chosen else {}),
        **ref.to_hash("manifest_"),
    }


def round_verdicts(manifest: Manifest) -> Mapping[str, str]:
    """Return verdicts with the parts that a manifest keeps."""
    return {
        each.client: Verdict(True, "rebuilt from the store", each.to_update()).to_json()
        for each in manifest.contributors
    }
