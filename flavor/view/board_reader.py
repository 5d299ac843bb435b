"""The threads behind a `Board`: one reads Redis for all runs, the other one their stores."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Collection, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from flavor.bus.connection import Redis, connect, is_away, is_silent, shown
from flavor.bus.countdown import countdown
from flavor.bus.keys import every_run_patterns, parse_run_channel
from flavor.bus.removed import removed_runs
from flavor.bus.runs import are_there, list_runs
from flavor.bus.subscription import RESYNC, Subscription
from flavor.errors import DamagedRecord, FlavorError, RunNotFound
from flavor.view.document import damaged_row, lost_row
from flavor.view.followed import Followed
from flavor.view.published import Published
from flavor.view.server import refusal_of

REFRESH_S = 0.5
"""Least time between two looks at a run that somebody looks at, however much is published."""
POOR_S = 0.8
"""The same for a run that does little, so that looks at it are a small part of its commands."""
UNSEEN_S = 2.0
"""The same for a run that no page shows."""
QUIET_S = 5.0
"""Most time between two looks at a run that goes on, although nothing is published."""
ENDED_S = 60.0
"""The same for a run that has ended."""
MOST_ANEW_S = 15.0
"""Most time between two looks that read everything anew, however often the subscription is cut.

A site can have it cut: the server cuts a subscriber who cannot take all that the site publishes.
"""
_FIRST_ANEW_S = 1.0
"""The second such look is that much after the first; the time doubles with each further one."""
_CALM_S = 60.0
"""After so long without such a look the next one is made at once."""
_SEEN_FOR_S = 30.0
_TICK_S = 0.1
_RETRY_S = 1.0
_PATIENCE_S = 0.5
_STORE_TICK_S = 0.2
_SERVER_EVERY_S = 1.0
"""Least time between two looks at how the server is doing."""


@dataclass
class _Due:
    """When a run is looked at again."""

    looked_at: float = -ENDED_S
    is_heard: bool = False
    """Whether something was published since that is worth a look."""
    is_anew: bool = True
    """Whether something may have been missed."""
    is_first: bool = True
    """Whether it was not looked at yet."""
    has_ended: bool = False


class BoardReader:
    """Reads all runs, or those that are named, and publishes them."""

    def __init__(
        self,
        url: str,
        published: Published,
        *,
        store: str | None,
        only: Collection[str] | None,
        left_in: str,
        folder: str = "",
        tells: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises `InvalidSetting` for a URL that cannot be used."""
        self._url, self._published, self._clock, self._tells = url, published, clock, tells
        self._store, self._only, self._left_in, self._folder = store, only, left_in, folder
        self.redis: Redis = connect(url, patience_s=_PATIENCE_S, client_name="flavor-board", quiet=True)
        self._followed: dict[str, Followed] = {}
        self._due: dict[str, _Due] = {}
        self._seen_at: dict[str, float] = {}
        self._lost: dict[str, int] = {}
        """Runs that Redis has lost, and when each began, or was recovered last, by the server's clock."""
        self.removed: dict[str, int] = {}
        """Runs that operators have removed, and when, in milliseconds of the server's clock."""
        self._listed_at = -QUIET_S
        self._anew_at, self._anew_rest_s = -_CALM_S, 0.0
        self._offset_ms = 0
        self.refusal = ""
        """Why Redis takes no writes; '' where it takes writes, as far as it says."""
        self._server_at = -_SERVER_EVERY_S
        self._ill_at = -math.inf
        """When the server was away, or took no writes, the last time."""
        self.read_ms = self.now_ms()
        """When Redis was read last, by its clock."""
        self.has_looked = threading.Event()
        """Set after the first look at all runs, or once there is a problem."""
        self.never_read = True
        """Whether Redis could not be read yet. One thread clears it, before `has_looked` is set; any may read it."""
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._read_on, name="board", daemon=True),
            threading.Thread(target=self._look_aside, name="board-store", daemon=True),
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads, and close the connections to Redis."""
        self._closing.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(10.0)
        self.redis.close()

    def followed(self, run: str) -> Followed | None:
        """The run, if it is followed; it is looked at more often from now on."""
        found = self._followed.get(run)
        if found is not None:  # a browser may ask for any name
            self._seen_at[run] = self._clock()
        return found

    def all_followed(self) -> Sequence[Followed]:
        """All runs that are followed."""
        return list(self._followed.values())

    def now_ms(self) -> int:
        """The time of the Redis server, as it was measured last; this machine's before that."""
        return int(time.time() * 1000) + self._offset_ms

    # -- the thread that reads Redis

    def _read_on(self) -> None:
        while not self._closing.is_set():
            subscription = Subscription(self.redis, self._url, patterns=every_run_patterns())
            try:
                while not self._closing.is_set():
                    self._look(subscription.wait(_TICK_S), subscription.saying)
                    if self._published.problem:
                        self._published.tell("")
                        countdown.over(shown(self._url), reads_only=True)
                    self.never_read = False
                    self.has_looked.set()
                    self.read_ms = self.now_ms()
            except Exception as error:  # a fault of this program, too, must not end the reader without a word
                self._ill_at = self._clock()
                when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.read_ms / 1000))
                self._published.tell(f"Redis cannot be read since {when}: {_said(error)}")
                self.has_looked.set()
                if self._tells and is_silent(error):
                    countdown.beyond(shown(self._url))
            finally:
                with contextlib.suppress(Exception):
                    subscription.close()
            self._closing.wait(_RETRY_S)

    def _look(self, woken: Sequence[str], saying: Collection[str]) -> None:
        """Look at the runs whose turn it is; `woken` are channels on which something was published."""
        now = self._clock()
        if RESYNC in woken:
            for each in self._due.values():
                each.is_anew = True
        if now - self._anew_at >= _CALM_S:
            self._anew_rest_s = 0.0
        may_be_anew = now - self._anew_at >= self._anew_rest_s
        for channel in woken:
            parsed = parse_run_channel(channel)
            if parsed is None:
                continue
            run, rest = parsed
            if (due := self._due.get(run)) is not None:
                due.is_heard = self._followed[run].hear(rest, says=channel in saying) or due.is_heard
            elif rest == "run":
                self._listed_at = now - QUIET_S  # a new run
        if (RESYNC in woken and may_be_anew) or now - self._listed_at >= QUIET_S:
            self._list(now)
        self._look_at_server(now)
        is_again = False
        for run, due in list(self._due.items()):
            anew = due.is_first or (due.is_anew and may_be_anew)
            is_again = is_again or (anew and not due.is_first)
            if anew or now - due.looked_at >= self._rest_s(run, due, now):
                self._read(run, due, now, anew=anew)
        if is_again:
            self._anew_at = now
            self._anew_rest_s = min(MOST_ANEW_S, max(_FIRST_ANEW_S, 2 * self._anew_rest_s))

    def _look_at_server(self, now: float) -> None:
        """Find out whether the server takes writes, and have all runs read again where that has changed."""
        if now - self._server_at < _SERVER_EVERY_S:
            return
        self._server_at, before = now, self.refusal
        self.refusal = refusal_of(self.redis)
        if self.refusal:
            self._ill_at = now
        if self.refusal != before:
            for due in self._due.values():
                due.looked_at = -ENDED_S

    def _rest_s(self, run: str, due: _Due, now: float) -> float:
        """How long after its last look a run is looked at again."""
        followed = self._followed[run]
        if due.is_heard or followed.wants:
            is_seen = now - self._seen_at.get(run, now - _SEEN_FOR_S) < _SEEN_FOR_S
            return UNSEEN_S if not is_seen else POOR_S if followed.is_poor else REFRESH_S
        return ENDED_S if due.has_ended else QUIET_S

    def _list(self, now: float) -> None:
        there = list_runs(self.redis, self._url)
        self._listed_at = now
        for run in there:
            if run not in self._followed and (self._only is None or run in self._only):
                self._followed[run] = Followed(
                    self.redis, run, self._url, store=self._store, left_in=self._left_in, folder=self._folder
                )
                self._due[run] = _Due()
                self._lost.pop(run, None)
        ended = [run for run, due in self._due.items() if due.has_ended]  # others are read often anyway
        removed = set(ended) - set(are_there(self.redis, ended, self._url))
        self.removed = self._removals()
        for run in self._lost.keys() & self.removed.keys():
            self._lost.pop(run)
            self._published.drop(run)
        for run in (self._followed.keys() - set(there)) | removed:
            self._forget(run)

    def _removals(self) -> dict[str, int]:
        """Return what was removed, without earlier runs of the name of one that is lost: they say nothing of it."""
        found = removed_runs(self.redis, self._url)
        return {run: when_ms for run, when_ms in found.items() if when_ms >= self._lost.get(run, 0)}

    def _forget(self, run: str) -> None:
        """Follow a run no more, which is not there: it was removed, or Redis has lost it."""
        has_ended, seen = self._due[run].has_ended, self._followed[run].snapshot
        known: tuple[MutableMapping[str, Any], ...] = (self._followed, self._due, self._seen_at)
        for each in known:
            each.pop(run, None)
        if not has_ended:
            self._lost[run] = max(seen.run.created_ms, seen.run.recovered_ms) if seen is not None else 0
            self.removed = self._removals()  # anew: it may have been removed a moment ago
        if has_ended or run in self.removed:
            self._lost.pop(run, None)
            self._published.drop(run)
            return
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.read_ms / 1000))
        lost = (
            f"Redis has lost run {run!r}, which had not ended: it was last there at {when}, and `flavor rm` has not "
            f"removed it; start Redis with its data, rebuild the run from its store with `flavor recover --run {run}`, "
            f"or give it up with `flavor rm {run}`"
        )
        self._published.put_lost(run, lost, lost_row)

    def _read(self, run: str, due: _Due, now: float, *, anew: bool) -> None:
        followed = self._followed[run]
        due.is_heard, due.is_anew, due.is_first, due.looked_at = False, due.is_anew and not anew, False, now
        try:
            read = followed.read(anew=anew, refusal=self.refusal, well_s=now - self._ill_at)
        except RunNotFound:
            self._forget(run)
        except DamagedRecord as error:
            self._damaged(run, str(error))
        except Exception as error:  # a key of another type, or a fault of this program, hides no other run
            if is_away(error):
                due.is_anew = True
                raise
            self._damaged(run, f"run {run!r} cannot be read: {_said(error)}")
        else:
            due.has_ended = read.document["ended_ms"] is not None
            self._offset_ms = read.now_ms - int(time.time() * 1000)
            self._published.put(run, read.document, read.row, is_news=read.has_entries)

    def _damaged(self, run: str, reason: str) -> None:
        self._published.put_damaged(run, damaged_row(run, reason), reason)

    # -- the thread that reads stores

    def _look_aside(self) -> None:
        while not self._closing.wait(_STORE_TICK_S):
            for followed in self.all_followed():
                if self._closing.is_set():
                    return
                followed.look_aside()


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, FlavorError) else f"an error in flavor: {type(error).__name__}: {error}"
