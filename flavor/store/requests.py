"""Send requests to a remote store, again while it does not answer, and say so when it is silent for long."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from typing import TypeVar

from flavor import alive
from flavor.durations import shown_duration
from flavor.errors import StoreError, StoreUnavailable, TransferStopped
from flavor.outage import pause_s
from flavor.printable import printable
from flavor.say import say
from flavor.signals import asked_to_end
from flavor.silence import Silence, silence
from flavor.stamp import stamp
from flavor.store.aside import aside
from flavor.store.bucket_proxy import endpoint_of, reached_through
from flavor.store.settings import Endurance
from flavor.watch import current_watch, watching

_ATTEMPTS = 2
"""Minimum number of attempts to write, even if the first attempt used up the whole patience."""
_MOVING_ATTEMPTS = 8
"""Number of times that a link may break within one request before moved bytes stop extending the patience."""

T = TypeVar("T")


class Requests:
    """The requests to the store at `url`. A subclass translates the errors of its library."""

    def __init__(self, url: str, endurance: Endurance) -> None:
        self.url, self.endurance = url, endurance

    def translated(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Turn the errors of a request about this object into this project's."""
        return contextlib.nullcontext()

    def ask(self, key: str, act: Callable[[], T]) -> T:
        """Send a request about this object while signals are still handled."""
        try:
            with self._silence.request(current_watch()), self.translated(key):
                done = aside(act)
        except StoreError as error:
            if not isinstance(error, StoreUnavailable | TransferStopped):
                self._answered()
            raise
        self._answered()
        return done

    @property
    def _silence(self) -> Silence:
        def tell(silent_s: float) -> None:
            what = f"has given a request no answer that helps for {shown_duration(silent_s)}"
            why = printable(self._silence.why)
            if not why:
                why = f"check this machine's network and VPN, and the store's address{self.way}"
            self._tell(f"{what}, and is tried again and again: {why}")

        return silence(self.url, tell)

    @property
    def way(self) -> str:
        """The way to the store, as a cause to look for; '' for this machine itself."""
        return reached_through(endpoint_of(self.url))

    def _answered(self) -> None:
        if self._silence.answered():
            self._tell("answers again")

    def _tell(self, what: str) -> None:
        say(f"{stamp()}flavor: store {printable(self.url)} {what}")

    def persist(self, key: str, act: Callable[[], T], *, attempts: int = _ATTEMPTS) -> T:
        """Run `act`, again while the store does not answer: obstore repeats no conditional write that timed out.

        Each attempt is signed anew, with the credentials that are there then. Gives up when nothing has moved for as
        long as the settings wait for the store. Repeating is harmless: an object that an earlier attempt has written is
        found to exist.
        """
        with watching() as watch, self._silence.request(watch):
            patience_s, moving = self.endurance.patience_s, 0
            since = time.monotonic()
            deadline = since + patience_s
            for attempt in itertools.count(1):
                began = time.monotonic()
                try:
                    return self.ask(key, act)
                except StoreUnavailable as error:
                    alive.turned()
                    self._silence.why = str(error).removeprefix(f"store {self.url}: ")
                    if error.silent and watch.moved_at > began and moving < _MOVING_ATTEMPTS:
                        deadline, moving = time.monotonic() + patience_s, moving + 1
                    left_s = deadline - time.monotonic()
                    done = not error.passing or (left_s <= 0 and attempt >= attempts)
                    next_s = pause_s(time.monotonic() - since)
                    if done or watch.pause(min(next_s, left_s), unless=asked_to_end):
                        raise
            raise AssertionError

    def read(self, key: str, act: Callable[[], T]) -> T:
        """Run `act`, which changes nothing, again while the store does not answer. Gives up as `persist` does."""
        return self.persist(key, act, attempts=1)
