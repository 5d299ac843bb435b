"""Where each client of a run stands, from plain values: in the run, and in one of its rounds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from flavor.records.names import count
from flavor.records.round import RoundView
from flavor.records.states import ClientState
from flavor.records.update import Refused, Update


class Standing(StrEnum):
    """Where an expected client's update is."""

    PENDING = "pending"
    """Training, or about to hand in again what Redis has forgotten."""
    SUBMITTED = "submitted"
    """Handed in, not inspected yet."""
    ACCEPTED = "accepted"
    REFUSED = "refused"
    """Its site may hand in another update, as long as the round is open."""
    SHUT = "shut out"
    """Quarantined: nothing of it counts until an operator pardons it."""
    REVOKED = "revoked"
    """Cut off: nothing comes from it until an operator enrolls it again."""
    LEFT = "left"
    """Its trainer was done before this round."""
    GONE = "gone"
    """Its edge or trainer has failed without handing in."""


@dataclass(frozen=True)
class Client:
    """A member as the coordinator sees it."""

    state: ClientState
    alive: bool
    reason: str = ""
    quarantined: bool = False
    """Too many of its updates in a row were refused: it is given no more tasks."""
    behind: int = 0
    """The newest round that its edge said it has behind it."""

    @property
    def gone(self) -> bool:
        """Whether nothing will come from it unless it is started again."""
        return self.state.gone or not self.alive

    @property
    def ready(self) -> bool:
        """Whether it can be given a task."""
        return self.alive and self.state is ClientState.READY and not self.quarantined

    def hands_in_again(self, round_: int) -> bool:
        """Whether this round's update, should Redis have forgotten it, comes again although the trainer is done.

        Its edge knows what it has handed in as long as it lives. It has nothing of a round that is not behind it.
        """
        return self.alive and self.state is ClientState.LEFT and self.behind >= round_

    @property
    def why_gone(self) -> str:
        """Why nothing will come."""
        if self.state.gone or self.alive:
            return self.reason if self.state.gone else "it is quarantined"
        return self.reason if self.state is ClientState.STOPPED else "its heartbeat stopped"

    @property
    def how_gone(self) -> str:
        """The same as a class, which says nothing about the site."""
        if self.quarantined and self.state is not ClientState.REVOKED:
            return "quarantined"
        return self.state.value if self.state.gone else "away"


def as_clients(hashes: Mapping[str, tuple[Mapping[str, str], bool]], shut: Collection[str]) -> dict[str, Client]:
    """The members of a run, from what they say of themselves and whether they live; those in `shut` are quarantined."""
    return {
        name: Client(
            ClientState(fields["state"]),
            alive,
            fields.get("reason", ""),
            quarantined=name in shut,
            behind=count(fields.get("round")) or 0,
        )
        for name, (fields, alive) in hashes.items()
        if fields.get("state") in tuple(ClientState)
    }


def with_absent(members: Iterable[str], clients: Mapping[str, Client]) -> dict[str, Client]:
    """The same with those members of whom nothing is known since the run was rebuilt: they have not come back yet."""
    absent = Client(ClientState.STOPPED, alive=False, reason="it has not come back yet")
    return {**dict.fromkeys(members, absent), **clients}


_ENDINGS = {ClientState.LEFT: Standing.LEFT, ClientState.REVOKED: Standing.REVOKED}


def standings(
    round_: RoundView, updates: Mapping[str, Update | Refused], clients: Mapping[str, Client]
) -> dict[str, tuple[Standing, str]]:
    """Each expected client's standing in a round, and why where it is refused or gone.

    `updates` are those that lie there now. One that was refused may have been followed by another, or taken back by an
    edge that trains the round again.
    """
    found: dict[str, tuple[Standing, str]] = {}
    for name in round_.expected:
        verdict, client = round_.verdicts.get(name), clients.get(name)
        if verdict is not None and not verdict.accepted and client is not None and client.how_gone == "quarantined":
            found[name] = (Standing.SHUT, verdict.reason)
        elif verdict is not None and (verdict.accepted or (name in updates and verdict.is_about(updates[name]))):
            found[name] = (Standing.ACCEPTED if verdict.accepted else Standing.REFUSED, verdict.reason)
        elif name in updates:
            found[name] = (Standing.SUBMITTED, "")
        elif client is not None and client.gone and not client.hands_in_again(round_.round):
            how = _ENDINGS.get(client.state, Standing.GONE)
            if how is Standing.LEFT and round_.resumed:  # its trainer ended with the run
                how = Standing.GONE
            found[name] = (how, client.why_gone)
        else:
            found[name] = (Standing.PENDING, "")
    return found
