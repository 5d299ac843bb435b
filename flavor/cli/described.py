"""A run with its current round and its sites, as plain values: what `flavor status --json` prints."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flavor.bus.connection import shown, translated
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.awaited import as_clients, what_is_awaited, with_absent
from flavor.coordinator.decision import Standing, standings
from flavor.coordinator.jobs import RqJobQueue
from flavor.errors import FlavorError
from flavor.ledger.rounds import closed_round
from flavor.records.names import count
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.states import ClientState, RoundState
from flavor.records.update import Refused, Update
from flavor.results.rounds import best_of, for_people, merged_info, scalars, site_infos
from flavor.store.brief import BriefStore
from flavor.store.protocol import ObjectStore
from flavor.watch import PHASES

_MOST_ROUNDS = 100
"""Rounds among which the best metric is looked for."""


def described(
    runs: RunStore, url: str, *, store: str | None = None, metric: str | None = None, left_in: str = ""
) -> dict[str, Any]:
    """A run with its current round and its clients, as plain values.

    `waits_for` is why it does not go on yet, and `held` whether it cannot as it is; `absent` is who of the run's own
    processes is not there, in words. The metrics of the newest closed round come from its store, `store` or the one in
    the run's settings; they are missing where that cannot be read, or does not answer within a few seconds. `metric` is
    the one whose best value is looked for, `left_in` the result folder of a local run whose `flavor run` has ended.
    """
    view, now_ms = runs.read(), runs.now_ms()
    round_ = runs.read_round(view.round) if view.round else None
    config = RunConfig.known(view.config)
    shut = {name for name, refused in runs.refusals().items() if 0 < config.quarantine_after <= refused}
    hashes = runs.clients(runs.members())
    config = RunConfig.known(view.config)
    gone_s = _goodbyes(runs, hashes, now_ms)
    heard = {
        name: (fields, alive or _is_awaited(fields, gone_s.get(name), config.heartbeat_timeout_s))
        for name, (fields, alive) in hashes.items()
    }
    members = as_clients(heard, shut)
    updates = runs.updates(view.round, round_.expected) if round_ else {}
    standing = standings(round_, updates, members) if round_ else {}
    waits_for, held = what_is_awaited(view, round_, standing, with_absent(hashes, members), now_ms)
    absent = _absent(runs, url, view, round_, standing, left_in)
    clients: dict[str, Any] = {}
    left_ms = _lease_times(runs, hashes)
    found = _metrics(runs, view, round_, store, metric)
    if found.silent:
        absent.append(f"no metrics are shown: {found.silent}")
    for name, (fields, alive) in hashes.items():
        state, why = standing.get(name, ("not expected", ""))
        clients[name] = {
            "state": "quarantined" if name in shut else fields.get("state", "unknown"),
            "alive": alive,
            "host": fields.get("host", ""),
            "this_round": str(state),
            "awaited": not alive and _is_awaited(fields, gone_s.get(name), config.heartbeat_timeout_s),
            "seen_s": gone_s.get(name)
            if (left := left_ms.get(name)) is None
            else max(0.0, config.heartbeat_timeout_s - left / 1000),
            "samples": found.samples.get(name),
            "metrics": found.sites.get(name, {}),
            "transfer": _transfer(fields) if alive else None,
            "failure": fields.get("failure") or _of_refused(updates.get(name), "failure"),
            "report": fields.get("report") or _of_refused(updates.get(name), "report"),
            "update_bytes": handed_in.object.size_bytes if isinstance(handed_in := updates.get(name), Update) else None,
            "reason": _quarantined(runs.run, name)
            if name in shut
            else fields.get("reason", "") or (why if state == Standing.REFUSED else ""),
        }
    return {
        "run": view.run,
        "run_id": view.run_id,
        "protocol": view.protocol,
        "head": view.manifest.digest if view.manifest else None,
        "state": view.state.value,
        "round": view.round,
        "rounds": view.rounds,
        "round_state": round_.state.value if round_ else None,
        "reason": (runs.how_it_ended() if view.state.ended else "") or view.reason,
        "age_s": ((view.ended_ms or now_ms) - view.created_ms) / 1000 if view.created_ms else None,
        "open_s": (now_ms - round_.opened_ms) / 1000 if round_ else None,
        "deadline_s": (round_.deadline_ms - now_ms) / 1000 if round_ else None,
        "expected": len(round_.expected) if round_ else 0,
        "needed": config.needed_of(len(round_.expected)) if round_ else 0,
        "in": sum(verdict.accepted for verdict in round_.verdicts.values()) if round_ else 0,
        "heartbeat_timeout_s": config.heartbeat_timeout_s,
        "waits_for": waits_for,
        "held": held,
        "absent": absent,
        "last_round": found.last,
        "metric": found.metric,
        "best": found.best,
        "global_model": view.global_model.model.path if view.global_model else None,
        "clients": clients,
    }


@dataclass
class _Metrics:
    """What is known of the newest closed round, and the best before it."""

    last: dict[str, Any] | None = None
    metric: str | None = None
    best: dict[str, Any] | None = None
    sites: dict[str, dict[str, float]] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    silent: str = ""
    """Why there is nothing more, when the store did not answer."""


def _metrics(
    runs: RunStore, view: RunView, round_: RoundView | None, store: str | None, metric: str | None
) -> _Metrics:
    """The metrics as far as the store can be read: status shows the rest without it."""
    found = _Metrics()
    last = round_
    if round_ is not None and round_.state is not RoundState.CLOSED:  # as it was read: it may have closed since
        last = runs.read_round(round_.round - 1) if round_.round > 1 else None
    brief: BriefStore | None = None
    with contextlib.suppress(FlavorError, OSError):
        brief = BriefStore(store or view.config["store"])
    place = brief.store if brief is not None else None
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
    found.silent = str(brief.silent) if brief is not None and brief.silent is not None else ""
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


def _lease_times(runs: RunStore, names: Iterable[str]) -> dict[str, int]:
    """How many milliseconds each edge's lease has left; a site whose lease is gone is not in it."""
    names = list(names)
    with translated(runs.where), runs.redis.pipeline(transaction=False) as reads:
        for name in names:
            reads.pttl(runs.keys.client(name).lease)
        return {name: int(left) for name, left in zip(names, reads.execute(), strict=True) if left >= 0}


_GOODBYES = {
    ClientState.STOPPED.value: "client.stopped",
    ClientState.FAILED.value: "client.lost",
    ClientState.LEFT.value: "client.left",
}
_LOOKED_BACK = 500
"""Entries of the log that are looked through for when a site said goodbye."""


def _goodbyes(runs: RunStore, hashes: Mapping[str, tuple[Mapping[str, str], bool]], now_ms: int) -> dict[str, float]:
    """How many seconds ago each site gave its lease back; those that crashed are not in it."""
    sought = {
        name: event
        for name, (fields, alive) in hashes.items()
        if not alive and (event := _GOODBYES.get(fields.get("state", "")))
    }
    found: dict[str, float] = {}
    if sought:
        with translated(runs.where):
            entries = runs.redis.xrevrange(runs.keys.log, count=_LOOKED_BACK)
        for number, fields in entries:
            name = fields.get("client", "")
            if name not in found and sought.get(name) == fields.get("event"):
                found[name] = max(0.0, (now_ms - int(number.partition("-")[0])) / 1000)
    return found


def _is_awaited(fields: Mapping[str, str], gone_s: float | None, lease_s: float) -> bool:
    """Whether the coordinator still waits for a site that was stopped by a signal, as for one that crashed."""
    return fields.get("state") == ClientState.STOPPED and gone_s is not None and gone_s < lease_s


def _transfer(fields: Mapping[str, str]) -> dict[str, Any] | None:
    """What its edge says of a transfer: how far it is, and since when."""
    done, total, since_ms = (count(fields.get(name)) for name in ("done", "total", "since_ms"))
    phase = fields.get("phase")
    if phase not in PHASES or done is None or total is None or since_ms is None:
        return None
    return {"phase": phase, "done_bytes": done, "total_bytes": total, "since_ms": since_ms}


def _of_refused(handed_in: Update | Refused | None, name: str) -> str | None:
    """What a site says of an update that its edge refused (see `flavor.edge.notice`)."""
    return getattr(handed_in, name) or None if isinstance(handed_in, Refused) else None


def _quarantined(run: str, client: str) -> str:
    return f"too many refused updates in a row (`flavor pardon {run} {client}` ends that)"


def _absent(
    runs: RunStore,
    url: str,
    view: RunView,
    round_: RoundView | None,
    standing: Mapping[str, tuple[Standing, str]],
    left_in: str,
) -> list[str]:
    """What a run that goes on does not go on without, and has not got."""
    if view.state.ended:
        return []
    if left_in:  # and all its processes have ended with it
        return [f"`flavor run` does not run it any more: go on with it: flavor run --resume {shlex.quote(left_in)}"]
    with translated(shown(url)):
        served = runs.redis.exists(runs.keys.coordinator)
    found = [] if served else [f"no coordinator serves it: start `flavor serve --run {view.run} …` again"]
    uninspected = any(state is Standing.SUBMITTED for state, _ in standing.values())
    unclaimed = round_ is not None and round_.state is RoundState.AGGREGATING and round_.lease_ms is None
    queue = RunConfig.known(view.config).queue
    jobs = RqJobQueue(url, queue, timeout_s=1, patience_s=5, run=view.run)
    if (uninspected or unclaimed) and not jobs.workers():
        found.append(jobs.absence())
    return found
