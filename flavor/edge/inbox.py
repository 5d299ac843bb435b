"""What an edge's loop hears: from the bus, from its trainer and from its own threads, one item after another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from flavor.bus.connection import connect
from flavor.bus.keys import ClientKeys
from flavor.bus.runs import RunStore
from flavor.bus.subscription import RESYNC, Subscription
from flavor.edge.config import EdgeConfig
from flavor.errors import FlavorError
from flavor.records.names import Event, count

RELISTEN_S = 5.0
"""The keys are read again after so long without a publication."""


@dataclass(frozen=True)
class Woken:
    """The bus has news on these channels."""

    channels: tuple[str, ...]


@dataclass(frozen=True)
class Ended:
    """The trainer has ended."""

    code: int


@dataclass(frozen=True)
class Broken:
    """The loop cannot go on after this error."""

    error: FlavorError


Inbox: TypeAlias = "queue.SimpleQueue[Woken | Ended | Broken]"


@dataclass(frozen=True)
class News:
    """What the channels that woke the edge are about."""

    resync: bool
    """Publications may have been missed: every key is read again."""
    run: bool
    """The run's own hash was written."""
    admission: bool
    """The coordinator has said whether this client may take part."""
    by_round: frozenset[tuple[int, str]]
    """Pairs of a round and what there is of it: `task`, `verdict` or `event:NAME`."""

    @classmethod
    def of(cls, woken: Woken, keys: ClientKeys, run_channel: str) -> News:
        """Read the channels' names."""
        rests = {keys.rest(channel) for channel in woken.channels}
        by_round = set()
        for rest in rests:
            kind, _, tail = rest.partition(":")
            number, _, what = tail.partition(":")
            if kind == "round" and (round_ := count(number)) is not None:
                by_round.add((round_, what))
        channels = woken.channels
        return cls(RESYNC in channels, run_channel in channels, "admission" in rests, frozenset(by_round))

    def rounds(self, what: str) -> Sequence[int]:
        """The rounds of which there is this."""
        return sorted(round_ for round_, found in self.by_round if found == what)

    def is_set(self, event: Event, round_: int) -> bool:
        """Whether this event's publication is among the news."""
        return (round_, f"event:{event}") in self.by_round


EVERYTHING = News(resync=True, run=False, admission=False, by_round=frozenset())
"""No channel was heard, and every key may have been written."""


def subscribed(config: EdgeConfig, runs: RunStore) -> Subscription:
    """A subscription to all that is published to this client, on a connection of its own."""
    keys = runs.keys.client(config.client)
    subscription = Subscription(
        connect(config.redis_url, patience_s=config.patience_s, client_name=f"flavor-fl:{config.client}:events"),
        config.redis_url,
        channels=[runs.keys.state],
        patterns=[keys.events_pattern, keys.to_pattern],
    )
    subscription.open()
    return subscription


class Listener:
    """A thread that puts what a subscription hears into the inbox, until it is closed."""

    def __init__(self, subscription: Subscription, inbox: Inbox) -> None:
        self._subscription, self._inbox = subscription, inbox
        self._closing = threading.Event()

    def start(self) -> None:
        """Begin to listen."""
        threading.Thread(target=self._listen, name="bus", daemon=True).start()

    def close(self) -> None:
        """Stop listening; the thread ends when the subscription is heard next."""
        self._closing.set()

    def _listen(self) -> None:
        own = f":event:{Event.TRAIN_STARTED}"  # which this edge publishes itself
        try:
            while not self._closing.is_set():
                channels = self._subscription.wait(RELISTEN_S) or [RESYNC]
                if any(not channel.endswith(own) for channel in channels):
                    self._inbox.put(Woken(tuple(channels)))
        except FlavorError as error:
            self._inbox.put(Broken(error))
        finally:
            self._subscription.close()
