"""A run at one moment: its round, its clients and the phase of each, and what the run waits for.

`take_snapshot` reads a run. `flavor status`, its `--json` and `--watch`, the live view of `flavor run` and the page of
`flavor ui` show a `Snapshot`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from flavor.bus.jobs import JobQueue
from flavor.bus.runs import ENDING_WITHIN, RunStore, ending_in
from flavor.config import RunConfig
from flavor.policy.standing import Standing, is_awaited, is_quarantined, standings, with_absent
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.states import ClientState, RoundState
from flavor.records.update import Refused, Update
from flavor.view.client_events import ClientJoined, ClientLeft, ClientLost, ClientStopped
from flavor.view.client_snapshot import ClientMemory, ClientSnapshot, Known, Phase
from flavor.view.evaluations import NONE, KnownEvaluations, judging
from flavor.view.facts import LOOKED_BACK, Facts, last_of, read_facts, time_of
from flavor.view.round_events import RunCreated, RunResumed
from flavor.view.server import refusal_of
from flavor.view.waiting import Wait, wait_of


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
    is_served: bool | None
    """Whether a coordinator has the run's lease; None where that is not known, see `Facts.is_blind`."""
    absence: str
    """Why no aggregator does the work that there is; '' while one does it, there is no work, or `jobs` was None."""
    ending: str
    """Why the run ended, in the words for the operator; '' while it goes on."""
    evaluations: KnownEvaluations = NONE
    refusal: str = ""
    """Why Redis takes no writes, so that the run stands still, and what to do; '' where it takes writes."""

    @property
    def needed(self) -> int:
        """How many accepted updates the round needs."""
        return self.config.needed_of(len(self.round.expected)) if self.round else 0

    @property
    def round_timeout_s(self) -> float:
        """The time from the opening of the round to its deadline; the longest time where there is no round."""
        if self.round is None or isinstance(self.config.round_timeout_s, float):
            return self.config.longest_round_s
        return max(0, self.round.deadline_ms - self.round.worked_from_ms) / 1000

    @property
    def closes_early(self) -> bool:
        """Whether the round closes with the first `needed` updates: see `flavor.policy.buffered`."""
        mode = self.config.buffered
        is_early = mode is not None and mode.buffer is not None
        return self.round is not None and is_early and self.run.global_model is not None

    @property
    def opened_until_ms(self) -> int:
        """The end of the time for which the newest round has been open: now, unless it is closed or the run over."""
        closed_ms = self.round.closed_ms if self.round else None
        return closed_ms or self.run.ended_ms or self.now_ms

    @property
    def accepted(self) -> int:
        """How many updates of the round are accepted."""
        return sum(verdict.accepted for verdict in self.round.verdicts.values()) if self.round else 0


def take_snapshot(
    runs: RunStore, *, jobs: Callable[[RunConfig], JobQueue] | None = None, refusal: str | None = None
) -> Snapshot:
    """Read a run as it is now. Raises `RunNotFound` and `BusUnavailable`.

    `jobs` opens the queue of a run with these settings, to see whether an aggregator listens; None does not look.
    `refusal` is why Redis takes no writes; None asks it.
    """
    facts = read_facts(runs)
    if not facts.run.state.ended:
        facts = replace(facts, refusal=refusal_of(runs.redis) if refusal is None else refusal)
    return snapshot_of(facts, jobs=jobs)


def snapshot_of(
    facts: Facts,
    *,
    jobs: Callable[[RunConfig], JobQueue] | None = None,
    memory: ClientMemory | None = None,
) -> Snapshot:
    """Make a snapshot of what was read. Reads nothing, unless `jobs` or the log in `facts` does.

    With the `memory` of an earlier snapshot of the same run, clients that have not changed are the same objects.
    """
    view, round_, config, now_ms = facts.run, facts.round, facts.config, facts.now_ms
    memory = memory or ClientMemory()
    lease_s, ended = config.heartbeat_timeout_s, view.state.ended
    shut = {name for name, refused in facts.refusals.items() if is_quarantined(refused, config.quarantine_after)}
    is_blind = facts.is_blind and not ended
    alive = {name for name, client in facts.clients.items() if client.is_alive(now_ms, lease_s)}
    gone_ms = _goodbyes(facts, alive)
    awaited = {
        name
        for name, at_ms in gone_ms.items()
        if is_awaited(facts.clients[name].status.known_state, _ago_s(at_ms, now_ms), lease_s)
    }
    unknown = _unknown(facts, alive) if is_blind else frozenset[str]()
    members = {
        name: member
        for name, client in facts.clients.items()
        if (
            member := memory.member(
                name,
                client.status,
                is_there=name in alive or name in awaited or name in unknown,
                is_shut=name in shut,
                resumed_ms=view.resumed_ms,
            )
        )
    }
    lost, judges = _lost(facts) if ended else {}, judging(facts.evaluations)
    handed_in = _handed_in(facts)
    standing = standings(round_, handed_in, members) if round_ else {}
    clients = {
        name: memory.snapshot(
            Known(
                run=view.run,
                name=name,
                round=view.round,
                task_round=round_.task_round(name) if round_ is not None else view.round,
                begun_ms=view.created_ms,
                has_ended=ended,
                status=client.status,
                pulse=client.pulse if name in alive and not ended else last_of(client.pulse),
                member=members.get(name),
                handed_in=handed_in.get(name),
                standing=standing.get(name),
                refused=facts.refusals.get(name, 0),
                is_alive=None if name in unknown else name in alive,
                is_shut=name in shut,
                is_awaited=name not in alive and name in awaited,
                seen_ms=client.seen_ms(lease_s) if name in alive else gone_ms.get(name),
                outdated=round_.outdated.get(name, 0) if round_ is not None else 0,
                judges=name in judges,
                lost=lost.get(name, ""),
            )
        )
        for name, client in facts.clients.items()
    }
    memory.forget(facts.clients)
    every = with_absent(facts.clients, members)
    is_served = facts.is_served or (None if is_blind else False)
    return Snapshot(
        run=view,
        round=round_,
        config=config,
        now_ms=now_ms,
        clients=clients,
        waits_for=wait_of(facts.log, view, round_, standing, every, now_ms, is_served=is_served is not False),
        is_served=is_served,
        absence=_absence(view, round_, standing, jobs(config) if jobs is not None and not is_blind else None),
        ending=(ending_in(itertools.islice(facts.log, ENDING_WITHIN)) or view.reason) if view.state.ended else "",
        evaluations=facts.evaluations,
        refusal="" if ended else facts.refusal,
    )


def _unknown(facts: Facts, alive: Collection[str]) -> frozenset[str]:
    """Return the clients whose leases may be missing only because they could not be renewed: none that has left."""
    return frozenset(
        name
        for name, client in facts.clients.items()
        if name not in alive and client.status.known_state not in (*_GOODBYES, ClientState.REVOKED)
    )


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


def _ago_s(time_ms: int, now_ms: int) -> float:
    return max(0.0, (now_ms - time_ms) / 1000)


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


__all__ = ["ClientSnapshot", "Phase", "Snapshot", "snapshot_of", "take_snapshot"]

_WHEREABOUTS = (ClientJoined.name, ClientLeft.name, ClientLost.name, ClientStopped.name)
"""Events of the log that say whether a client is there."""
_GOODBYES = {
    ClientState.STOPPED: ClientStopped.name,
    ClientState.FAILED: ClientLost.name,
    ClientState.LEFT: ClientLeft.name,
}


def _lost(facts: Facts) -> dict[str, str]:
    """Return why each client was lost that did not come back before the run ended, as far as the log has it.

    After the end all edges are gone: nothing else tells those that have ended with the run. The log does not have that
    a client came back, but its edge has told its state then.
    """
    found: dict[str, str] = {}
    seen = set[str]()
    for identity, fields in itertools.islice(facts.log, LOOKED_BACK):
        event, name = fields.get("event", ""), fields.get("client", "")
        if event in (RunCreated.name, RunResumed.name):
            break
        if name and name not in seen and event in _WHEREABOUTS:
            seen.add(name)
            is_back = name in facts.clients and facts.clients[name].status.told_ms > time_of(identity)
            if event == ClientLost.name and not is_back:
                found[name] = fields.get("reason", "") or "its edge was lost"
    return found


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
