"""Decides what to do with a round: pure functions of plain values, without network, clock or state.

Each decision returns its reason in words. The coordinator writes the reason into the run's log, so that the log always
answers "why is this round still open?". A reason says nothing that changes while it holds, such as the time that is
left. No decision is taken on the text of a reason. The log is for the operator; when a run ends, every site can read
the `public` half of the reason, which counts sites and names none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from flavor.config import RunConfig
from flavor.counted import are, counted
from flavor.policy.advice import MENDED, Reason, finished_early, gist, listed, public, some, way_on
from flavor.policy.sampling import sample
from flavor.policy.standing import Client, Standing, trainers
from flavor.policy.told_tasks import train_on, with_tasks
from flavor.records.round import RoundView
from flavor.records.states import ClientState
from flavor.records.verdict import Verdict


class Action(StrEnum):
    """What the coordinator does next."""

    WAIT = "wait"
    HOLD = "hold"
    """Wait, although the round cannot go on as it is. The operator is told."""
    OPEN = "open"
    AGGREGATE = "aggregate"
    REOPEN = "reopen"
    RETRY = "retry"
    RETURN = "return"
    """Open a round again, because its aggregation found too few updates left."""
    REQUEUE = "requeue"
    EVALUATE = "evaluate"
    """Have the sites judge the newest global model."""
    MERGE = "merge"
    """Have an aggregator merge the results of an evaluation."""
    GIVE_UP = "give up"
    """End an evaluation without a result, and go on."""
    FINISH = "finish"
    FAIL = "fail"


@dataclass(frozen=True)
class Decision:
    """What a run does next, and why."""

    action: Action
    reason: str
    """Why, in words for the operator, without the number of the round. See `flavor.policy.advice.Reason`."""
    names: tuple[str, ...] = ()
    """The clients for which a round opens, or opens again; or those that judge a model."""
    round: int | None = None
    """The round that the decision is about; None between rounds."""
    is_usual: bool = False
    """Whether the run waits for what comes by itself, such as updates of clients that train."""
    is_long: bool = False
    """Whether a usual wait has lasted for so long that the operator is told of it."""
    since_ms: int | None = None
    """Since when the run waits, in milliseconds of the server's clock; None where the wait begins now."""
    missing: int = 0
    """How many more clients have to be ready before the next round can open."""
    is_met: bool = False
    """Whether a run that finishes has reached its goal, so that it does not end early."""
    postponed: Action | None = None
    """What the coordinator does unless clients come back in the time that they are given for that."""

    @property
    def waits(self) -> bool:
        """Whether the run waits."""
        return self.action in (Action.WAIT, Action.HOLD)

    @property
    def is_held(self) -> bool:
        """Whether the run waits, and cannot go on by itself."""
        return self.waits and not self.is_usual and self.postponed is None

    @property
    def of_run(self) -> str:
        """The reason with the number of the round that has failed, for a run that ends."""
        if self.action is not Action.FAIL or self.round is None:
            return self.reason
        where = f"round {self.round}: "
        return Reason(f"{where}{self.reason}", f"{where}{public(self.reason)}")

    def put_off(self) -> Decision:
        """Return the decision to hold for now, while clients are given time to come back."""
        return replace(self, action=Action.HOLD, names=(), postponed=self.action)


def next_round(
    run: str, closed: int, clients: Mapping[str, Client], config: RunConfig, *, anew: bool = False
) -> Decision:
    """Between two rounds: open the next one (and for whom), wait, finish or fail.

    `closed` is the number of the newest closed round. A run that begins `anew`, because it was rebuilt from the store
    or resumed since then, waits for its clients as at its beginning. The sample of a round depends only on the seed,
    the run's name and the round, so that a coordinator that takes over draws the same sample. Sites that only judge
    models count nowhere here.
    """
    clients = trainers(clients)
    if closed >= config.rounds:
        return Decision(Action.FINISH, all_closed(config.rounds))
    ready = sorted(name for name, client in clients.items() if client.ready)
    first = closed == 0 or anew
    wanted = config.min_clients if first else config.needed
    missing = wanted - len(ready)
    if missing <= 0:
        expected = sample(run, closed + 1, ready, config)
        if len(ready) == 1:
            return Decision(Action.OPEN, "1 client ready and expected", expected)
        which = "all" if len(expected) == len(ready) else f"{len(expected)} sampled"
        return Decision(Action.OPEN, f"{counted(len(ready), 'client')} ready, {which} expected", expected)
    present = [name for name, client in clients.items() if not (client.gone or client.quarantined)]
    left = [name for name, client in clients.items() if client.state is ClientState.LEFT]
    early = config.on_quorum_lost != "wait" and len(present) + len(left) >= wanted
    if not first and len(present) < wanted and (config.on_quorum_lost == "fail" or early):
        lost = {
            name: client for name, client in clients.items() if (client.gone or client.quarantined) and name not in left
        }
        if early:
            early_end = finished_early(closed, config.rounds, left, remain=len(present), needed=wanted)
            return Decision(Action.FINISH, early_end, missing=missing)
        remain = "1 remains" if len(present) == 1 else f"{len(present)} remain"
        short = f"{counted(wanted, 'client')} {are(wanted)} needed and {remain}"
        said, shut = _said_by_advice(clients), _shut(clients)
        why = {name: client.why_gone for name, client in lost.items() if name not in said}
        kinds = counted_kinds(client.how_gone for client in lost.values())
        advice = way_on(run, closed + 1, config, remain=len(present), shut=shut, ended=True)
        reasons = [listed(why)] if why or not shut else []
        why_failed = Reason("; ".join([short, *reasons, *advice]), f"{short}; {kinds}")
        return Decision(Action.FAIL, why_failed, missing=missing)
    reason = _ready(len(ready), wanted, f"at least {counted(wanted, 'client')}")
    preparing = [name for name, client in clients.items() if client.state is ClientState.JOINED and not client.gone]
    awaited = [f"{some(preparing)} to call SetEvent('TrainInitDone')"] if preparing else []
    if len(clients) < wanted:
        awaited.append(f"{counted(wanted - len(clients), 'more site')} to join" if clients else "the sites to join")
    if awaited:
        reason += f"; waiting for {' and for '.join(awaited)}"
    for line in way_on(run, closed + 1, config, remain=len(present), left=left, shut=_shut(clients)):
        reason += f"; {line}"
    failed = {
        name: client.why_gone
        for name, client in clients.items()
        if (client.gone or client.quarantined) and name not in (*left, *_said_by_advice(clients))
    }
    return Decision(Action.WAIT, f"{reason}; {listed(failed)}" if failed else reason, missing=missing)


def close_round(
    run: str,
    now_ms: int,
    round_: RoundView,
    standings: Mapping[str, tuple[Standing, str]],
    config: RunConfig,
    *,
    without_store: Collection[str] = (),
    is_served: bool = True,
    is_early: bool = False,
    slow: Collection[str] = (),
) -> Decision:
    """In an open round: wait, aggregate, finish (its clients were leaving as it opened), open it again or fail.

    A round that `is_early` closes as soon as it has the updates that it needs: the other clients train on.
    It waits for none of the `slow` clients once it has the updates that it needs: they train on, too.

    `standings` gives each expected client's standing and, where the client is refused or gone, why. `without_store` are
    the clients that wait for the object store. The round is held while it waits for such clients only. `is_served` says
    whether a coordinator is there, which has updates inspected. `on_quorum_lost` of the run decides about a round that
    cannot get enough updates, or has too few at its deadline. An update that is being inspected at the deadline has the
    time of an aggregator's lease, for each size; then the round goes on without it.
    """
    by: dict[Standing, list[str]] = {standing: [] for standing in Standing}
    for client in round_.expected:
        by[standings[client][0]].append(client)
    accepted, open_ = len(by[Standing.ACCEPTED]), len(by[Standing.PENDING]) + len(by[Standing.SUBMITTED])
    needed, total = config.needed_of(len(round_.expected)), len(round_.expected)
    if is_early and accepted >= needed:
        on = train_on(round_, [*by[Standing.PENDING], *by[Standing.SUBMITTED]])
        return Decision(Action.AGGREGATE, f"{accepted} of {counted(needed, 'needed update')} accepted{on}")
    missing = [name for kind in _LOST for name in by[kind]]
    lost = {name: gist(why) if kind in _JUDGED else why for name in missing for kind, why in [standings[name]]}
    kinds = [standings[name][0].value for name in missing]
    tail = f"; without {listed(lost)}" if lost else ""
    if accepted + open_ < needed:
        ended, remain, waits = by[Standing.LEFT], accepted + open_, config.on_quorum_lost == "wait"
        if round_.round > 1 and not waits and remain + len(ended) >= needed:
            return Decision(
                Action.FINISH, finished_early(round_.round - 1, config.rounds, ended, remain=remain, needed=needed)
            )
        short = f"{counted(needed, 'update')} {are(needed)} needed and {remain} can come"
        shut = {name: kind for kind in (Standing.SHUT, Standing.REVOKED) for name in by[kind]}
        unread = [name for name in by[Standing.REFUSED] if name in round_.unreadable]
        doubted = [name for name in by[Standing.REFUSED] if open_ and name in round_.untrained & round_.doubtful]
        untrained = [
            name for name in by[Standing.REFUSED] if name in round_.untrained and name not in (*unread, *doubted)
        ]
        advice = way_on(
            run,
            round_.round,
            config,
            remain=remain,
            of=total,
            left=ended if waits else (),
            refused=[name for name in by[Standing.REFUSED] if waits and name not in (*untrained, *unread)],
            untrained=untrained,
            doubted=() if waits else doubted,
            unread=unread,
            shut=shut,
            ended=not waits,
        )
        said = [*by[Standing.REVOKED], *(ended if waits else ())]
        lost = {name: why for name, why in lost.items() if name not in said}
        told = "; ".join([short, *advice, *([listed(lost)] if lost else [])])
        return _quorum_lost(
            Reason(told, f"{short}; {counted_kinds(kinds)}"),
            now_ms,
            round_,
            config,
            is_refused=missing == by[Standing.REFUSED],
            is_untrainable=remain + len(missing) - len(untrained) < needed,
            is_unreadable=remain + len(missing) - len(untrained) - len(unread) < needed,
        )
    pending, submitted = by[Standing.PENDING], by[Standing.SUBMITTED]
    left = [name for name in pending if name in slow] if accepted >= needed else []
    if open_ == len(left):
        on = train_on(round_, left)
        return Decision(Action.AGGREGATE, f"{accepted} of {counted(total, 'update')} accepted{on}{tail}")
    pending = [name for name in pending if name not in left]
    if now_ms < round_.deadline_ms:
        is_stuck = bool(pending) and not submitted and set(pending) <= set(without_store)
        pending, total = with_tasks(round_, pending), needed if is_early else total
        who = f"the object store, which {some(pending)} cannot use for now" if is_stuck else some(pending)
        why = [f"waiting for {who}"] if pending else []
        if submitted:
            inspects = "an aggregator to inspect" if is_served else "a coordinator, which has them inspected"
            why.append(f"{some(submitted)} handed in, waiting for {inspects}")
        missing_yet = "; ".join(why)
        action = Action.HOLD if is_stuck else Action.WAIT
        return Decision(action, f"{accepted} of {counted(total, 'update')} accepted, {missing_yet}{tail}")
    if submitted and now_ms < round_.deadline_ms + config.aggregation_lease_s * 1000:
        inspected = "and being inspected" if is_served else "and not inspected, as no coordinator has that done"
        return Decision(Action.WAIT, f"deadline passed, {some(submitted)} handed in {inspected}{tail}")
    late = f"; late: {some(by[Standing.PENDING])}" if by[Standing.PENDING] else ""
    late += f"; not inspected in time: {some(by[Standing.SUBMITTED])}" if by[Standing.SUBMITTED] else ""
    if accepted >= needed:
        closes = f"deadline passed with {accepted} of {counted(total, 'update')}, {needed} needed{late}{tail}"
        return Decision(Action.AGGREGATE, closes)
    short = f"the deadline passed with {accepted} of {counted(needed, 'needed update')}"
    kinds += ["late"] * len(by[Standing.PENDING]) + ["not inspected in time"] * len(by[Standing.SUBMITTED])
    reason = Reason(f"{short}{late}{tail}", f"{short}; {counted_kinds(kinds)}")
    all_in = not missing and not by[Standing.PENDING]
    awaited = "an aggregator to inspect what is handed in" if all_in else "clients to come back"
    longest_ms = round_.opened_ms + config.longest_round_s * 1000 if isinstance(config.round_timeout_s, str) else 0
    return _quorum_lost(reason, now_ms, round_, config, awaited=awaited, longest_ms=longest_ms)


def _quorum_lost(
    reason: Reason,
    now_ms: int,
    round_: RoundView,
    config: RunConfig,
    *,
    awaited: str = "clients to come back",
    longest_ms: float = 0,
    is_refused: bool = False,
    is_untrainable: bool = False,
    is_unreadable: bool = False,
) -> Decision:
    """Decide about a round that lacks its quorum, by `on_quorum_lost`.

    A round that was resumed waits until its deadline for the sites that ended with the run; also for a client that an
    operator can let in again, or resume the run without. `is_refused` says whether it lacks refused updates alone, and
    `is_untrainable` whether it lacks updates because its global model is to blame, and no other site can make up for
    them: then it is not opened again, and not waited for after a resume. `is_unreadable` says the same of a global
    model that the operator can put back into the store: unless the run fails, it is waited for.
    """
    if is_untrainable:
        return Decision(Action.HOLD if config.on_quorum_lost == "wait" else Action.FAIL, reason)
    if is_unreadable:
        return Decision(Action.FAIL if config.on_quorum_lost == "fail" else Action.HOLD, reason)
    if config.on_quorum_lost == "wait":
        return Decision(Action.HOLD, f"{reason}; waiting for {awaited}")
    times = ""
    if config.on_quorum_lost == "retry":
        if round_.openings < config.round_attempts:
            return Decision(Action.REOPEN, reason)
        times = f"; it was opened {counted(round_.openings, 'time')}"
    elif now_ms < longest_ms:
        return Decision(
            Action.HOLD, f"{reason}; no learned deadline fails a run: waiting until the longest one is over"
        )
    elif round_.resumed and now_ms < round_.deadline_ms:
        return Decision(Action.HOLD, f"{reason}; the run was resumed: waiting for {MENDED if is_refused else awaited}")
    return Decision(Action.FAIL, Reason(f"{reason}{times}", f"{reason.public}{times}"))


def agreed_structure(
    verdicts: Mapping[str, Verdict], *, open_: int, needed: int, closing: bool
) -> tuple[str, tuple[str, ...]] | None:
    """In a round that starts from no model: the client whose structure counts, and those whose updates have another.

    The structure that most accepted updates have counts; of two equally frequent ones, the structure of the client that
    comes first by name. Returns None while fewer than `needed` updates are accepted, or while the `open_` updates that
    may still come could change the result, unless the round is `closing`.
    """
    having: dict[str, list[str]] = {}
    for client, verdict in sorted(verdicts.items()):
        if verdict.accepted:
            having.setdefault(verdict.structure, []).append(client)
    ranked = sorted(having.values(), key=len, reverse=True)
    if not ranked or sum(map(len, ranked)) < needed:
        return None
    second = len(ranked[1]) if len(ranked) > 1 else 0
    if not closing and len(ranked[0]) <= second + open_:
        return None
    return ranked[0][0], tuple(sorted(client for others in ranked[1:] for client in others))


def reopened(
    round_: RoundView,
    standings: Mapping[str, tuple[Standing, str]],
    clients: Mapping[str, Client],
    config: RunConfig,
) -> Decision:
    """Decide about a round that lost its quorum: for which clients to open it again, or to wait until enough are ready.

    Accepted updates stay. Clients that still train go on. Clients that are ready get the task of the round, whether
    they were in the round before or not. Clients whose update was refused are left out, unless they train the round
    again.
    """
    out = (Standing.REFUSED, Standing.SHUT, Standing.REVOKED)
    refused = {name for name, (standing, _) in standings.items() if standing in out}
    kept = {name for name, (standing, _) in standings.items() if standing in (Standing.ACCEPTED, Standing.SUBMITTED)}
    ready = {name for name, client in clients.items() if client.ready}
    expected = tuple(sorted((kept | ready) - refused))
    needed = config.needed
    if len(expected) < needed:
        return Decision(
            Action.HOLD, _ready(len(expected), needed, f"the {counted(needed, 'client')} that a round needs")
        )
    times = f"opening {round_.openings + 1} of {config.round_attempts}"
    have = "1 has" if len(kept) == 1 else f"{len(kept)} have"
    return Decision(Action.REOPEN, f"{times}: {counted(len(expected), 'client')}, of which {have} handed in", expected)


_JUDGED = (Standing.REFUSED, Standing.SHUT)
_LOST = (Standing.REFUSED, Standing.SHUT, Standing.REVOKED, Standing.LEFT, Standing.GONE)


def _ready(number: int, wanted: int, of: str) -> str:
    """`0 of at least 1 client is ready`, `1 of at least 2 clients is ready`, `2 of at least 3 clients are ready`."""
    return f"{number} of {of} {are(1 if 1 in (number, wanted) else number)} ready"


def _shut(clients: Mapping[str, Client]) -> dict[str, Standing]:
    """The clients that only an operator can let in again: SHUT or REVOKED for each."""
    revoked = {name: Standing.REVOKED for name, client in clients.items() if client.state is ClientState.REVOKED}
    return {**{name: Standing.SHUT for name, client in clients.items() if client.shut_out}, **revoked}


def _said_by_advice(clients: Mapping[str, Client]) -> set[str]:
    """The clients of whom there is no more to say than the advice that lets them in again: revoked, or quarantined."""
    shut = _shut(clients)
    return {
        name
        for name, how in shut.items()
        if how is Standing.REVOKED or (clients[name].alive and not clients[name].state.gone)
    }


def counted_kinds(kinds: Iterable[str]) -> str:
    """Count how many clients were lost in which way: `2 refused, 1 gone`."""
    counts = Counter(kinds)
    return ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items())) or "no client was lost"


def all_closed(rounds: int) -> str:
    """Say why a run is finished: all its rounds are closed."""
    return "its only round is closed" if rounds == 1 else f"all {rounds} rounds are closed"
