"""A run with its current round and its sites, as plain values: what `flavor status --json` prints."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import Any

from flavor.bus.jobs import JobQueue, RqJobQueue
from flavor.bus.runs import RunStore
from flavor.checkpoints.kinds import check_kind_name
from flavor.config import RunConfig
from flavor.errors import InvalidSetting
from flavor.records.reported import Reported
from flavor.records.run import RunView
from flavor.resume import coordinated_by, is_of_fedtrain
from flavor.view.evaluations import described_evaluations
from flavor.view.history import History
from flavor.view.lacking import what_is_lacking
from flavor.view.newest import Newest, NewestReader, opened_store
from flavor.view.snapshot import ClientSnapshot, Snapshot, take_snapshot


def described(
    runs: RunStore, url: str, *, store: str | None = None, metric: str | None = None, left_in: str = ""
) -> dict[str, Any]:
    """Return a run with its current round and its clients, as plain values.

    `waits_for` says what the run waits for, `waits_s` for how long, and `held` whether it cannot go on by itself.
    `closes_early` says whether the round closes with the first `needed` updates. A client's `staleness` says from which
    earlier model it trains, with the task of `task_round`. `missing_clients` is how many more clients have to be ready
    before the next round can open, 0 while one is open.
    `absent` names the run's own processes that are missing, or says that Redis came back older than the store. For
    programs, `served` says whether a coordinator serves the run, and `no_aggregator` why none does its work. The
    metrics of the newest closed round come from `store`, or from the store in the run's settings; they are left out
    where the store cannot be read, or does not answer within a few seconds. `metric` is the metric whose best value is
    searched, `left_in` the result folder of a local run whose `flavor run` has ended.
    """
    snapshot = take_snapshot(runs, jobs=lambda config: queue_of(url, config, runs.run))
    brief, silent = opened_store(snapshot.run, store)
    place = brief.store if brief is not None else None
    newest = NewestReader(runs, History(runs, place)).read(snapshot.round, brief, metric=metric, silent=silent)
    return described_as(snapshot, newest, lacking=what_is_lacking(runs, place), left_in=left_in)


def brief_of(runs: RunStore, url: str, *, refusal: str | None = None) -> tuple[RunView, str]:
    """Return a run, and in words what is missing and what it waits for, or why it ended. Reads no store.

    `refusal` is why Redis takes no writes; None asks it. Raises `RunNotFound`, `DamagedRecord` and `BusUnavailable`.
    """
    view = runs.read()
    if view.state.ended:
        return view, runs.how_it_ended() or view.reason
    snapshot = take_snapshot(runs, jobs=lambda config: queue_of(url, config, runs.run), refusal=refusal)
    waits = snapshot.waits_for.line(snapshot.now_ms) if snapshot.waits_for else snapshot.ending
    reason = snapshot.waits_for.reason if snapshot.waits_for else ""
    absent = [each for each in _absent(snapshot, "") if each != reason]
    return snapshot.run, "; ".join([*absent, waits])


def described_as(snapshot: Snapshot, found: Newest, *, lacking: str = "", left_in: str = "") -> dict[str, Any]:
    """Return a snapshot with its metrics as plain values; `lacking` says what the store has and Redis does not."""
    view, round_, wait, now_ms = snapshot.run, snapshot.round, snapshot.waits_for, snapshot.now_ms
    return {
        **described_run(snapshot, found, lacking=lacking, left_in=left_in),
        "age_s": ((view.ended_ms or now_ms) - view.created_ms) / 1000 if view.created_ms else None,
        "open_s": round_.worked_s(snapshot.opened_until_ms) if round_ else None,
        "deadline_s": (round_.deadline_ms - now_ms) / 1000 if round_ else None,
        "waits_s": wait.lasts_s(now_ms) if wait else None,
        "clients": {name: _client(client, name, found, now_ms) for name, client in snapshot.clients.items()},
    }


def described_run(snapshot: Snapshot, found: Newest, *, lacking: str = "", left_in: str = "") -> dict[str, Any]:
    """Return what is told of the run itself, without durations and without its clients."""
    view, round_, wait = snapshot.run, snapshot.round, snapshot.waits_for
    lacks = snapshot.refusal or lacking  # either explains what else there is
    absent = [*([lacks] if lacks else _absent(snapshot, left_in)), *_unreadable(snapshot.config)]
    if found.silent and not (found.last and found.last["metrics"]):
        absent.append(f"no metrics are shown: {found.silent}")
    return {
        "run": view.run,
        "run_id": view.run_id,
        "protocol": view.protocol,
        "release": view.release or None,
        "needs": list(view.needs),
        "head": view.manifest.digest if view.manifest else None,
        "state": view.state.value,
        "round": view.round,
        "rounds": view.rounds,
        "round_state": round_.state.value if round_ else None,
        "reason": snapshot.ending or view.reason,
        "begun_from": view.begun_from or None,
        "took_s": view.took_s,
        "expected": len(round_.expected) if round_ else 0,
        "needed": snapshot.needed,
        "in": snapshot.accepted,
        "closes_early": snapshot.closes_early,
        "heartbeat_timeout_s": snapshot.config.heartbeat_timeout_s,
        "round_timeout_s": snapshot.round_timeout_s,
        "waits_for": wait.reason if wait else "",
        "held": wait.is_held if wait else False,
        "missing_clients": wait.missing if wait else 0,
        "absent": absent,
        "served": snapshot.is_served,
        "no_aggregator": snapshot.absence,
        **described_evaluations(snapshot.evaluations, view, snapshot.config, found.metric),
        "last_round": found.last,
        "metric": found.metric,
        "best": found.best,
        "keep_globals": snapshot.config.keep_globals,
        "global_model": view.global_model.model.path if view.global_model else None,
        "shares": _shares(snapshot),
    }


def _shares(snapshot: Snapshot) -> dict[str, Any] | None:
    """Describe which part of the model the run shares, and how large it is; None where it shares the whole."""
    parts, model = snapshot.config.parts, snapshot.run.global_model
    if not parts:
        return None
    return {
        "share": list(parts.share),
        "local": list(parts.local),
        "tensors": model.tensors if model else None,
        "bytes": model.model.size_bytes if model else None,
    }


def _client(client: ClientSnapshot, name: str, found: Newest, now_ms: int) -> dict[str, Any]:
    progress = client.progress
    return {
        **row_of_client(client, name, found),
        "seen_s": None if client.seen_ms is None else max(0.0, (now_ms - client.seen_ms) / 1000),
        "doing_s": progress.lasts_s(now_ms),
        "reported_s": progress.silent_s(now_ms),
        "progress": progress.described(client.phase.value, now_ms),
    }


def row_of_client(client: ClientSnapshot, name: str, found: Newest) -> dict[str, Any]:
    """Return what is told of one client, without durations."""
    progress = client.progress
    return {
        "state": client.state,
        "phase": client.phase.value,
        "alive": client.is_alive,
        "host": client.host,
        "version": client.version,
        "this_round": str(client.standing or "not expected"),
        "awaited": client.is_awaited,
        "samples": found.samples.get(name),
        "metrics": found.sites.get(name, {}),
        "metrics_round": found.rounds.get(name),
        "transfer": asdict(progress.transfer) if progress.transfer else None,
        "doing": progress.doing.value if progress.doing else None,
        "reported": _reported(progress.reported),
        "load": asdict(progress.load) if progress.load else None,
        "failure": client.failure,
        "report": client.report,
        "update_bytes": client.update_bytes,
        "sent_bytes": client.moved.sent_bytes or None,  # an earlier release does not count them
        "received_bytes": client.moved.received_bytes or None,
        "moved_since_ms": client.moved.since_ms or None,
        "reason": client.reason,
        "task_round": client.task_round,
        "staleness": client.staleness,
        "warning": client.warning,
        "refused_in_a_row": client.refused_in_a_row,
    }


def _reported(reported: Reported | None) -> dict[str, Any] | None:
    return None if reported is None else reported._asdict()


def queue_of(url: str, config: RunConfig, run: str) -> JobQueue:
    """Open the queue of a run with these settings, for a short look."""
    return RqJobQueue(url, config.queue, timeout_s=1, patience_s=5, run=run, quiet=True)


def _absent(snapshot: Snapshot, left_in: str) -> list[str]:
    """Name the missing processes of a run that goes on: coordinator, aggregators, or those of a local run."""
    if snapshot.run.state.ended:
        return []
    if left_in:  # all processes of the run have ended with `flavor run`
        return [f"`flavor run` does not run it any more: go on with it: flavor run --resume {shlex.quote(left_in)}"]
    run, found = snapshot.run.run, []
    if snapshot.is_served is False:
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
