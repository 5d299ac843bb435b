"""What to do with a round, decided from plain values: no network, no clock, no state.

Each decision returns its reason in words; the reason goes into the run's log, so that "why is this round still open?"
always has an answer.
"""

from __future__ import annotations

import math
import random
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from flavor.bus.state import ClientState, RoundView
from flavor.config import RunConfig


class Standing(StrEnum):
    """Where an expected client's update is."""

    PENDING = "pending"
    """Training."""
    SUBMITTED = "submitted"
    """Handed in, not inspected yet."""
    ACCEPTED = "accepted"
    REFUSED = "refused"
    LEFT = "left"
    """Its trainer was done before this round."""
    GONE = "gone"
    """Its edge or trainer has failed without handing in."""


class Action(StrEnum):
    """What the coordinator does next."""

    WAIT = "wait"
    HOLD = "hold"
    """Wait, although it cannot go on as it is: worth saying."""
    OPEN = "open"
    AGGREGATE = "aggregate"
    REOPEN = "reopen"
    RETRY = "retry"
    REQUEUE = "requeue"
    FINISH = "finish"
    FAIL = "fail"


@dataclass(frozen=True)
class Client:
    """A member as the coordinator sees it."""

    state: ClientState
    alive: bool
    reason: str = ""
    quarantined: bool = False
    """Too many of its updates in a row were refused: it is given no more tasks."""

    @property
    def gone(self) -> bool:
        """Whether nothing will come from it unless it is started again."""
        return self.state.gone or not self.alive

    @property
    def ready(self) -> bool:
        """Whether it can be given a task."""
        return self.alive and self.state is ClientState.READY and not self.quarantined

    @property
    def why_gone(self) -> str:
        """Why nothing will come."""
        if self.state.gone or self.alive:
            return self.reason if self.state.gone else "it is quarantined"
        return "its heartbeat stopped"


def next_round(
    run: str, closed: int, clients: Mapping[str, Client], config: RunConfig, *, rebuilt: bool = False
) -> tuple[Action, str, tuple[str, ...]]:
    """Between two rounds: open the next one (and for whom), wait, finish or fail.

    `closed` is the number of the newest closed round. A run that was `rebuilt` from the store since then waits for its
    clients as it did at its beginning. The sample of a round depends on the seed, the run's name and
    the round alone, so a coordinator that takes over draws the same one.
    """
    if closed >= config.rounds:
        return Action.FINISH, f"all {config.rounds} rounds are closed", ()
    ready = sorted(name for name, client in clients.items() if client.ready)
    first = closed == 0 or rebuilt
    wanted = config.min_clients if first else config.needed
    if len(ready) >= wanted:
        expected = sample(run, closed + 1, ready, config)
        which = "all" if len(expected) == len(ready) else f"{len(expected)} sampled"
        return Action.OPEN, f"{len(ready)} clients ready, {which} expected", expected
    present = [name for name, client in clients.items() if not (client.gone or client.quarantined)]
    left = [name for name, client in clients.items() if client.state is ClientState.LEFT]
    if not first and len(present) < wanted and (config.on_quorum_lost == "fail" or len(present) + len(left) >= wanted):
        lost = {
            name: client.why_gone
            for name, client in clients.items()
            if (client.gone or client.quarantined) and name not in left
        }
        if len(present) + len(left) >= wanted:
            return (
                Action.FINISH,
                f"finished early, after round {closed} of {config.rounds}: {len(left)} trainers are done, and the "
                f"{len(present)} that remain are fewer than the {wanted} a round needs",
                (),
            )
        return Action.FAIL, f"{wanted} clients are needed and {len(present)} remain; {_listed(lost)}", ()
    reason = f"{len(ready)} of at least {wanted} clients are ready"
    failed = {name: client.why_gone for name, client in clients.items() if client.gone or client.quarantined}
    return Action.WAIT, f"{reason}; {_listed(failed)}" if failed else reason, ()


def sample(run: str, round_: int, ready: Sequence[str], config: RunConfig) -> tuple[str, ...]:
    """The clients of a round: a share `fraction` of the ready ones, never fewer than a round needs, sorted."""
    size = min(len(ready), max(config.needed, math.ceil(config.fraction * len(ready))))
    if size == len(ready):
        return tuple(sorted(ready))
    draw = random.Random(f"{config.seed}/{run}/{round_}")
    return tuple(sorted(draw.sample(sorted(ready), size)))


def standings(
    round_: RoundView, submitted: Container[str], clients: Mapping[str, Client]
) -> dict[str, tuple[Standing, str]]:
    """Each expected client's standing in a round, and why where it is refused or gone."""
    found: dict[str, tuple[Standing, str]] = {}
    for name in round_.expected:
        verdict, client = round_.verdicts.get(name), clients.get(name)
        if verdict is not None:
            found[name] = (Standing.ACCEPTED if verdict.accepted else Standing.REFUSED, verdict.reason)
        elif name in submitted:
            found[name] = (Standing.SUBMITTED, "")
        elif client is not None and client.gone:
            left = client.state is ClientState.LEFT
            found[name] = (Standing.LEFT if left else Standing.GONE, client.why_gone)
        else:
            found[name] = (Standing.PENDING, "")
    return found


def close_round(
    now_ms: int, round_: RoundView, standings: Mapping[str, tuple[Standing, str]], config: RunConfig
) -> tuple[Action, str]:
    """In an open round: wait, aggregate, finish (its clients were leaving as it opened), open it again or fail.

    `standings` gives each expected client's standing and, where it is refused or gone, why. What becomes of a round
    that cannot get enough updates, or did not by its deadline, is the run's `on_quorum_lost`.
    """
    by: dict[Standing, list[str]] = {standing: [] for standing in Standing}
    for client in round_.expected:
        by[standings[client][0]].append(client)
    accepted, open_ = len(by[Standing.ACCEPTED]), len(by[Standing.PENDING]) + len(by[Standing.SUBMITTED])
    needed, total = config.needed_of(len(round_.expected)), len(round_.expected)
    lost = {name: standings[name][1] for name in (*by[Standing.REFUSED], *by[Standing.LEFT], *by[Standing.GONE])}
    tail = f"; without {_listed(lost)}" if lost else ""
    if accepted + open_ < needed:
        if round_.round > 1 and accepted + open_ + len(by[Standing.LEFT]) >= needed:
            return Action.FINISH, (
                f"finished early, after round {round_.round - 1} of {config.rounds}: {len(by[Standing.LEFT])} trainers "
                f"are done, and the {accepted + open_} that remain are fewer than the {needed} a round needs"
            )
        may_return = len(by[Standing.GONE])
        return _quorum_lost(
            f"{needed} updates are needed and {accepted + open_} can come; {_listed(lost)}",
            round_,
            config,
            hopeless=accepted + open_ + may_return < needed,
        )
    if not open_:
        return Action.AGGREGATE, f"{accepted} of {total} updates accepted{tail}"
    if now_ms < round_.deadline_ms:
        waiting = by[Standing.PENDING] + by[Standing.SUBMITTED]
        left_s = (round_.deadline_ms - now_ms) / 1000
        return (
            Action.WAIT,
            f"{accepted} of {total} updates accepted, waiting for {_some(waiting)} ({left_s:.0f} s left){tail}",
        )
    if by[Standing.SUBMITTED]:
        return (
            Action.WAIT,
            f"deadline passed, {_some(by[Standing.SUBMITTED])} handed in and being inspected{tail}",
        )
    if accepted >= needed:
        return Action.AGGREGATE, (
            f"deadline passed with {accepted} of {total} updates, {needed} needed; "
            f"late: {_some(by[Standing.PENDING])}{tail}"
        )
    return _quorum_lost(
        f"the deadline passed with {accepted} of {needed} needed updates; late: {_some(by[Standing.PENDING])}{tail}",
        round_,
        config,
    )


def _quorum_lost(reason: str, round_: RoundView, config: RunConfig, *, hopeless: bool = False) -> tuple[Action, str]:
    """What to do then. A round is `hopeless` when even the return of all its clients would not be enough."""
    if config.on_quorum_lost == "wait" and not hopeless:
        return Action.HOLD, f"{reason}; waiting for clients to come back"
    if config.on_quorum_lost == "retry":
        if round_.openings < config.round_attempts:
            return Action.REOPEN, reason
        return Action.FAIL, f"round {round_.round}: {reason}; it was opened {round_.openings} times"
    return Action.FAIL, f"round {round_.round}: {reason}"


def reopened(
    round_: RoundView,
    standings: Mapping[str, tuple[Standing, str]],
    clients: Mapping[str, Client],
    config: RunConfig,
) -> tuple[Action, str, tuple[str, ...]]:
    """A round that lost its quorum: for whom to open it again, or hold it until enough are there.

    Accepted updates stand. Clients that still train go on; those that are ready, whether they were in the round before
    or not, are given its task; those that were refused are left out.
    """
    refused = {name for name, (standing, _) in standings.items() if standing is Standing.REFUSED}
    kept = {name for name, (standing, _) in standings.items() if standing in (Standing.ACCEPTED, Standing.SUBMITTED)}
    ready = {name for name, client in clients.items() if client.ready}
    expected = tuple(sorted((kept | ready) - refused))
    needed = config.needed
    if len(expected) < needed:
        return Action.HOLD, f"{len(expected)} of the {needed} clients that a round needs are ready", ()
    times = f"opening {round_.openings + 1} of {config.round_attempts}"
    return Action.REOPEN, f"{times}: {len(expected)} clients, {len(kept)} of which have handed in", expected


def supervise(
    now_ms: int, round_: RoundView, *, enqueued_ms: int, workers: int | None, config: RunConfig
) -> tuple[Action, str]:
    """In an aggregating round: wait, start another attempt, put the same one into the queue again, or fail.

    `workers` is the number of aggregators on the queue, or None when it was not counted.
    """
    lease_ms = config.aggregation_lease_s * 1000
    problem = None
    if round_.error is not None:
        problem = round_.error
    elif round_.lease_ms is not None and now_ms > round_.lease_ms:
        problem = "its aggregator stopped without a word"
    if problem is not None and round_.spoiled:
        left = len(round_.contributors) - len(round_.spoiled)
        needed = config.needed_of(len(round_.expected))
        if left < needed:
            return Action.FAIL, f"round {round_.round}: {needed} updates are needed and {left} are left: {problem}"
        return Action.RETRY, f"without {_some(round_.spoiled)}, because: {problem}"
    if problem is not None:
        if round_.attempt >= config.aggregation_attempts:
            return (
                Action.FAIL,
                f"round {round_.round}: attempt {round_.attempt} of {config.aggregation_attempts}: {problem}",
            )
        return (
            Action.RETRY,
            f"attempt {round_.attempt + 1} of {config.aggregation_attempts}, because: {problem}",
        )
    if round_.lease_ms is None and now_ms - enqueued_ms > lease_ms:
        if workers == 0:
            return (
                Action.WAIT,
                f"no aggregator listens on queue {config.queue!r}: start one with `flavor-agg`",
            )
        return Action.REQUEUE, "no aggregator has taken it yet"
    return Action.WAIT, "being aggregated" if round_.lease_ms is not None else "waiting for an aggregator"


def _listed(reasons: Mapping[str, str]) -> str:
    if not reasons:
        return "no client was lost"
    return "; ".join(f"{name}: {reason}" for name, reason in sorted(reasons.items()))


def _some(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(sorted(names)[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
