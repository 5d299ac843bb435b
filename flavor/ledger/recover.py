"""`flavor recover`: rebuild a run on Redis from its records in the store."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import redis as redis_py

from flavor.bus.clients import RECORDED
from flavor.bus.connection import shown, translated
from flavor.bus.evaluations import reported_fields
from flavor.bus.keys import RUNS
from flavor.bus.lease import Lease
from flavor.bus.no_coordinator import no_coordinator
from flavor.bus.removed import forget_removal
from flavor.bus.runs import RunStore
from flavor.counted import counted
from flavor.errors import DamagedRecord, FlavorError, LeaseLost, RunExists, StateLost
from flavor.ledger.archive import Archive
from flavor.ledger.chain import Chain, read_chain
from flavor.ledger.recover_evaluations import RebuiltEvaluations, rebuilt_evaluations
from flavor.ledger.rounds import round_fields, round_verdicts
from flavor.ledger.trust import Trust
from flavor.policy.decision import all_closed
from flavor.records.objects import ObjectRef
from flavor.records.round import RoundView, paused_ms
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.results.rounds import merged_info
from flavor.results.summaries import known_metrics, refused_of, summary_of
from flavor.resume import MAY_CHANGE, goes_on_by
from flavor.store.paths import manifest_path, run_record_path

_BATCH = 50
"""Number of rounds that are written in one step."""


@dataclass(frozen=True)
class Recovered:
    """The rebuilt run."""

    run: str
    round: int
    """The newest closed round."""
    rounds: int
    clients: tuple[str, ...]


def recover(
    archive: Archive,
    runs: RunStore,
    *,
    url: str,
    replace: bool = False,
    trust: Trust | None = None,
    head: str = "",
    run_id: str = "",
    tell: Callable[[str], None],
) -> Recovered:
    """Rebuild a run as it was when its newest round with a manifest was closed.

    Where they are known, `head` is the digest of that manifest, and `run_id` the run's id.

    Redis must not have the run. With `replace` it may have an older state or another history of the run, which is
    removed after `tell` was called with what is lost. Raises `RunNotFound` (the store has nothing of the run),
    `StateLost` (its records are broken, or Redis has more), `RunExists` (Redis has the run, without `replace`),
    `LeaseHeld` (its coordinator runs), `StoreError` (the newest model is gone or changed); nothing has changed on Redis
    then. Raises `LeaseLost` when this process stood still for so long that a coordinator took over.
    """
    with no_coordinator(runs, tell) as lease:
        chain = read_chain(archive, trust, run_id=run_id)
        seal = _sealed(archive, chain)
        if head and chain.head != head:
            raise StateLost(
                f"run {chain.run!r} cannot be rebuilt: the head of its records in the store is {chain.head[:16]}… "
                f"after round {chain.closed}, and not {head[:16]}…, which --head gives: an earlier state of it, or an "
                "earlier run, was put back, or it has gone on since"
            )
        for notice in (*chain.notices, *(problem for problem in chain.problems if problem.round > chain.closed)):
            tell(str(notice))
        if any(round_ > chain.closed for round_ in chain.listing.aggregated):
            tell(
                f"round {chain.closed + 1} has a global model, but no manifest: it counts as not closed, and is done "
                "again"
            )
        before, damage = _found(runs)
        if before is not None and not damage:
            try:
                _check_replaceable(runs, before, chain, replace, url, tell)
            except DamagedRecord as error:  # of its round
                damage = str(error)
        if damage:
            _check_damaged(chain, damage, replace, tell)
        if before is not None or damage:
            _check_ours(lease, runs)
        is_ours = before is None or (chain.record is not None and before.run_id == chain.record.run_id)
        evaluations = rebuilt_evaluations(archive, chain, trust or Trust(), tell)
        if before is not None or damage:
            _check_ours(lease, runs)
        _remove(runs, ours=is_ours)
        return _rebuild(archive, runs, chain, evaluations, lease, seal, lost=before is None and not damage)


def _check_ours(lease: Lease, runs: RunStore) -> None:
    with translated(runs.where):
        if not lease.keep():
            raise LeaseLost(f"run {runs.run!r}: a coordinator has taken over: stop it, and start this again")


def _sealed(archive: Archive, chain: Chain) -> str:
    """Check that the records are complete, and that the newest model and its state are as recorded; return its seal.

    The seal is '' where there is no model. It is taken before the digest is computed, so that it shows later writes.
    """
    after = f"`flavor verify {chain.run}` shows everything"
    lost = [problem for problem in chain.problems if problem.round <= chain.closed]
    if lost or chain.record is None:
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        raise StateLost(f"run {chain.run!r} cannot be rebuilt: {lost[0]}{more}; {after}")
    model = chain.manifests[-1].global_model if chain.links else chain.record.initial
    seal = archive.store.seal(model.path) if model else ""
    whole = chain.record.initial.whole if chain.record.initial is not None else None
    for ref in (*(model.objects() if model else ()), *((whole.object,) if whole is not None else ())):
        archive.store.open(ref)
    return seal


def _found(runs: RunStore) -> tuple[RunView | None, str]:
    """Return the run on Redis, if it is there and can be read, and what is damaged of it; '' for nothing."""
    try:
        return runs.find(), ""
    except DamagedRecord as error:
        return None, str(error)


def _check_damaged(chain: Chain, damage: str, replace: bool, tell: Callable[[str], None]) -> None:
    """Raise unless what Redis has of the run, of which a record is damaged, may be removed."""
    if not replace:
        raise RunExists(f"{damage}; the store has {counted(chain.closed, 'closed round')}, and nothing was changed")
    tell(f"{damage}; lost is what Redis had of the run after {counted(chain.closed, 'closed round')}")


def _check_replaceable(
    runs: RunStore, before: RunView, chain: Chain, replace: bool, url: str, tell: Callable[[str], None]
) -> None:
    """Raise unless the state on Redis may be removed."""
    run, where = chain.run, shown(url)
    closed, round_ = runs.closed(before)
    recorded = {0: chain.record.digest if chain.record else "", **{link.round: link.digest for link in chain.links}}
    same = before.manifest is not None and before.manifest.digest == recorded.get(closed)
    if closed > chain.closed or (closed == chain.closed and same):
        raise RunExists(
            f"run {run!r} on Redis at {where} has {counted(closed, 'closed round')}, and the store "
            f"{chain.closed}: Redis lacks nothing, so nothing was changed; {goes_on_by(before)}"
        )
    lost = [f"its {counted(closed, 'closed round')}, which the store has otherwise"] if not same else []
    if round_ is not None and before.round > closed:
        handed_in = len(runs.updates(before.round, round_.expected))
        lost.append(f"its open round {before.round} with {counted(handed_in, 'update')}")
    what = (
        f"run {run!r} on Redis at {where} is {before.state} with {counted(closed, 'closed round')}, "
        f"the store has {chain.closed}"
    )
    if chain.record and before.run_id != chain.record.run_id:
        what += (
            f", and is another run of this name (id {before.run_id[:12] or 'none'}…, not {chain.record.run_id[:12]}…)"
        )
    lost_is = f"lost {'would be' if not replace else 'is'} {' and '.join(lost) or 'nothing'}"
    if not replace:
        raise RunExists(f"{what}: --replace rebuilds it from the store; {lost_is}")
    tell(f"{what}; {lost_is}")


@dataclass(frozen=True)
class _ClientKeys:
    """The clients' keys that the rebuilt run has."""

    pinned: Mapping[str, str]
    """Each client's key of its newest update."""
    stale: Set[str]
    """Clients whose key on Redis is older than that."""
    replaced: Mapping[str, tuple[str, ...]]
    """Each client's keys that an operator has replaced, oldest first."""


def _client_keys(runs: RunStore, chain: Chain, *, lost: bool) -> _ClientKeys:
    """Combine the keys in the records with those on Redis, which alone has an operator's acts after the newest record.

    On a Redis that has `lost` the run, only an operator can have pinned a key, so a key that differs from the records'
    replaces it. The replaced keys on Redis belong to this run: those of another run were removed with it.
    """
    now, on_redis = runs.public_keys(), runs.replaced()
    newest = {c.client: c for m in chain.manifests for c in m.contributors if c.public_key}
    replaced = {client: dict.fromkeys(c.replaced) for client, c in newest.items()}
    for client, keys in on_redis.items():
        recorded = newest[client].public_key if client in newest else ""
        known = replaced.setdefault(client, {})
        for key in (recorded if key == RECORDED else key for key in keys):
            if key and key != now.get(client):
                known[key] = None
    gone = {name for name, c in newest.items() if c.public_key in replaced[name] and c.public_key not in c.replaced}
    stale = {name for name, c in newest.items() if now.get(name) in c.replaced and name not in gone}
    if lost:
        for name, c in newest.items():
            if now.get(name, c.public_key) != c.public_key and name not in stale:
                replaced[name][c.public_key] = None
    pinned = {name: c.public_key for name, c in newest.items() if name not in gone}
    return _ClientKeys(pinned, stale, {client: tuple(keys) for client, keys in replaced.items() if keys})


def _remove(runs: RunStore, *, ours: bool) -> None:
    """Delete the run, its rounds and its clients, if they exist; its log and the clients' keys stay.

    Also deletes what its clients were told and how often they were refused: both belong to the lost history, and an
    edge that trains a round again would read the old verdict on it. Running edges and aggregators leave keys also on a
    server that has lost the run. The keys that an operator replaced stay if the run is `ours`, and not another run of
    this name.
    """
    keys = runs.keys
    for kind in ("round:", "client:", "to:"):
        runs.remove_keys(kind)
    with translated(runs.where):
        of_run = [
            keys.members,
            keys.refusals,
            keys.aggregator,
            keys.closed,
            keys.evaluating,
            keys.evaluated,
            keys.failing,
            keys.unjudged,
            keys.reported,
            keys.asked,
            keys.recorded,
            keys.state,
        ]
        runs.redis.unlink(*of_run, *(() if ours else (keys.replaced, keys.placed)))


def _rebuild(
    archive: Archive,
    runs: RunStore,
    chain: Chain,
    evaluations: RebuiltEvaluations,
    lease: Lease,
    seal: str,
    *,
    lost: bool,
) -> Recovered:
    """Write the rounds, and then in one step the run itself, which no process sees before that."""
    assert chain.record is not None
    record, manifests, keys, now_ms = chain.record, chain.manifests, runs.keys, runs.now_ms()
    closed = chain.closed
    rounds = chain.rounds
    finished = closed >= rounds
    reason = f"rebuilt from the store after round {closed} of {rounds}"
    state = RunState.FINISHED if finished else RunState.RUNNING if closed else RunState.WAITING
    model = manifests[-1].global_model if manifests else record.initial
    path = manifest_path(chain.run, closed) if closed else run_record_path(chain.run)
    fields = {
        "run_id": record.run_id,
        "protocol": str(record.protocol),
        **({"release": record.release} if record.release else {}),
        **({"needs": " ".join(record.needs)} if record.needs else {}),
        "state": state.value,
        "round": str(closed),
        "rounds": str(rounds),
        "config": json.dumps({**chain.config, "store": archive.store.url}),
        "changed": json.dumps(sorted(name for name in MAY_CHANGE if chain.config.get(name) != record.config.get(name))),
        "created_ms": str(record.created_ms or (manifests[0].opened_ms if manifests else now_ms)),
        "paused_ms": str(sum(paused_ms(manifest.pauses or ()) for manifest in manifests)),
        "reason": all_closed(closed) if finished else reason,
        "recovered_ms": str(now_ms),
        "recovered_round": str(closed),
        **ObjectRef(path, chain.head).to_hash("manifest_"),
        **(record.initial.to_global("").to_hash() if record.initial is not None else {}),  # the whole one, too
        **(model.to_global(seal).to_hash() if model else {}),
        **({"begun_from": record.begun_from.words} if record.begun_from is not None else {}),
        **({"ended_ms": str(manifests[-1].closed_ms)} if finished else {}),
        **(evaluations.best.to_hash() if evaluations.best is not None else {}),
    }
    summaries: list[str] = []
    for first in range(0, closed, _BATCH):
        with translated(runs.where), runs.redis.pipeline(transaction=False) as step:
            for manifest, link in zip(manifests[first : first + _BATCH], chain.links[first:], strict=False):
                ref = ObjectRef(manifest_path(chain.run, link.round), link.digest)
                of_round, verdicts = round_fields(manifest, ref), round_verdicts(manifest)
                step.hset(keys.round(manifest.round), mapping=of_round)
                step.hset(keys.verdicts(manifest.round), mapping=verdicts)
                rebuilt = RoundView.from_hash(manifest.round, of_round, verdicts)
                summaries = [_summary(archive, rebuilt, known_metrics(summaries))]
                step.rpush(keys.closed, summaries[0])
            step.execute()
    _write_evaluations(runs, evaluations)
    clients = sorted({name for manifest in manifests for name in manifest.expected})
    while not _appears(runs, lease, fields, clients, lambda: _client_keys(runs, chain, lost=lost), reason, now_ms):
        continue  # our own lease was renewed at the same time, or an operator replaced a key
    return Recovered(chain.run, closed, rounds, tuple(clients))


def _write_evaluations(runs: RunStore, evaluations: RebuiltEvaluations) -> None:
    keys = runs.keys
    if evaluations.reported:
        with translated(runs.where):
            runs.redis.hset(keys.reported, mapping=dict(reported_fields(evaluations.reported)))
    for first in range(0, len(evaluations.every), _BATCH):
        with translated(runs.where), runs.redis.pipeline(transaction=False) as step:
            for each in evaluations.every[first : first + _BATCH]:
                step.hset(keys.evaluation(each.round, each.number), mapping=dict(each.fields))
                if each.verdicts:  # there are none on the operator's own data
                    step.hset(keys.evaluation_verdicts(each.round, each.number), mapping=dict(each.verdicts))
                step.rpush(keys.evaluated, each.summary.closed_at(int(each.fields["closed_ms"])))
            step.execute()


def _summary(archive: Archive, view: RoundView, known: Sequence[str]) -> str:
    """Return what Redis keeps of a closed round for the whole run, without metrics that cannot be read."""
    info: Mapping[str, Any] | None = None
    with contextlib.suppress(FlavorError, OSError):
        info = merged_info(view, archive.store)
    summary = summary_of(view, attempt=view.attempt, info=info, known=known)
    return replace(summary, refused=refused_of(view)).closed_at(view.closed_ms or 0)


def _appears(
    runs: RunStore,
    lease: Lease,
    fields: Mapping[str, str],
    clients: Sequence[str],
    read_keys: Callable[[], _ClientKeys],
    reason: str,
    now_ms: int,
) -> bool:
    """Write the run itself, its members and their keys in one step; False when it must be tried again.

    Raises `RunExists` where the run exists, and `LeaseLost` where a coordinator has taken over.
    """
    keys = runs.keys
    with translated(runs.where), runs.redis.pipeline(transaction=True) as step:
        step.watch(keys.state, keys.coordinator, keys.public_keys, keys.replaced)
        if step.exists(keys.state):
            raise RunExists(f"run {runs.run!r} was created while this one was at work: nothing was changed")
        if step.get(keys.coordinator) != lease.token:
            _check_ours(lease, runs)
            return False
        client_keys = read_keys()
        step.multi()
        step.hset(keys.state, mapping=dict(fields))
        if clients:
            step.sadd(keys.members, *clients)
        for client, key in client_keys.pinned.items():
            # a key that an operator has pinned stays, unless an operator has replaced it since
            (step.hset if client in client_keys.stale else step.hsetnx)(keys.public_keys, client, key)
        step.delete(keys.replaced)
        if client_keys.replaced:
            step.hset(
                keys.replaced,
                mapping={name: "".join(f"{k}\n" for k in known) for name, known in client_keys.replaced.items()},
            )
        step.xadd(keys.log, {"event": "run.recovered", "reason": reason, "round": fields["round"]})
        step.zadd(RUNS, {runs.run: now_ms // 1000})
        forget_removal(step, runs.run)
        step.publish(keys.state, fields["state"])
        try:
            step.execute()
        except redis_py.exceptions.WatchError:
            return False
    return True
