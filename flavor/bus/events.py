"""Events: a durable key per run, client and round, plus a publication on the channel of the same name.

Both are written in one transaction, so a process that subscribes, then reads the key, then waits, cannot miss an event
in any order of calls. An event of an old round is another key, so it ends no wait in a new round.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from flavor.bus.connection import Redis, connect, shown, translated
from flavor.bus.fence import fenced
from flavor.bus.keys import RunKeys
from flavor.bus.patience import WaitLimit, refusals
from flavor.bus.subscription import RESYNC, Subscription
from flavor.bus.variables import PATIENCE_S
from flavor.errors import LeaseLost, RunOver, WaitTimeout
from flavor.process_name import lives
from flavor.records.names import Event

_REREAD_S = 5.0
"""Seconds between two reads of the keys during a wait, for the case that every publication is lost."""
_SYNC = "sync"
"""The mode of a run that is synchronous for all sites, by name, for the same reason as `_ENDED`."""
_MOST_STALENESS = 100
"""No update counts more rounds after its task, for the same reason."""
_EDGE_GONE_S = 30.0
"""An edge whose lease is missing for this long is gone; after an outage of the server, it takes it again sooner."""
_ENDED = ("finished", "failed", "stopped")
"""Those of `RunState` that are ended, by name: every training script imports this module, and need not import that."""


@dataclass(frozen=True)
class _Look:
    """What a waiter reads in one go."""

    is_set: bool
    started: int
    state: str | None
    reason: str
    holder: str | None
    """Token of the edge that is this client now."""


class ClientEvents:
    """The events of one client of one run.

    `edge` is the lease token of the edge that a trainer was started by. With it, an event that the trainer sets once
    another edge is this client raises `LeaseLost` instead, so that a trainer that outlived its edge changes nothing.
    `starts` is the event that begins a round: AggregateStarted for a user's aggregator. `patience_s` is how long the
    server is waited for, unless there is a client `redis` already.

    Every method raises `BusUnavailable` when the server stays away for longer than the client's patience; nothing is
    half-written then.
    """

    marks_files = True
    """A script that knows Redis marks its files itself when it sets TrainFinished."""

    def __init__(
        self,
        url: str,
        run: str,
        client: str,
        *,
        redis: Redis | None = None,
        edge: str = "",
        starts: Event = Event.TRAIN_STARTED,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.url, self.run, self.client, self._edge, self._starts = url, run, client, edge, starts
        self._run_keys = RunKeys(run)
        self._keys = self._run_keys.client(client)
        self._patience_s = patience_s
        self._redis = redis or connect(
            url, patience_s=WaitLimit(patience_s, is_known=True), client_name=f"flavor-events:{client}"
        )
        self._subscription: Subscription | None = None
        self._newest: tuple[Event, int, str] | None = None  # the event that was set last
        self._taken = 0  # the round that was taken up last, by this object

    def set(self, event: Event, round_: int, value: str = "1") -> None:
        """Record that `event` has happened in this round, and wake its waiters. Setting it twice is harmless."""
        key = self._keys.event(round_, event)
        with translated(shown(self.url)), self._redis.pipeline(transaction=True) as step:
            if self._edge and (holder := self._redis.get(self._keys.lease)) and holder != self._edge:
                raise self._replaced()
            step.set(key, value, nx=True)
            step.publish(key, str(round_))
            step.execute()
        self._newest = (event, round_, value)

    def start_round(self, round_: int, *, anew: bool = False, edge: str = "") -> None:
        """Set the event that begins this round, and move the pointer that a waiting script reads. For its parent.

        `anew` forgets what stands of this round: some trainer of another run of this name may have set it. With `edge`,
        the token of its lease, an edge that another one has replaced raises `LeaseLost`, and changes nothing.
        """
        key, started = self._keys.event(round_, self._starts), self._keys.started

        def write(step: Redis, answers: list[Any]) -> None:
            holder, before = answers
            if edge and holder not in (None, edge):
                raise LeaseLost(f"client {self.client!r} was taken over by another process: this one ends")
            if anew and before != str(round_):  # else it is done, its answer was lost, and the trainer may be at work
                step.delete(self._keys.idle, *(self._keys.event(round_, event) for event in Event))
            step.set(started, str(round_))
            step.set(key, "1", nx=True)
            step.publish(key, str(round_))

        lease = self._keys.lease
        with translated(shown(self.url)):
            if edge or anew:
                fenced(self._redis, [lease], [("GET", lease), ("GET", started)], write)
                return
            with self._redis.pipeline(transaction=True) as step:
                write(step, [None, None])
                step.execute()

    def is_set(self, event: Event, *rounds: int) -> bool:
        """Whether `event` has happened in this round, or in any of these."""
        with translated(shown(self.url)):
            return bool(self._redis.exists(*(self._keys.event(round_, event) for round_ in dict.fromkeys(rounds))))

    def clean(self, event: Event, round_: int) -> None:
        """Forget that `event` has happened in this round."""
        with translated(shown(self.url)):
            self._redis.delete(self._keys.event(round_, event))

    def newest_started(self) -> int:
        """The newest round that was started for this client; 0 before the first."""
        with translated(shown(self.url)):
            return int(self._redis.get(self._keys.started) or 0)

    def wait(self, event: Event, round_: int, *, timeout_s: float | None = None) -> None:
        """Return once `event` has happened in this round.

        Raises `WaitTimeout` after `timeout_s` seconds, `RunOver` when the run ends first, `LeaseLost` when this
        client's edge is gone.
        """
        self._wait(event, round_, timeout_s, after=None)

    def wait_started(self, after: int, *, timeout_s: float | None = None) -> int:
        """The number of the first round newer than `after` that is started for this client. Raises as `wait`.

        The trainer has taken this round up then: if it ends before TrainFinished, it has failed.
        """
        self._note_unfinished(after)
        round_ = self._wait(self._starts, None, timeout_s, after=after)
        self.take(round_)
        return round_

    def _note_unfinished(self, round_: int) -> None:
        """Let the edge know of a trainer that waits for the round after this one without having finished it."""
        if not round_ or self._starts is not Event.TRAIN_STARTED or (Event.TRAIN_FINISHED, round_) == self._last_set:
            return
        with translated(shown(self.url)):
            if self._redis.get(self._keys.event(round_, Event.TRAIN_FINISHED)) is None:
                self._redis.set(self._keys.idle, str(round_))

    @property
    def _last_set(self) -> tuple[Event, int] | None:
        return None if self._newest is None else self._newest[:2]

    def unfinished(self) -> int:
        """The round that the trainer was in when it began to wait for the next one, if it had not finished it; or 0."""
        with translated(shown(self.url)):
            return int(self._redis.get(self._keys.idle) or 0)

    def take(self, round_: int) -> None:
        """Record that the trainer works on this round."""
        with translated(shown(self.url)):
            self._redis.set(self._keys.taken, str(round_))
        self._taken = round_

    def left_s(self, round_: int) -> float | None:
        """Return the seconds to the deadline of this round, by the server's clock, and 0 after it.

        None where no deadline holds: the run has ended, its rounds wait for no site, or it has opened a later round and
        the update counts there. In a synchronous run a round before the newest one is over. In another run it is over
        for this client once the client has a newer task: its update would be too old to count.
        """
        with translated(shown(self.url)), self._redis.pipeline(transaction=False) as reads:
            reads.hmget(self._run_keys.state, "state", "round", "deadline_ms")
            reads.time()
            (state, newest, deadline_ms), (seconds, microseconds) = reads.execute()
        if state in _ENDED:
            return None
        if int(newest or 0) > round_:
            return 0.0 if self._is_over(round_, int(newest), is_told=deadline_ms is not None) else None
        if deadline_ms is None or newest != str(round_):
            return None
        return max(0.0, (int(deadline_ms) - int(seconds) * 1000 - int(microseconds) / 1000) / 1000)

    def _is_over(self, round_: int, newest: int, *, is_told: bool) -> bool:
        """Whether no update of this round counts, though the run is in the `newest` one.

        `is_told` says whether the run tells its deadlines: one that an earlier release serves does not.
        """
        later = range(max(round_, newest - _MOST_STALENESS - 1) + 1, newest + 1)
        with translated(shown(self.url)), self._redis.pipeline(transaction=False) as reads:
            reads.hget(self._run_keys.state, "config")
            reads.exists(*(self._keys.task(each) for each in later))
            config, newer = reads.execute()
        counts_later = json.loads(config or "{}").get("mode", _SYNC) != _SYNC
        return bool(newer) if counts_later else is_told

    def taken(self) -> int:
        """The newest round that the trainer has taken up; 0 before the first."""
        with translated(shown(self.url)):
            return int(self._redis.get(self._keys.taken) or 0)

    def _wait(self, event: Event, round_: int | None, timeout_s: float | None, *, after: int | None) -> int:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        wanted = None if round_ is None else self._keys.event(round_, event)
        missed_since: float | None = None
        with translated(shown(self.url)):
            subscription = self._listen()
            while True:
                look = self._look(wanted)
                if after is not None and look.started > after:
                    return look.started
                if round_ is not None and look.is_set:
                    return round_
                self._check_goes_on(look)
                now = time.monotonic()
                missed_since = None if look.state is None or look.holder is not None else missed_since or now
                if missed_since is not None and now - missed_since >= _EDGE_GONE_S:
                    if not self._edge_may_come_back(deadline):
                        raise LeaseLost(f"client {self.client!r}: its edge is gone, so nothing will set {event}")
                    missed_since = None
                left_s = _REREAD_S if deadline is None else min(_REREAD_S, deadline - time.monotonic())
                if left_s <= 0:
                    raise WaitTimeout(
                        f"client {self.client!r}: {event} did not come within {timeout_s:g} s; "
                        f"`flavor status {self.run}` shows what the run waits for"
                    )
                until = time.monotonic() + left_s
                woken = subscription.wait(left_s)
                while woken and not self._is_news(woken, wanted) and (left_s := until - time.monotonic()) > 0:
                    woken = subscription.wait(left_s)
                self._repeat_after(woken)
                if after is not None and (newest := self._newest_of(woken)) > after:
                    return newest
                if round_ is not None and wanted in woken:
                    return round_

    def _check_goes_on(self, look: _Look) -> None:
        """Raise `RunOver` or `LeaseLost` where nothing is left to wait for."""
        if look.state in _ENDED:
            raise RunOver(self.run, look.state or "", look.reason)
        if look.holder is not None and self._edge and look.holder != self._edge:
            raise self._replaced()

    # -- for an edge that waits in the place of its script

    def listen(self, wait_s: float) -> bool:
        """Wait up to `wait_s` seconds for news; returns whether some has come, or may have been missed."""
        if self._subscription is None:
            self._listen()
            return True
        with translated(shown(self.url)):
            woken = self._subscription.wait(wait_s)
            self._repeat_after(woken)
        return bool(woken)

    def begin_wait(self, after: int) -> None:
        """Record that the script waits for a round newer than `after`."""
        self._note_unfinished(after)

    def started_after(self, after: int) -> int:
        """Return the first round newer than `after` that is started for this client, or 0. Raises as `wait`."""
        with translated(shown(self.url)):
            look = self._look(None)
        if look.started > after:
            return look.started
        self._check_goes_on(look)
        return 0

    def _edge_may_come_back(self, deadline: float | None) -> bool:
        """Whether an edge without a lease is there: its process lives, or the server took no writes until just now.

        That is found out by writing, which is refused as long as that lasts, and no longer than until `deadline`.
        """
        if self._edge and lives(self._edge):
            return True
        before, patience_s = refusals(shown(self.url)), self._patience_s
        if deadline is not None:
            patience_s = max(0.0, min(patience_s, deadline - time.monotonic()))
        with connect(self.url, patience_s=patience_s, client_name=f"flavor-events:{self.client}") as redis:
            try:
                redis.set(self._keys.taken, redis.get(self._keys.taken) or 0)  # what stands there
            except RedisError:
                if deadline is None or time.monotonic() < deadline:
                    raise
                return True  # that is not known, and the time is over
        return refusals(shown(self.url)) > before

    def _is_news(self, channels: list[str], wanted: str | None) -> bool:
        """Whether a waiter has to look; a script that waits for its next round also hears what it set itself."""
        heard = (self._run_keys.state, RESYNC, wanted)
        return any(channel in heard or channel.endswith(f":event:{self._starts}") for channel in channels)

    def _newest_of(self, channels: list[str]) -> int:
        """The newest round whose beginning is among these channels; 0 when none is."""
        tail = f":event:{self._starts}"
        return max((int(c.removesuffix(tail).rpartition(":")[2]) for c in channels if c.endswith(tail)), default=0)

    def _listen(self) -> Subscription:
        if self._subscription is None:
            self._subscription = Subscription(
                self._redis,
                self.url,
                channels=[self._run_keys.state],
                patterns=[self._keys.events_pattern],
            )
            self._subscription.open()
        else:
            self._repeat_after(self._subscription.wait(0.0))  # what piled up while the caller worked
        return self._subscription

    def _repeat_after(self, woken: list[str]) -> None:
        """After a reconnection, set again what was set last: a replica that took over may have missed it."""
        if RESYNC not in woken:
            return
        if self._taken:
            self.take(self._taken)
        if self._newest is not None:
            self.set(*self._newest)

    def _look(self, key: str | None) -> _Look:
        with self._redis.pipeline(transaction=False) as reads:
            reads.exists(key or self._keys.started)
            reads.get(self._keys.started)
            reads.hmget(self._run_keys.state, "state", "reason")
            reads.get(self._keys.lease)
            is_set, started, (state, reason), holder = reads.execute()
        return _Look(bool(is_set), int(started or 0), state, reason or "", holder)

    def _replaced(self) -> LeaseLost:
        return LeaseLost(f"client {self.client!r}: another edge has taken it over, and this trainer's is gone")

    def close(self) -> None:
        """Close this object's connections."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
        self._redis.close()
