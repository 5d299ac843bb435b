"""The kinds of events about a client of a run, and about its updates."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from flavor.view.event import Event


@dataclass(frozen=True)
class ClientEvent(Event):
    """An event about one client; `round` is None for an event that belongs to no round."""

    client: str = ""
    round: int | None = None

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"{self.client}: {'' if self.round is None else f'round {self.round}: '}{self.reason}"


@dataclass(frozen=True)
class ClientJoined(ClientEvent):
    """The client has become a member of the run."""

    name = "client.joined"

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"{self.client} joined {self.reason}"


@dataclass(frozen=True)
class ClientGone(ClientEvent):
    """The client is gone: no update comes from it unless it is started again."""

    came: str = ""
    """From where the client came, if it had ended before the coordinator saw it; else ''."""

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"{self.client} came {self.came}, and takes no part: {self.reason}" if self.came else super().line


@dataclass(frozen=True)
class ClientLeft(ClientGone):
    """The client's trainer has ended by itself."""

    name = "client.left"


@dataclass(frozen=True)
class ClientLost(ClientGone):
    """The client's trainer or edge has failed, or its heartbeat has stopped."""

    name = "client.lost"


@dataclass(frozen=True)
class ClientStopped(ClientEvent):
    """A signal has stopped the client's edge, which is expected to come back."""

    name = "client.stopped"


@dataclass(frozen=True)
class ClientSets(ClientEvent):
    """The names of the variables that the client's site sets for its scripts itself have changed."""

    name = "client.sets"


@dataclass(frozen=True)
class ClientWarned(ClientEvent):
    """The client's edge has warned its site's user of what may not be meant."""

    name = "client.warned"


@dataclass(frozen=True)
class ClientNotAdmitted(ClientEvent):
    """The client cannot take part."""

    name = "client.not_admitted"


@dataclass(frozen=True)
class ClientOtherKey(ClientEvent):
    """The client cannot take part, because its key is not the one that is pinned."""

    name = "client.other_key"


@dataclass(frozen=True)
class ClientKeyReplaced(ClientEvent):
    """An operator has replaced the client's key."""

    name = "client.key_replaced"


@dataclass(frozen=True)
class ClientQuarantined(ClientEvent):
    """No update of the client counts, because too many of its updates in a row were refused."""

    name = "client.quarantined"

    @property
    def line(self) -> str:
        """See `Event`."""
        pardon = f"flavor pardon {self.run or 'RUN'} {shlex.quote(self.client)}"
        return f"{self.client} is quarantined: {self.reason} (`{pardon}` ends that)"


@dataclass(frozen=True)
class ClientTooSlow(ClientEvent):
    """Several tasks in a row of the client were given up as too old: nothing that it trains counts."""

    name = "client.too_slow"


@dataclass(frozen=True)
class ClientOutpaced(ClientEvent):
    """Several tasks in a row of the client were given up as too old, because a few quick sites closed all rounds."""

    name = "client.outpaced"


@dataclass(frozen=True)
class ClientPardoned(ClientEvent):
    """An operator has ended the client's quarantine."""

    name = "client.pardoned"


@dataclass(frozen=True)
class ClientLeftOut(ClientEvent):
    """The client caused more entries than the log keeps of one client in a round."""

    name = "client.left_out"


@dataclass(frozen=True)
class UpdateEvent(ClientEvent):
    """An event about a client's update of a round."""

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"round {self.round}: {self.client}: {self.reason}"


@dataclass(frozen=True)
class UpdateAccepted(UpdateEvent):
    """The update counts."""

    name = "update.accepted"


@dataclass(frozen=True)
class UpdateRefused(UpdateEvent):
    """The update does not count."""

    name = "update.refused"
    is_late: bool = False

    @property
    def line(self) -> str:
        """See `Event`."""
        if self.is_late:
            return f"{self.client}: the update of round {self.round} is refused: {self.reason}"
        return super().line


@dataclass(frozen=True)
class UpdateIgnored(ClientEvent):
    """The update was handed in again, with other content, after its verdict."""

    name = "update.ignored"
