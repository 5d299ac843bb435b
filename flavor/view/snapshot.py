"""A run at one moment: its round, its clients and the phase of each, and what the run waits for.

`take_snapshot` reads a run. `flavor status`, its `--json` and the live view of `flavor run` show a `Snapshot`, and a
page that shows runs is to do the same.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from flavor.bus.connection import translated
from flavor.bus.jobs import JobQueue
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.policy.standing import Standing, client_of, is_awaited, is_genuine, is_quarantined, standings, with_absent
from flavor.records.client import ClientStatus
from flavor.records.pulse import Doing, Pulse
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.states import ClientState, RoundState
from flavor.records.update import Refused, Update
from flavor.view.client_events import ClientLeft, ClientLost, ClientStopped
from flavor.view.progress import Progress, progress_of
from flavor.view.waiting import Wait, wait_of


class Phase(StrEnum):
    """What a client is doing, in the word that people read."""

    STARTING = "starting"
    """Its trainer is not ready yet."""
    WAITING = "waiting"
    """It has no task in the current round."""
    TRAINING = "training"
    UPLOADED = "uploaded"
    """Its update is not inspected yet."""
    DONE = "done"
    """Its update is accepted."""
    REFUSED = "refused"
    QUARANTINED = "quarantined"
    REVOKED = "revoked"
    FAILED = "failed"
    LEFT = "left"
    """Its trainer ended by itself."""
    STOPPED = "stopped"
    """A signal has stopped its edge, which is expected to come back."""
    GONE = "gone"
    """Its edge has vanished without a word."""
    OVER = "-"
    """The run has ended."""


@dataclass(frozen=True)
class ClientSnapshot:
    """One client of a run."""

    state: str
    """The state that its edge reports; "quarantined" for a quarantined client."""
    is_alive: bool
    """Whether its edge holds its lease."""
    phase: Phase
    host: str
    standing: Standing | None
    """Its standing in the current round; None for a client that is not expected in it."""
    is_awaited: bool
    """Whether the coordinator still waits for it, although a signal has stopped its edge."""
    seen_s: float | None
    """How many seconds ago its edge gave a sign of life; None where that is not known."""
    progress: Progress
    """How far it is in its phase, and since when, in the words of its edge and its script."""
    failure: str | None
    """The class of the failure of its trainer, or of an update that its edge refused; see `flavor.edge.notice`."""
    report: str | None
    """What the site shares about the failure."""
    update_bytes: int | None
    reason: str
    """Why the client is in this state, a site's own words in quotation marks; '' where nothing is to be said."""


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment, by the server's clock."""

    run: RunView
    round: RoundView | None
    """The newest round; None before the first."""
    config: RunConfig
    now_ms: int
    clients: Mapping[str, ClientSnapshot]
    waits_for: Wait | None
    """None for a run that has ended."""
    is_served: bool
    """Whether a coordinator has the run's lease."""
    absence: str
    """Why no aggregator does the work that there is; '' while one does it, there is no work, or `jobs` was None."""
    ending: str
    """Why the run ended, in the words for the operator; '' while it goes on."""

    @property
    def needed(self) -> int:
        """How many accepted updates the round needs."""
        return self.config.needed_of(len(self.round.expected)) if self.round else 0

    @property
    def accepted(self) -> int:
        """How many updates of the round are accepted."""
        return sum(verdict.accepted for verdict in self.round.verdicts.values()) if self.round else 0


def take_snapshot(runs: RunStore, *, jobs: Callable[[RunConfig], JobQueue] | None = None) -> Snapshot:
    """Read a run as it is now. Raises `RunNotFound` and `BusUnavailable`.

    `jobs` opens the queue of a run with these settings, to see whether an aggregator listens; None does not look.
    """
    view, now_ms = runs.read(), runs.now_ms()
    round_ = runs.read_round(view.round) if view.round else None
    config = RunConfig.known(view.config)
    refusals, found = runs.refusals(), runs.clients(runs.members())
    shut = {name for name, refused in refusals.items() if is_quarantined(refused, config.quarantine_after)}
    lease_s = config.heartbeat_timeout_s
    found = {name: (status, left if is_genuine(left, lease_s) else 0) for name, (status, left) in found.items()}
    left_ms = {name: left for name, (_, left) in found.items() if left > 0}
    gone_s = _goodbyes(runs, found, now_ms)
    awaited = {name for name, (status, _) in found.items() if is_awaited(status.known_state, gone_s.get(name), lease_s)}
    members = {
        name: client_of(status, state, is_there=bool(alive) or name in awaited, is_quarantined=name in shut)
        for name, (status, alive) in found.items()
        if (state := status.known_state) is not None
    }
    updates = runs.updates(view.round, round_.expected) if round_ else {}
    standing = standings(round_, updates, members) if round_ else {}
    pulses = {} if view.state.ended else runs.pulses(name for name, (_, alive) in found.items() if alive)
    is_served = bool(_exists(runs, runs.keys.coordinator))
    clients = {
        name: _client(
            view,
            name,
            status,
            members[name].reason if name in members else "",
            pulses.get(name, Pulse()),
            now_ms,
            updates.get(name),
            standing.get(name),
            is_alive=bool(alive),
            is_shut=name in shut,
            is_awaited=not alive and name in awaited,
            seen_s=gone_s.get(name) if name not in left_ms else max(0.0, lease_s - left_ms[name] / 1000),
        )
        for name, (status, alive) in found.items()
    }
    every = with_absent(found, members)
    return Snapshot(
        run=view,
        round=round_,
        config=config,
        now_ms=now_ms,
        clients=clients,
        waits_for=wait_of(runs, view, round_, standing, every, now_ms, is_served=is_served),
        is_served=is_served,
        absence=_absence(view, round_, standing, jobs(config) if jobs is not None else None),
        ending=(runs.how_it_ended() or view.reason) if view.state.ended else "",
    )


def _exists(runs: RunStore, key: str) -> int:
    with translated(runs.where):
        return int(runs.redis.exists(key))


def _client(
    run: RunView,
    name: str,
    status: ClientStatus,
    words: str,
    pulse: Pulse,
    now_ms: int,
    handed_in: Update | Refused | None,
    standing: tuple[Standing, str] | None,
    *,
    is_alive: bool,
    is_shut: bool,
    is_awaited: bool,
    seen_s: float | None,
) -> ClientSnapshot:
    where, why = standing or (None, "")
    state = status.known_state
    refused = handed_in if isinstance(handed_in, Refused) else Refused("")
    reason = words or (why if where is Standing.REFUSED else "")
    if is_shut:
        reason = f"too many refused updates in a row (`flavor pardon {run.run} {shlex.quote(name)}` ends that)"
    phase = _phase(
        state,
        where,
        is_alive=is_alive,
        is_shut=is_shut,
        is_awaited=is_awaited,
        has_ended=run.state.ended,
    )
    transfer = status.transfer if is_alive else None
    fits = _FITS.get(phase, frozenset())
    return ClientSnapshot(
        state=Phase.QUARANTINED.value if is_shut else state.value if state is not None else "unknown",
        is_alive=is_alive,
        phase=phase,
        host=status.host,
        standing=where,
        is_awaited=is_awaited,
        seen_s=seen_s,
        progress=progress_of(pulse, transfer, fits=fits, round_=run.round, now_ms=now_ms, begun_ms=run.created_ms),
        failure=status.failure or refused.failure or None,
        report=status.report or refused.report or None,
        update_bytes=handed_in.object.size_bytes if isinstance(handed_in, Update) else None,
        reason=reason,
    )


_BY_STATE = {
    ClientState.REVOKED: Phase.REVOKED,
    ClientState.FAILED: Phase.FAILED,
    ClientState.LEFT: Phase.LEFT,
}
_BY_STANDING = {
    Standing.ACCEPTED: Phase.DONE,
    Standing.REFUSED: Phase.REFUSED,
    Standing.SUBMITTED: Phase.UPLOADED,
}
_FITS = {
    Phase.STARTING: frozenset({Doing.STARTING}),
    Phase.WAITING: frozenset({Doing.WAITING, Doing.UPLOADED, Doing.INSPECTED}),
    Phase.TRAINING: frozenset({Doing.DOWNLOADING, Doing.TRAINING, Doing.UPLOADING}),
    Phase.UPLOADED: frozenset({Doing.UPLOADED}),
}
"""What the edge of a client may say that it is doing, by the client's phase."""


def _phase(
    state: ClientState | None,
    standing: Standing | None,
    *,
    is_alive: bool,
    is_shut: bool,
    is_awaited: bool,
    has_ended: bool,
) -> Phase:
    """What a client is doing, in a word."""
    if is_shut:
        return Phase.QUARANTINED
    if state in (ClientState.REVOKED, ClientState.FAILED):
        return _BY_STATE[state]
    if not has_ended and not is_alive:  # even if it has handed in, it sends nothing more
        return Phase.LEFT if state is ClientState.LEFT else Phase.STOPPED if is_awaited else Phase.GONE
    if standing in _BY_STANDING:
        return _BY_STANDING[standing]
    if state is ClientState.LEFT:
        return Phase.LEFT
    if has_ended:
        return Phase.OVER
    if state is ClientState.JOINED:
        return Phase.STARTING
    return Phase.WAITING if standing is None else Phase.TRAINING


def _absence(
    view: RunView,
    round_: RoundView | None,
    standing: Mapping[str, tuple[Standing, str]],
    jobs: JobQueue | None,
) -> str:
    """Why no aggregator does the work that there is; '' where one does it, or there is none."""
    if view.state.ended or jobs is None:
        return ""
    is_uninspected = any(state is Standing.SUBMITTED for state, _ in standing.values())
    is_unclaimed = round_ is not None and round_.state is RoundState.AGGREGATING and round_.lease_ms is None
    return jobs.absence() if (is_uninspected or is_unclaimed) and not jobs.workers() else ""


_GOODBYES = {
    ClientState.STOPPED: ClientStopped.name,
    ClientState.FAILED: ClientLost.name,
    ClientState.LEFT: ClientLeft.name,
}
_LOOKED_BACK = 500
"""How many entries of the log are searched for the time when a client gave its lease back."""


def _goodbyes(runs: RunStore, clients: Mapping[str, tuple[ClientStatus, int]], now_ms: int) -> dict[str, float]:
    """Return how many seconds ago each client gave its lease back, without clients that crashed."""
    sought = {
        name: event
        for name, (status, alive) in clients.items()
        if not alive and (state := status.known_state) and (event := _GOODBYES.get(state))
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
