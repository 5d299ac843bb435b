"""`flavor status`, `flavor log`, `flavor stop`, `flavor rm`: looking at runs, and ending them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any

import click

from flavor.bus.connection import Redis, connect, shown, translated, wait_for_server
from flavor.bus.dropped import dropped_lately
from flavor.bus.keys import RUNS
from flavor.bus.names import count
from flavor.bus.runs import RunStore, list_runs
from flavor.bus.state import ClientState, RoundState, RoundView, RunState, RunView
from flavor.bus.users import enrolled
from flavor.cli.common import needed, one_line_errors, print_table, printable, redis_option, store_option
from flavor.config import RunConfig
from flavor.coordinator.decision import Client, Standing, close_round, standings, supervise
from flavor.coordinator.jobs import RqJobQueue
from flavor.errors import BusUnavailable, MisuseError, RunError
from flavor.sizes import amount
from flavor.store.objects import open_store
from flavor.store.paths import run_prefix
from flavor.store.watch import PHASES


def _connected(redis_url: str | None) -> tuple[Redis, str]:
    url = needed(redis_url, "--redis-url", "FLAVOR_REDIS_URL")
    redis = connect(url, patience_s=5.0)
    wait_for_server(redis, url)
    return redis, url


def described(runs: RunStore, url: str) -> dict[str, Any]:
    """A run with its current round and its clients, as plain values.

    `waits_for` is why an open round is open, `absent` who of the run's own processes is not there, in words.
    """
    view = runs.read()
    round_ = runs.read_round(view.round) if view.round else None
    hashes = runs.clients(runs.members())
    members = {
        name: Client(ClientState(fields["state"]), alive, fields.get("reason", ""))
        for name, (fields, alive) in hashes.items()
        if fields.get("state") in tuple(ClientState)
    }
    updates = runs.updates(view.round, round_.expected) if round_ else {}
    standing = standings(round_, updates, members) if round_ else {}
    waits_for = ""
    if round_ is not None and round_.state is RoundState.OPEN and not view.state.ended:
        _, waits_for = close_round(runs.now_ms(), round_, standing, RunConfig.known(view.config))
    elif round_ is not None and round_.state is RoundState.AGGREGATING and not view.state.ended:
        config, now_ms = RunConfig.known(view.config), runs.now_ms()
        _, waits_for = supervise(now_ms, round_, enqueued_ms=now_ms, workers=None, config=config)
    absent = _absent(runs, url, view, round_, standing)
    clients: dict[str, Any] = {}
    limit = RunConfig.known(view.config).quarantine_after
    shut = {name for name, refused in runs.refusals().items() if 0 < limit <= refused}
    for name, (fields, alive) in hashes.items():
        state, why = standing.get(name, ("not expected", ""))
        clients[name] = {
            "state": "quarantined" if name in shut else fields.get("state", "unknown"),
            "alive": alive,
            "host": fields.get("host", ""),
            "this_round": str(state),
            "transfer": _transfer(fields) if alive else None,
            "update_bytes": count(updates.get(name, {}).get("size")),
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
        "waits_for": waits_for,
        "absent": absent,
        "global_model": view.global_model.path if view.global_model else None,
        "clients": clients,
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _transfer(fields: Mapping[str, str]) -> dict[str, Any] | None:
    """What its edge says of a transfer: how far it is, and since when."""
    done, total, since_ms = (count(fields.get(name)) for name in ("done", "total", "since_ms"))
    phase = fields.get("phase")
    if phase not in PHASES or done is None or total is None or since_ms is None:
        return None
    return {"phase": phase, "done_bytes": done, "total_bytes": total, "since_ms": since_ms}


def _at(client: Mapping[str, Any]) -> str:
    """What a client is at."""
    moving = client["transfer"]
    return f"{moving['phase']} {amount(moving['done_bytes'], moving['total_bytes'])}" if moving else client["state"]


def _quarantined(run: str, client: str) -> str:
    return f"too many refused updates in a row (`flavor pardon {run} {client}` ends that)"


def _absent(
    runs: RunStore, url: str, view: RunView, round_: RoundView | None, standing: Mapping[str, tuple[Standing, str]]
) -> list[str]:
    """What a run that goes on does not go on without, and has not got."""
    if view.state.ended:
        return []
    with translated(shown(url)):
        served = runs.redis.exists(runs.keys.coordinator)
    found = [] if served else [f"no coordinator serves it: start `flavor serve --run {view.run} …` again"]
    uninspected = any(state is Standing.SUBMITTED for state, _ in standing.values())
    unclaimed = round_ is not None and round_.state is RoundState.AGGREGATING and round_.lease_ms is None
    queue = RunConfig.known(view.config).queue
    jobs = RqJobQueue(url, queue, timeout_s=1, patience_s=5)
    if (uninspected or unclaimed) and not jobs.workers():
        found.append(jobs.absence())
    return found


@click.command()
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@redis_option
@one_line_errors
def status(run: str | None, as_json: bool, redis_url: str | None) -> None:
    """Show all runs, or one with its round and its clients."""
    redis, url = _connected(redis_url)
    _warn_of_dropped_jobs(redis)
    if run is not None:
        found = described(RunStore(redis, run, url), url)
        if as_json:
            click.echo(json.dumps(found, indent=2))
        else:
            _show_run(found)
        return
    views = [RunStore(redis, name, url).find() for name in list_runs(redis, url)]
    rows = [view for view in views if view is not None]
    if as_json:
        fields = ("run", "state", "round", "rounds", "reason")
        click.echo(json.dumps([{name: getattr(view, name) for name in fields} for view in rows], indent=2))
        return
    if not rows:
        click.echo(f"There are no runs on {shown(url)}.")
        return
    shown_rows = [(view.run, view.state.value, f"{view.round}/{view.rounds}", view.reason) for view in rows]
    print_table(("run", "state", "round", "why"), shown_rows)


def _warn_of_dropped_jobs(redis: Redis) -> None:
    if dropped := dropped_lately(redis):
        newest = dropped[0]
        click.secho(
            f"Warning: aggregators dropped {len(dropped)} foreign job{'s' if len(dropped) > 1 else ''} within a week "
            f"(the newest: {newest.get('job')} in queue {newest.get('queue')!r}: {newest.get('reason')}): "
            "somebody else writes to rq:* on this Redis (XREVRANGE flavor:dropped + -)",
            fg="yellow",
            err=True,
        )


def _show_run(found: dict[str, Any]) -> None:
    from flavor.local.progress import shown_bytes

    click.echo(
        f"run {found['run']}: {found['state']}, round {found['round']} of {found['rounds']}"
        + (f" ({found['round_state']})" if found["round_state"] else "")
    )
    click.echo(f"why: {printable('; '.join([found['waits_for'] or found['reason'], *found['absent']]))}")
    if found["global_model"]:
        click.echo(f"global model: {found['global_model']}")
    rows = [
        (
            name,
            _at(client),
            "-" if found["state"] in tuple(state for state in RunState if state.ended) else _yes(client["alive"]),
            client["host"],
            client["this_round"],
            "" if client["update_bytes"] is None else shown_bytes(client["update_bytes"]),
            client["reason"],
        )
        for name, client in found["clients"].items()
    ]
    print_table(("client", "state", "alive", "host", "this round", "up", "why"), rows)


@click.command()
@click.argument("run")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@redis_option
@one_line_errors
def log(run: str, follow: bool, as_json: bool, redis_url: str | None) -> None:
    """Show every transition of a run with its reason."""
    redis, url = _connected(redis_url)
    runs = RunStore(redis, run, url)
    runs.read()
    newest = "0"
    while True:
        ended = runs.read().state.ended
        with translated(shown(url)):
            batches: Any = redis.xread(
                {runs.keys.log: newest}, count=1000, block=1000 if follow and not ended else None
            )
        entries = batches[0][1] if batches else []
        for newest, fields in entries:
            click.echo(_entry(newest, fields, as_json))
        if not entries and (ended or not follow):
            return


def _entry(entry_id: str, fields: dict[str, str], as_json: bool) -> str:
    ms = int(entry_id.partition("-")[0])
    if as_json:
        return json.dumps({"time_ms": ms, **fields})
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000)) + f".{ms % 1000:03d}"
    where = " ".join(
        part for part in (f"round {fields['round']}" if "round" in fields else "", fields.get("client", "")) if part
    )
    return printable(f"{at}  {fields['event']:<20} {where:<20} {fields.get('reason', '')}".rstrip())


@click.command()
@click.argument("run")
@click.option("--reason", default="stopped by `flavor stop`", show_default=True, help="What to tell everyone.")
@redis_option
@one_line_errors
def stop(run: str, reason: str, redis_url: str | None) -> None:
    """Stop a run: trainers, edges and the coordinator end; what is closed stays."""
    redis, url = _connected(redis_url)
    runs = RunStore(redis, run, url)
    view = runs.read()
    if view.state.ended:
        click.echo(f"run {run} is {view.state} already: {view.reason}", err=True)
        return
    runs.end(RunState.STOPPED, reason)
    closed, _ = runs.closed(runs.read())  # read anew: a round may have been closed in that moment
    click.echo(f"run {run} is stopped after round {closed} of {view.rounds}", err=True)


@click.command()
@click.argument("run")
@click.argument("client")
@redis_option
@one_line_errors
def pardon(run: str, client: str, redis_url: str | None) -> None:
    """End a client's quarantine: its refused updates are forgotten, and it gets tasks again."""
    redis, url = _connected(redis_url)
    runs = RunStore(redis, run, url)
    runs.read()
    if client not in (members := runs.members()):
        known = ", ".join(sorted(members)) or "none yet"
        raise RunError(f"client {client!r} is not in run {run!r}; there are: {known}")
    done = runs.pardon(client)
    told = "gets tasks again" if done else "has no refused update since its last accepted one: nothing to forget"
    click.echo(f"client {client} of run {run} {told}", err=True)


@click.command()
@click.argument("run")
@click.option("--objects", is_flag=True, help="Remove its objects from the store, too.")
@redis_option
@store_option
@one_line_errors
def rm(run: str, objects: bool, redis_url: str | None, store: str | None) -> None:
    """Forget an ended run: its keys in Redis go; its objects in the store stay, unless --objects is given.

    As long as they are there, its name is taken, and `flavor recover` can bring it back.
    """
    redis, url = _connected(redis_url)
    runs = RunStore(redis, run, url)
    place = open_store(needed(store, "--store", "FLAVOR_STORE")) if objects else None
    view = runs.find()
    if view is None and not (place and (place.list(run_prefix(run)) or place.folders(run_prefix(run)))):
        runs.read()  # says that there is none
    if view is not None and not view.state.ended:
        raise MisuseError(f"run {run!r} is {view.state}: `flavor stop {run}` it first")
    runs.remove_keys()
    with translated(shown(url)):
        redis.zrem(RUNS, run)
    if place is not None:
        place.remove(run_prefix(run))
    click.echo(f"run {run} is forgotten{'' if objects else '; its objects stay in the store'}", err=True)
    with contextlib.suppress(BusUnavailable):  # whoever may end a run need not be one who enrolls
        if left := enrolled(redis, run, where=shown(url)):
            click.echo(f"still enrolled for a run of this name: {', '.join(left)} (`flavor revoke`)", err=True)
