"""A run at one moment: its round, its clients and the phase of each, and what the run waits for.

`take_snapshot` reads a run. `flavor status`, its `--json` and the live view of `flavor run` show a `Snapshot`, and a
page that shows runs is to do the same.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from flavor.bus.jobs import JobQueue
from flavor.bus.runs import ENDING_WITHIN, RunStore, ending_in
from flavor.config import RunConfig
from flavor.policy.standing import (
    ENDED_WITH_RUN,
    Client,
    Standing,
    client_of,
    is_awaited,
    is_quarantined,
    standings,
    with_absent,
)
from flavor.records.pulse import Doing
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.states import ClientState, RoundState
from flavor.records.update import Refused, Update
from flavor.view.client_events import ClientLeft, ClientLost, ClientStopped
from flavor.view.facts import LOOKED_BACK, NO_PULSE, ClientFacts, Facts, read_facts, time_of
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
    seen_ms: int | None
    """When its edge gave its last sign of life, by the server's clock; None where that is not known."""
    progress: Progress
    """How far it is in its phase, and since when, in the words of its edge and its script."""
    failure: str | None
    """The class of the failure of its trainer, or of an update that its edge refused; see `flavor.edge.notice`."""
    report: str | None
    """What the site shares about the failure."""
    update_bytes: int | None
    reason: str
    """Why the client is in this state, a site's own words in quotation marks; '' where nothing is to be said."""
    refused_in_a_row: int = 0
    """How many of its updates in a row were refused."""


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
    return snapshot_of(read_facts(runs), jobs=jobs)


def snapshot_of(facts: Facts, *, jobs: Callable[[RunConfig], JobQueue] | None = None) -> Snapshot:
    """Make a snapshot of what was read. Reads nothing, unless `jobs` or the log in `facts` does."""
    view, round_, config, now_ms = facts.run, facts.round, facts.config, facts.now_ms
    lease_s = config.heartbeat_timeout_s
    shut = {name for name, refused in facts.refusals.items() if is_quarantined(refused, config.quarantine_after)}
    alive = {name for name, client in facts.clients.items() if client.is_alive(now_ms, lease_s)}
    gone_ms = _goodbyes(facts, alive)
    awaited = {
        name
        for name, client in facts.clients.items()
        if is_awaited(client.status.known_state, _ago_s(gone_ms.get(name), now_ms), lease_s)
    }
    members = {
        name: client_of(
            client.status,
            state,
            is_there=name in alive or name in awaited,
            is_quarantined=name in shut,
            resumed_ms=view.resumed_ms,
        )
        for name, client in facts.clients.items()
        if (state := client.status.known_state) is not None
    }
    handed_in = _handed_in(facts)
    standing = standings(round_, handed_in, members) if round_ else {}
    clients = {
        name: _client(
            view,
            name,
            client,
            _words_of(members.get(name)),
            now_ms,
            handed_in.get(name),
            standing.get(name),
            refused=facts.refusals.get(name, 0),
            is_alive=name in alive,
            is_shut=name in shut,
            is_awaited=name not in alive and name in awaited,
            seen_ms=_seen_ms(client, lease_s) if name in alive else gone_ms.get(name),
        )
        for name, client in facts.clients.items()
    }
    every = with_absent(facts.clients, members)
    return Snapshot(
        run=view,
        round=round_,
        config=config,
        now_ms=now_ms,
        clients=clients,
        waits_for=wait_of(facts.log, view, round_, standing, every, now_ms, is_served=facts.is_served),
        is_served=facts.is_served,
        absence=_absence(view, round_, standing, jobs(config) if jobs is not None else None),
        ending=(ending_in(itertools.islice(facts.log, ENDING_WITHIN)) or view.reason) if view.state.ended else "",
    )


def _words_of(member: Client | None) -> str:
    """Say why a client is in its state; '' where nothing is to be said."""
    if member is None:
        return ""
    return member.reason or (ENDED_WITH_RUN if member.ended_with_run and not member.state.gone else "")


def _handed_in(facts: Facts) -> dict[str, Update | Refused]:
    """Return what the clients that are expected have handed in; an accepted update as it was inspected."""
    if facts.round is None:
        return {}
    waiting = {
        name: update
        for name in facts.round.expected
        if name in facts.clients and (update := facts.clients[name].update) is not None
    }
    return {**waiting, **facts.round.accepted}


def _seen_ms(client: ClientFacts, lease_s: float) -> int | None:
    """When the edge of a client that is there has renewed its lease last."""
    return client.lease_ms - int(lease_s * 1000) if client.lease_ms > 0 else None


def _ago_s(time_ms: int | None, now_ms: int) -> float | None:
    return None if time_ms is None else max(0.0, (now_ms - time_ms) / 1000)


def _client(
    run: RunView,
    name: str,
    client: ClientFacts,
    words: str,
    now_ms: int,
    handed_in: Update | Refused | None,
    standing: tuple[Standing, str] | None,
    *,
    refused: int,
    is_alive: bool,
    is_shut: bool,
    is_awaited: bool,
    seen_ms: int | None,
) -> ClientSnapshot:
    status, pulse = client.status, client.pulse if is_alive and not run.state.ended else NO_PULSE
    where, why = standing or (None, "")
    state = status.known_state
    failed = handed_in if isinstance(handed_in, Refused) else Refused("")
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
        seen_ms=seen_ms,
        progress=progress_of(pulse, transfer, fits=fits, round_=run.round, now_ms=now_ms, begun_ms=run.created_ms),
        failure=status.failure or failed.failure or None,
        report=status.report or failed.report or None,
        update_bytes=(handed_in.object.size_bytes or None) if isinstance(handed_in, Update) else None,
        reason=reason,
        refused_in_a_row=refused,
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


def _goodbyes(facts: Facts, alive: Collection[str]) -> dict[str, int]:
    """Return when each client gave its lease back, without clients that crashed."""
    sought = {
        name: event
        for name, client in facts.clients.items()
        if name not in alive and (state := client.status.known_state) and (event := _GOODBYES.get(state))
    }
    found: dict[str, int] = {}
    if sought:
        for identity, fields in itertools.islice(facts.log, LOOKED_BACK):
            name = fields.get("client", "")
            if name not in found and sought.get(name) == fields.get("event"):
                found[name] = min(facts.now_ms, time_of(identity))
    return found
