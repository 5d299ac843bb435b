"""A run with its current round and its sites, as plain values: what `flavor status --json` prints."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from flavor.bus.jobs import JobQueue, RqJobQueue
from flavor.bus.runs import RunStore
from flavor.checkpoints.kinds import check_kind_name
from flavor.config import RunConfig
from flavor.errors import FlavorError, InvalidSetting
from flavor.ledger.rounds import closed_round
from flavor.records.reported import Reported
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.states import RoundState
from flavor.results.rounds import best_of, for_people, merged_info, scalars, site_infos
from flavor.resume import coordinated_by, is_of_fedtrain
from flavor.store.brief import BriefStore
from flavor.store.open import is_installed
from flavor.store.protocol import ObjectStore
from flavor.store.url import package_scheme
from flavor.view.lacking import what_is_lacking
from flavor.view.snapshot import ClientSnapshot, Snapshot, take_snapshot

_MOST_ROUNDS = 100
"""How many of the newest rounds are searched for the best metric."""


def described(
    runs: RunStore, url: str, *, store: str | None = None, metric: str | None = None, left_in: str = ""
) -> dict[str, Any]:
    """Return a run with its current round and its clients, as plain values.

    `waits_for` says what the run waits for, `waits_s` for how long, and `held` whether it cannot go on by itself.
    `absent` names the run's own processes that are missing, or says that Redis came back older than the store. For
    programs, `served` says whether a coordinator serves the run, and `no_aggregator` why none does its work. The
    metrics of the newest closed round come from `store`, or from the store in the run's settings; they are left out
    where the store cannot be read, or does not answer within a few seconds. `metric` is the metric whose best value is
    searched, `left_in` the result folder of a local run whose `flavor run` has ended.
    """
    snapshot = take_snapshot(runs, jobs=lambda config: _queue(url, config, runs.run))
    view, round_, wait = snapshot.run, snapshot.round, snapshot.waits_for
    found = _metrics(runs, view, round_, store, metric)
    lacking = what_is_lacking(runs, found.place)
    absent = [*([lacking] if lacking else _absent(snapshot, left_in)), *_unreadable(snapshot.config)]
    if found.silent:
        absent.append(f"no metrics are shown: {found.silent}")
    now_ms = snapshot.now_ms
    return {
        "run": view.run,
        "run_id": view.run_id,
        "protocol": view.protocol,
        "head": view.manifest.digest if view.manifest else None,
        "state": view.state.value,
        "round": view.round,
        "rounds": view.rounds,
        "round_state": round_.state.value if round_ else None,
        "reason": snapshot.ending or view.reason,
        "age_s": ((view.ended_ms or now_ms) - view.created_ms) / 1000 if view.created_ms else None,
        "open_s": (now_ms - round_.opened_ms) / 1000 if round_ else None,
        "deadline_s": (round_.deadline_ms - now_ms) / 1000 if round_ else None,
        "expected": len(round_.expected) if round_ else 0,
        "needed": snapshot.needed,
        "in": snapshot.accepted,
        "heartbeat_timeout_s": snapshot.config.heartbeat_timeout_s,
        "waits_for": wait.reason if wait else "",
        "waits_s": wait.lasts_s(now_ms) if wait else None,
        "held": wait.is_held if wait else False,
        "absent": absent,
        "served": snapshot.is_served,
        "no_aggregator": snapshot.absence,
        "last_round": found.last,
        "metric": found.metric,
        "best": found.best,
        "global_model": view.global_model.model.path if view.global_model else None,
        "clients": {name: _client(client, name, found, now_ms) for name, client in snapshot.clients.items()},
    }


def _client(client: ClientSnapshot, name: str, found: _Metrics, now_ms: int) -> dict[str, Any]:
    progress = client.progress
    return {
        "state": client.state,
        "phase": client.phase.value,
        "alive": client.is_alive,
        "host": client.host,
        "this_round": str(client.standing or "not expected"),
        "awaited": client.is_awaited,
        "seen_s": None if client.seen_ms is None else max(0.0, (now_ms - client.seen_ms) / 1000),
        "samples": found.samples.get(name),
        "metrics": found.sites.get(name, {}),
        "transfer": asdict(progress.transfer) if progress.transfer else None,
        "doing": progress.doing.value if progress.doing else None,
        "doing_s": progress.lasts_s,
        "progress": progress.described(client.phase.value),
        "reported": _reported(progress.reported),
        "load": asdict(progress.load) if progress.load else None,
        "failure": client.failure,
        "report": client.report,
        "update_bytes": client.update_bytes,
        "reason": client.reason,
    }


def _reported(reported: Reported | None) -> dict[str, Any] | None:
    return None if reported is None else reported._asdict()


def _queue(url: str, config: RunConfig, run: str) -> JobQueue:
    return RqJobQueue(url, config.queue, timeout_s=1, patience_s=5, run=run)


def _absent(snapshot: Snapshot, left_in: str) -> list[str]:
    """Name the missing processes of a run that goes on: coordinator, aggregators, or those of a local run."""
    if snapshot.run.state.ended:
        return []
    if left_in:  # all processes of the run have ended with `flavor run`
        return [f"`flavor run` does not run it any more: go on with it: flavor run --resume {shlex.quote(left_in)}"]
    run, found = snapshot.run.run, []
    if not snapshot.is_served:
        again = f"`flavor serve --run {run} …`" if not is_of_fedtrain(snapshot.run) else coordinated_by(snapshot.run)
        found.append(f"no coordinator serves it: start {again} again")
    return [*found, snapshot.absence] if snapshot.absence else found


def _unreadable(config: RunConfig) -> list[str]:
    """What of the run this machine cannot read, because a package is not installed here. No package is imported."""
    try:
        check_kind_name(config.checkpoint)
    except InvalidSetting as error:
        return [f"the run's checkpoints cannot be read here: {error}"]
    return []


@dataclass
class _Metrics:
    """The metrics of the newest closed round, and the best value before it."""

    last: dict[str, Any] | None = None
    metric: str | None = None
    best: dict[str, Any] | None = None
    sites: dict[str, dict[str, float]] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    silent: str = ""
    """Why no metrics are shown; '' where the store answered."""
    place: ObjectStore | None = None
    """The store, if it could be opened."""


def _metrics(
    runs: RunStore, view: RunView, round_: RoundView | None, store: str | None, metric: str | None
) -> _Metrics:
    """Read the metrics as far as the store can be read; without it, status shows the rest."""
    found = _Metrics()
    last = round_
    if round_ is not None and round_.state is not RoundState.CLOSED:  # as it was read: it may have closed since
        last = runs.read_round(round_.round - 1) if round_.round > 1 else None
    brief: BriefStore | None = None
    url = store or str(view.config["store"])
    if not store and (scheme := package_scheme(url)) and is_installed(url):
        found.silent = f"a package would open the run's store {scheme + '://'!r}, which no option names"
    try:
        brief = BriefStore(url) if not found.silent else None
    except (FlavorError, OSError) as error:
        found.silent = "" if is_installed(url) else str(error)
    place = found.place = brief.store if brief is not None else None
    if last is not None:
        _sites(found, last, place)
        if place is not None:
            with contextlib.suppress(FlavorError, OSError, ValueError):
                merged = for_people(scalars(merged_info(last, place)["metrics"]))
                found.last = {"round": last.round, "metrics": merged}
                found.metric = metric or next(iter(merged), None)
                found.best = _best(runs, last, place, found.metric)
    if round_ is not None and round_ is not last:
        _sites(found, round_, place)
    if brief is not None and brief.silent is not None:
        found.silent = str(brief.silent)
    return found


def _sites(found: _Metrics, round_: RoundView, store: ObjectStore | None) -> None:
    accepted = round_.accepted
    found.samples |= {client: update.num_examples for client, update in accepted.items()}
    for site, info in site_infos(replace(round_, contributors=tuple(accepted)), store).items():
        found.sites[site] = for_people(scalars(info["metrics"]))


def _best(runs: RunStore, last: RoundView, store: ObjectStore, metric: str | None) -> dict[str, Any] | None:
    first = max(1, last.round - _MOST_ROUNDS + 1)
    if metric is None or best_of(metric, {1: 0.0}) is None:
        return None
    values = {}
    for number in range(first, last.round + 1):
        with contextlib.suppress(FlavorError, OSError, ValueError):
            round_ = last if number == last.round else closed_round(runs, store, number, newest=last.round)
            if round_ is not None and round_.state is RoundState.CLOSED:
                shown_metrics = for_people(scalars(merged_info(round_, store)["metrics"]))
                if metric in shown_metrics:
                    values[number] = shown_metrics[metric]
    best = best_of(metric, values)
    return {"metric": metric, "round": best[0], "value": best[1], "rounds": last.round - first + 1} if best else None
