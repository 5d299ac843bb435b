"""Works out where each client of a run stands, in the run and in one of its rounds, from plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from flavor.printable import quoted
from flavor.records.client import ClientStatus, Role
from flavor.records.round import RoundView
from flavor.records.states import ClientState
from flavor.records.update import Refused, Update

LONGEST = 3000
"""Maximum length of a client's own words in the log and on terminals, in characters."""
TRAINS_NOT = "it judges models, and trains none"
ENDED_WITH_RUN = "it ended with the run, and has not come back yet"


class Standing(StrEnum):
    """Where a client that is expected in a round stands in it."""

    PENDING = "pending"
    """It trains, or is about to hand in again an update that Redis has lost."""
    SUBMITTED = "submitted"
    """Its update is handed in, and not inspected yet."""
    ACCEPTED = "accepted"
    REFUSED = "refused"
    """Its update was refused. It may hand in another one as long as the round is open."""
    SHUT = "shut out"
    """It is quarantined: none of its updates counts until an operator pardons it."""
    REVOKED = "revoked"
    """It is cut off: it can hand in nothing until an operator enrolls it again."""
    LEFT = "left"
    """Its trainer had ended before this round."""
    GONE = "gone"
    """Its edge or trainer has failed before it handed in an update."""


@dataclass(frozen=True)
class Client:
    """A member as the coordinator sees it."""

    state: ClientState
    alive: bool
    reason: str = ""
    quarantined: bool = False
    """Whether too many of its updates in a row were refused, so that it gets no tasks and no update of it counts."""
    behind: int = 0
    """The newest round that its edge has completed, as the edge says."""
    is_admitted: bool = True
    """Whether its edge may take part; `reason` says why not."""
    ended_with_run: bool = False
    """Whether its edge, as far as its own account shows, has not come back since the run was resumed."""
    awaits_store: bool = False
    """Whether it cannot go on before it can use the object store, as its edge says."""

    allows_cross: bool = False
    """Whether its site lets other sites judge its updates, as its edge says."""
    evaluates: bool = False
    """Whether its site has a command that judges models, as its edge says."""
    trains: bool = True
    """Whether it takes part in rounds; a site of `flavor-fv` only judges models."""

    @property
    def gone(self) -> bool:
        """Whether no update will come from it unless it is started again."""
        return self.state.gone or not self.alive

    @property
    def comes(self) -> bool:
        """Whether an update may come from it."""
        return self.trains and not self.gone

    @property
    def ready(self) -> bool:
        """Whether it can get a task of a round."""
        return self.trains and self.alive and self.state is ClientState.READY and not self.quarantined

    @property
    def may_evaluate(self) -> bool:
        """Whether it can judge a model now, also after its trainer has ended by itself."""
        return self._judges and self.state in (ClientState.READY, ClientState.LEFT)

    @property
    def judges_soon(self) -> bool:
        """Whether it can judge a model as soon as its trainer is ready."""
        return self._judges and self.state is ClientState.JOINED

    @property
    def _judges(self) -> bool:
        return self.evaluates and self.alive and self.is_admitted and not self.quarantined

    @property
    def shut_out(self) -> bool:
        """Whether it is quarantined, and an operator can let it in again by a pardon."""
        return self.quarantined and self.state is not ClientState.REVOKED

    def hands_in_again(self, round_: int) -> bool:
        """Return whether it hands in this round's update again if Redis has lost it, although its trainer has ended.

        An edge knows what it has handed in as long as it runs, and has no update of a round that it did not complete.
        """
        return self.alive and self.state is ClientState.LEFT and self.behind >= round_

    @property
    def why_gone(self) -> str:
        """Why no update will come from it."""
        if not (self.trains or self.state.gone) and self.alive:
            return TRAINS_NOT
        if self.state.gone or self.alive:
            return self.reason if self.state.gone else "it is quarantined"
        if self.state is ClientState.STOPPED:
            return self.reason
        return ENDED_WITH_RUN if self.ended_with_run else "its heartbeat stopped"

    @property
    def how_gone(self) -> str:
        """In which way it is gone, in a word that says nothing about the site."""
        if self.shut_out:
            return "quarantined"
        return self.state.value if self.state.gone else "away"


def client_of(
    status: ClientStatus, state: ClientState, *, is_there: bool, is_quarantined: bool, resumed_ms: int = 0
) -> Client:
    """Make a member from what its edge says of itself; `is_there` if its edge holds its lease, or is awaited.

    Its reason is the edge's own words, in quotation marks. `resumed_ms` is when the run was resumed last; 0 if it was
    not.
    """
    reason = "it was revoked" if state is ClientState.REVOKED else quoted(status.reason, most=LONGEST)
    ended_with_run = not is_there and 0 < status.told_ms < resumed_ms
    return Client(
        state,
        is_there,
        reason,
        is_quarantined,
        status.behind,
        ended_with_run=ended_with_run,
        awaits_store=status.awaits_store,
        evaluates=status.evaluates,
        allows_cross=status.allows_cross,
        trains=status.role is Role.TRAINER,
    )


def is_genuine(left_ms: int, lease_s: float) -> bool:
    """Return whether an edge that has renewed its lease can have `left_ms` milliseconds of it left.

    After a jump of the server's clock, a lease that no process renews may stay for hours. The lease time may have been
    another when an edge joined, so the limit is ten lease times. -1 is a lease without end.
    """
    return 0 < left_ms <= _MOST_LEASES * lease_s * 1000 or left_ms == -1


def is_awaited(state: ClientState | None, stopped_for_s: float | None, lease_s: float) -> bool:
    """Return whether a client without a lease counts as there: it was stopped by a signal less than a lease time ago.

    A client that crashed keeps its lease for that time, too, so that a planned restart of an edge costs no more than a
    crash. `stopped_for_s` is None where it is not known when the client was stopped.
    """
    return state is ClientState.STOPPED and stopped_for_s is not None and stopped_for_s < lease_s


def is_quarantined(refused: int, quarantine_after: int) -> bool:
    """Return whether a client is quarantined after its newest `refused` updates in a row were refused.

    No client is ever quarantined where `quarantine_after` is 0.
    """
    return 0 < quarantine_after <= refused


def with_absent(members: Iterable[str], clients: Mapping[str, Client]) -> dict[str, Client]:
    """Add the members that have not come back since the run was rebuilt, of which nothing else is known."""
    absent = Client(ClientState.STOPPED, alive=False, reason="it has not come back yet")
    return {**dict.fromkeys(members, absent), **clients}


def trainers(clients: Mapping[str, Client]) -> dict[str, Client]:
    """Return the clients that take part in rounds, without those that only judge models."""
    return {name: client for name, client in clients.items() if client.trains}


_MOST_LEASES = 10

_ENDINGS = {ClientState.LEFT: Standing.LEFT, ClientState.REVOKED: Standing.REVOKED}


def standings(
    round_: RoundView, updates: Mapping[str, Update | Refused], clients: Mapping[str, Client]
) -> dict[str, tuple[Standing, str]]:
    """Return the standing of each expected client in a round, and why it is refused or gone.

    `updates` are those that are in Redis now. A refused update may have been followed by another one, or removed by an
    edge that trains the round again.
    """
    found: dict[str, tuple[Standing, str]] = {}
    for name in round_.expected:
        verdict, client = round_.verdicts.get(name), clients.get(name)
        if verdict is not None and verdict.accepted:
            found[name] = (Standing.ACCEPTED, verdict.reason)
        elif client is not None and client.quarantined:  # none of its updates is inspected
            why = verdict.reason if verdict is not None else "too many of its updates in a row were refused"
            found[name] = (Standing.SHUT, why) if client.shut_out else (Standing.REVOKED, client.why_gone)
        elif client is not None and not client.is_admitted:
            found[name] = (Standing.GONE, client.why_gone)
        elif verdict is not None and name in updates and verdict.is_about(updates[name]):
            found[name] = (Standing.REFUSED, verdict.reason)
        elif name in updates:
            found[name] = (Standing.SUBMITTED, "")
        elif client is not None and not client.comes and not client.hands_in_again(round_.task_round(name)):
            how = _ENDINGS.get(client.state, Standing.GONE)
            if how is Standing.LEFT and round_.resumed:  # its trainer ended with the run
                how = Standing.GONE
            found[name] = (how, client.why_gone)
        else:
            found[name] = (Standing.PENDING, "")
    return found
