"""The keys of one client of one run; the table of all keys is in `flavor.bus.keys`."""

from __future__ import annotations

from dataclasses import dataclass

from flavor.records.names import Event


@dataclass(frozen=True)
class ClientKeys:
    """The keys of one client of one run: below `prefix` all that its edge may write, below `to` what it is told."""

    prefix: str
    to: str
    client: str

    @property
    def events_pattern(self) -> str:
        """The channel pattern of this client's events: what a trainer listens to."""
        return f"{self.prefix}:round:*:event:*"

    @property
    def own_pattern(self) -> str:
        """All keys and channels below this client's own: what it may write."""
        return f"{self.prefix}:*"

    @property
    def to_pattern(self) -> str:
        """All that is meant for this client: its tasks, and the verdicts on its updates."""
        return f"{self.to}:*"

    @property
    def hash(self) -> str:
        """Hash: the client's state."""
        return self.prefix

    @property
    def state(self) -> str:
        """Channel: the hash has changed, or the client says that it lives."""
        return f"{self.prefix}:state"

    @property
    def pulse(self) -> str:
        """Channel: the fields of the hash that only people read have changed."""
        return f"{self.prefix}:pulse"

    @property
    def lease(self) -> str:
        """String with an expiry: the token of the edge that is this client."""
        return f"{self.prefix}:lease"

    @property
    def started(self) -> str:
        """String: the newest round for which TrainStarted was set."""
        return f"{self.prefix}:started"

    @property
    def taken(self) -> str:
        """String: the newest round that the trainer has taken up, so that one that left is not taken for lost."""
        return f"{self.prefix}:taken"

    @property
    def idle(self) -> str:
        """String: the round that the trainer is in while it waits for the next one, TrainFinished being not set."""
        return f"{self.prefix}:idle"

    @property
    def log(self) -> str:
        """String: the last lines of the output of the site's script, if the site shares them."""
        return f"{self.prefix}:log"

    @property
    def wish(self) -> str:
        """String with an expiry: the signed URLs that this client asks for. For the coordinator alone."""
        return f"{self.prefix}:wish"

    @property
    def urls(self) -> str:
        """String with an expiry: the coordinator's answer to `wish`. A secret: no viewer may read it."""
        return f"{self.to}:urls"

    def event(self, round_: int, event: Event) -> str:
        """String: present once the event has happened in this round."""
        return f"{self.prefix}:round:{round_}:event:{event}"

    def task(self, round_: int) -> str:
        """Hash: what this client trains from in this round. Written by the coordinator."""
        return f"{self.to}:round:{round_}:task"

    @property
    def admission(self) -> str:
        """Hash: whether this client may take part, and what its site should know of that. For the coordinator alone."""
        return f"{self.to}:admission"

    def update(self, round_: int) -> str:
        """Hash: what this client submitted in this round."""
        return f"{self.prefix}:round:{round_}:update"

    def verdict(self, round_: int) -> str:
        """Hash: what became of this client's update of this round. Written with the verdict in `RunKeys.verdicts`."""
        return f"{self.to}:round:{round_}:verdict"

    @property
    def evaluations(self) -> str:
        """Hash: the evaluations that await this client, `N K` to when each was opened. For the coordinator alone."""
        return f"{self.to}:evaluations"

    def evaluation_task(self, round_: int, number: int) -> str:
        """Hash: which model this client judges in this evaluation. Written by the coordinator."""
        return f"{self.to}:round:{round_}:evaluation:{number}:task"

    def result(self, round_: int, number: int) -> str:
        """Hash: what this client has measured in this evaluation."""
        return f"{self.prefix}:round:{round_}:evaluation:{number}:update"

    @property
    def evaluation_verdict(self) -> str:
        """Hash: what became of this client's newest result."""
        return f"{self.to}:evaluation:verdict"

    def rest(self, channel: str) -> str:
        """What follows this client's prefix, either one, in the name of a key or channel."""
        return channel.removeprefix(f"{self.prefix}:").removeprefix(f"{self.to}:")
