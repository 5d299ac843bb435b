"""The queue of an edge's loop: news from the bus, the end of its trainer, and errors of its own threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from flavor.bus.client_keys import ClientKeys
from flavor.bus.connection import connect
from flavor.bus.patience import WaitLimit
from flavor.bus.runs import RunStore
from flavor.bus.subscription import RESYNC, Subscription
from flavor.edge.config import EdgeConfig
from flavor.errors import FlavorError
from flavor.records.names import Event, count

RELISTEN_S = 5.0
"""Seconds without a publication after which all keys are read again."""


@dataclass(frozen=True)
class Woken:
    """Something was published on these channels."""

    channels: tuple[str, ...]


@dataclass(frozen=True)
class Ended:
    """The trainer has ended."""

    code: int


@dataclass(frozen=True)
class EvaluatorEnded:
    """An evaluator has ended."""

    evaluator: object
    code: int


@dataclass(frozen=True)
class Broken:
    """The loop cannot go on after this error."""

    error: FlavorError


Inbox: TypeAlias = "queue.SimpleQueue[Woken | Ended | EvaluatorEnded | Broken]"


@dataclass(frozen=True)
class News:
    """What the channels on which something was published are about."""

    resync: bool
    """Publications may have been missed, so that every key has to be read again."""
    run: bool
    """The run's own hash was written."""
    admission: bool
    """The coordinator has written whether this client may take part."""
    evaluations: bool
    """Which models this client is to judge has changed."""
    by_round: frozenset[tuple[int, str]]
    """Pairs of a round and what was written in it: `task`, `verdict` or `event:NAME`."""

    @classmethod
    def of(cls, woken: Woken, keys: ClientKeys, run_channel: str) -> News:
        """Work out from the channels' names what the news is about."""
        rests = {keys.rest(channel) for channel in woken.channels}
        by_round = set()
        for rest in rests:
            kind, _, tail = rest.partition(":")
            number, _, what = tail.partition(":")
            if kind == "round" and (round_ := count(number)) is not None:
                by_round.add((round_, what))
        channels = woken.channels
        is_told = {what: what in rests for what in ("admission", "evaluations")}
        return cls(
            RESYNC in channels,
            run_channel in channels,
            is_told["admission"],
            is_told["evaluations"],
            frozenset(by_round),
        )

    def rounds(self, what: str) -> Sequence[int]:
        """The rounds in which this was written, sorted."""
        return sorted(round_ for round_, found in self.by_round if found == what)

    def is_set(self, event: Event, round_: int) -> bool:
        """Whether this event's publication is among the news."""
        return (round_, f"event:{event}") in self.by_round


EVERYTHING = News(resync=True, run=False, admission=False, evaluations=False, by_round=frozenset())
"""News for a look at every key although nothing was published."""


def subscribed(config: EdgeConfig, runs: RunStore, *, limit: WaitLimit) -> Subscription:
    """Subscribe to everything that is published to this client, on a connection of its own."""
    keys = runs.keys.client(config.client)
    subscription = Subscription(
        connect(config.redis_url, patience_s=limit, client_name=f"flavor-fl:{config.client}:events"),
        config.redis_url,
        channels=[runs.keys.state],
        patterns=[keys.events_pattern, keys.to_pattern],
    )
    subscription.open()
    return subscription


class Listener:
    """A thread that puts what a subscription hears into the inbox, until `close` is called."""

    def __init__(
        self, subscription: Subscription, inbox: Inbox, heard: Callable[[Sequence[str]], None] = lambda _: None
    ) -> None:
        """`heard` is called with the channels before the item is in the inbox."""
        self._subscription, self._inbox, self._heard = subscription, inbox, heard
        self._closing = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._listen, name="bus", daemon=True).start()

    def close(self) -> None:
        """Stop listening. The thread ends when it has heard from the subscription once more."""
        self._closing.set()

    def _listen(self) -> None:
        own = f":event:{Event.TRAIN_STARTED}"  # which this edge publishes itself
        try:
            while not self._closing.is_set():
                channels = self._subscription.wait(RELISTEN_S) or [RESYNC]
                self._heard(channels)
                if any(not channel.endswith(own) for channel in channels):
                    self._inbox.put(Woken(tuple(channels)))
        except FlavorError as error:
            self._inbox.put(Broken(error))
        finally:
            self._subscription.close()
