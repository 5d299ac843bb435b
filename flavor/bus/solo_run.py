"""A run of one client on a bus of its own, which drives a kept aggregator or a script under check.

There is no coordinator and no edge: this process does the work of both, and starts the rounds itself.
"""

from __future__ import annotations

import contextlib

from flavor.bus.connection import Redis
from flavor.bus.events import ClientEvents
from flavor.bus.keys import RunKeys
from flavor.bus.subscription import Subscription
from flavor.records.names import Event
from flavor.records.states import RunState


class SoloRun:
    """The run `run` of the client `client`, whose rounds begin with the event `starts`.

    `events` are the client's. `holder` stands where an edge's lease would; it never runs out, because the client is a
    child of this process.
    """

    def __init__(self, redis: Redis, url: str, run: str, client: str, *, starts: Event, holder: str) -> None:
        self._redis, self._url, self._holder = redis, url, holder
        self._run = RunKeys(run)
        self.keys = self._run.client(client)
        self.events = ClientEvents(url, run, client, redis=redis, starts=starts)

    def begin(self, rounds: int) -> None:
        """Delete all keys of this run, and create a run of so many rounds that waits for its first round."""
        for key in self._redis.scan_iter(f"{self._run.prefix}*"):
            self._redis.delete(key)
        self._redis.hset(
            self._run.state,
            mapping={"state": RunState.RUNNING, "round": "0", "rounds": str(rounds), "config": "{}"},
        )
        self._redis.set(self.keys.lease, self._holder)

    def subscription(self) -> Subscription:
        """Return a subscription that each event of the client, and `wake`, wakes. The caller opens and closes it."""
        return Subscription(self._redis, self._url, channels=[self.keys.state], patterns=[self.keys.events_pattern])

    def forget_events(self, round_: int) -> None:
        """Remove the events of an old round."""
        self._redis.delete(*(self.keys.event(round_, event) for event in Event))

    def wake(self) -> None:
        """End a wait of the subscription. Any thread may call this, also once the bus is gone."""
        with contextlib.suppress(Exception):
            self._redis.publish(self.keys.state, "")

    def end(self, state: RunState, reason: str) -> None:
        """End the run in this state: the client's next WaitEvent raises `RunOver`."""
        self._redis.hset(self._run.state, mapping={"state": state, "reason": reason})
        self._redis.publish(self._run.state, state)
