"""Closed rounds as views: from Redis, which keeps the newest, or from the manifests in the store, which keeps all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from flavor.bus.runs import RunStore
from flavor.errors import StoreError
from flavor.ledger.archive import Archive
from flavor.ledger.canonical import sha256
from flavor.ledger.manifest import Manifest
from flavor.records.states import ManifestRef, RoundState, RoundView, Verdict
from flavor.store.paths import manifest_path
from flavor.store.protocol import ObjectStore


def closed_rounds(runs: RunStore, store: ObjectStore | None, *, after: int = 0) -> Iterator[RoundView]:
    """The closed rounds of a run from round `after` + 1 on, oldest first.

    Raises `RunNotFound`; `StoreError` for one that Redis no longer has where there is no `store`, or not its manifest.
    """
    newest = runs.read().round
    for number in range(after + 1, newest + 1):
        if (view := closed_round(runs, store, number, newest=newest)) is not None:
            yield view


def closed_round(runs: RunStore, store: ObjectStore | None, number: int, *, newest: int) -> RoundView | None:
    """One round of a run that is in round `newest`; None when it is not closed. Raises `StoreError` as above."""
    view = runs.read_round(number)
    if view is None and 0 < number < newest:
        return _recorded(runs.run, store, number)
    if view is None or view.state is not RoundState.CLOSED:
        return None
    return view if view.verdicts.keys() >= set(view.contributors) else _recorded(runs.run, store, number)


def _recorded(run: str, store: ObjectStore | None, round_: int) -> RoundView:
    data = Archive(store, run).data(round_) if store is not None else None
    if data is None:
        where = "name the --store of the run" if store is None else f"and its manifest from the store {store.url}"
        raise StoreError(f"round {round_} of run {run!r} is gone from Redis: {where}")
    manifest = Manifest.parse(data, manifest_path(run, round_))
    ref = ManifestRef(manifest_path(run, round_), sha256(data))
    return RoundView.of(round_, round_fields(manifest, ref), round_verdicts(manifest))


def round_fields(manifest: Manifest, ref: ManifestRef) -> dict[str, str]:
    """A closed round's hash."""
    examples = sum(each.num_examples for each in manifest.contributors)
    return {
        "state": RoundState.CLOSED.value,
        "expected": json.dumps(list(manifest.expected)),
        "contributors": json.dumps([each.client for each in manifest.contributors]),
        "opened_ms": str(manifest.opened_ms),
        "deadline_ms": str(manifest.closed_ms),
        "closed_ms": str(manifest.closed_ms),
        "attempt": str(manifest.attempt),
        "path": manifest.global_model.path,
        "digest": manifest.global_model.digest,
        "size": str(manifest.global_model.size_bytes),
        "info_path": manifest.global_model.info_path,
        "info_digest": manifest.global_model.info_digest,
        "reason": f"{len(manifest.contributors)} updates, {examples} examples (rebuilt from the store)",
        **ref.fields(),
    }


def round_verdicts(manifest: Manifest) -> Mapping[str, str]:
    """Verdicts with all that a manifest keeps of them."""
    found: dict[str, str] = {}
    for each in manifest.contributors:
        verdict = Verdict(
            True,
            "rebuilt from the store",
            path=each.path,
            digest=each.digest,
            size_bytes=each.size_bytes,
            format=each.format,
            num_examples=each.num_examples,
            info_path=each.info_path,
            info_digest=each.info_digest,
            public_key=each.public_key,
            signature=each.signature,
        )
        found[each.client] = verdict.to_json()
    return found
