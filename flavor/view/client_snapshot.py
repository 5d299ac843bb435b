"""One client of a run at one moment: what it is doing, and why."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from flavor.counted import counted
from flavor.policy.standing import ENDED_WITH_RUN, TRAINS_NOT, Client, Standing, client_of
from flavor.policy.told_tasks import MOST_OUTDATED
from flavor.records.client import ClientStatus
from flavor.records.moved import Moved
from flavor.records.pulse import Doing, Pulse
from flavor.records.remarks import sentence
from flavor.records.states import ClientState
from flavor.records.update import Refused, Update
from flavor.view.progress import Progress, progress_of


class Phase(StrEnum):
    """What a client is doing, in the word that people read."""

    STARTING = "starting"
    """Its trainer is not ready yet."""
    WAITING = "waiting"
    """It has no task in the current round."""
    TRAINING = "training"
    JUDGING = "judging"
    """Its evaluator judges a global model."""
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


ATTENTION = (Phase.FAILED, Phase.QUARANTINED, Phase.REFUSED, Phase.GONE, Phase.STOPPED)
"""Phases of clients that need somebody's attention, most urgent first."""
URGENCY = (
    *ATTENTION,
    *(Phase.STARTING, Phase.TRAINING, Phase.JUDGING, Phase.UPLOADED, Phase.WAITING),
    *(Phase.DONE, Phase.LEFT, Phase.REVOKED, Phase.OVER),
)
"""All phases in the order in which tables show clients, and metrics choose them: those that need attention first."""


@dataclass(frozen=True)
class ClientSnapshot:
    """One client of a run."""

    state: str
    """The state that its edge reports; "quarantined" for a quarantined client."""
    is_alive: bool | None
    """Whether its edge holds its lease; None where a lease may be missing only because it could not be renewed."""
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
    version: str = ""
    """The versions of flavor and Python and the system that its edge runs on, as it says; '' where it does not say."""
    moved: Moved = field(default_factory=Moved)
    """What its edge has moved since it joined the run, as it says."""
    task_round: int | None = None
    """The earlier round whose task it does or has done, in an asynchronous run; None for a task of this round."""
    staleness: str = ""
    """The same in words: from which model it trains, and how many rounds ago that was the newest. Also how many of its
    last tasks were given up as too old, where these are several. '' where nothing is to be said."""
    warning: str = ""
    """What its edge has warned the site's user of, in sentences; '' for nothing."""


class Known(NamedTuple):
    """All that a `ClientSnapshot` is made of."""

    run: str
    name: str
    round: int
    task_round: int
    """The round whose task it does: an earlier one where it goes on with a task of an asynchronous run."""
    begun_ms: int
    """When the run began."""
    has_ended: bool
    status: ClientStatus
    pulse: Pulse
    member: Client | None
    """None for a client in a state that this release does not know."""
    handed_in: Update | Refused | None
    standing: tuple[Standing, str] | None
    refused: int
    is_alive: bool | None
    is_shut: bool
    is_awaited: bool
    seen_ms: int | None
    outdated: int = 0
    """How many of its tasks in a row were given up as too old, in an asynchronous run."""
    judges: bool = False
    """Whether an open evaluation awaits its result."""
    lost: str = ""
    """Why it was lost before the run ended, by the log; '' where it was not, or the run goes on."""


class ClientMemory:
    """Makes what is shown of clients, and makes it again only of those that have changed."""

    def __init__(self) -> None:
        self._members: dict[str, tuple[ClientStatus, tuple[bool, bool, int], Client | None]] = {}
        self._made: dict[str, tuple[Known, ClientSnapshot]] = {}

    def member(
        self, name: str, status: ClientStatus, *, is_there: bool, is_shut: bool, resumed_ms: int
    ) -> Client | None:
        """Return the client as the policy sees it; None in a state that this release does not know."""
        made, made_of = self._members.get(name), (is_there, is_shut, resumed_ms)
        if made is not None and made[0] is status and made[1] == made_of:
            return made[2]
        state, client = status.known_state, None
        if state is not None:
            client = client_of(status, state, is_there=is_there, is_quarantined=is_shut, resumed_ms=resumed_ms)
        self._members[name] = status, made_of, client
        return client

    def snapshot(self, known: Known) -> ClientSnapshot:
        """Return what is shown of a client."""
        made = self._made.get(known.name)
        if made is not None and made[0] == known:
            return made[1]
        self._made[known.name] = known, (snapshot := _client(known))
        return snapshot

    def forget(self, but: Iterable[str]) -> None:
        """Forget all clients but these."""
        kept = set(but)
        for name in self._members.keys() - kept:
            del self._members[name]
            self._made.pop(name, None)


def _words_of(member: Client | None) -> str:
    """Say why a client is in its state; '' where nothing is to be said."""
    if member is None:
        return ""
    if member.reason or member.gone:
        return member.reason or (ENDED_WITH_RUN if member.ended_with_run and not member.state.gone else "")
    return "" if member.trains else TRAINS_NOT


def _client(known: Known) -> ClientSnapshot:
    status, pulse = known.status, known.pulse
    where, why = known.standing or (None, "")
    state = status.known_state
    failed = known.handed_in if isinstance(known.handed_in, Refused) else Refused("")
    reason = _words_of(known.member) or (why if where is Standing.REFUSED else "")
    if known.is_shut:
        pardon = f"`flavor pardon {known.run} {shlex.quote(known.name)}` ends that"
        reason = f"{pardon}: too many refused updates in a row"  # what to do first: a table cuts the end
    phase = _phase(known, state, where)
    reason = known.lost or reason if phase is Phase.GONE else reason
    is_stale = known.task_round < known.round and phase in _WITH_TASK
    transfer = status.transfer if known.is_alive is not False else None
    fits = _FITS.get(phase, frozenset())
    return ClientSnapshot(
        state=Phase.QUARANTINED.value if known.is_shut else state.value if state is not None else "unknown",
        is_alive=known.is_alive,
        phase=phase,
        host=status.host,
        standing=where,
        is_awaited=known.is_awaited,
        seen_ms=known.seen_ms,
        progress=progress_of(pulse, transfer, fits=fits, round_=known.task_round, begun_ms=known.begun_ms),
        failure=status.failure or failed.failure or None,
        report=status.report or failed.report or None,
        update_bytes=(known.handed_in.object.size_bytes or None) if isinstance(known.handed_in, Update) else None,
        reason=reason,
        refused_in_a_row=known.refused,
        version=status.version,
        moved=pulse.moved,
        task_round=known.task_round if is_stale else None,
        staleness=_staleness(known, phase, is_stale=is_stale),
        warning="; ".join(map(sentence, status.remarks)),
    )


_WITH_TASK = (Phase.TRAINING, Phase.UPLOADED, Phase.DONE)


def _staleness(known: Known, phase: Phase, *, is_stale: bool) -> str:
    """Say from which model a client trains, or has trained: `trained from the model of round 3, 2 rounds ago`.

    First how many of its tasks were given up, if that are several and it has handed in nothing since.
    """
    parts = []
    if known.outdated >= MOST_OUTDATED and phase is Phase.TRAINING:
        parts.append(f"its last {known.outdated} tasks were given up as too old")
    if is_stale:
        parts.append(_trains_from(known, phase))
    return "; ".join(parts)


def _trains_from(known: Known, phase: Phase) -> str:
    base, verb = known.task_round - 1, "trains" if phase is Phase.TRAINING else "trained"
    model = f"the model of round {base}" if base else "the initial model"
    return f"{verb} from {model}, {counted(known.round - known.task_round, 'round')} ago"


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
    Phase.JUDGING: frozenset({Doing.EVALUATING}),
}
"""What the edge of a client may say that it is doing, by the client's phase."""


def _phase(known: Known, state: ClientState | None, standing: Standing | None) -> Phase:
    """What a client is doing, in a word."""
    if known.is_shut:
        return Phase.QUARANTINED
    if state in (ClientState.REVOKED, ClientState.FAILED):
        return _BY_STATE[state]
    if known.lost or (
        not known.has_ended and known.is_alive is False
    ):  # even if it has handed in, it sends nothing more
        return Phase.LEFT if state is ClientState.LEFT else Phase.STOPPED if known.is_awaited else Phase.GONE
    is_judging = known.judges and known.pulse.doing is Doing.EVALUATING and standing is not Standing.REFUSED
    if is_judging or standing in _BY_STANDING:
        return Phase.JUDGING if is_judging or standing is None else _BY_STANDING[standing]
    if state is ClientState.LEFT:
        return Phase.LEFT
    if known.has_ended:
        return Phase.OVER
    if state is ClientState.JOINED:
        return Phase.STARTING
    return Phase.WAITING if standing is None else Phase.TRAINING
