"""Asks the run's coordinator for signed URLs, for a site without credentials for the bucket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from flavor.bus.subscription import RESYNC
from flavor.edge.membership import Membership
from flavor.errors import StoreUnavailable
from flavor.records.signed_urls import UrlAnswer, UrlWish
from flavor.watch import current_watch

_STEP_S, _LOOK_S = 0.2, 2.0
_FIRST_AGAIN_S, _MOST_AGAIN_S = 5.0, 30.0
"""Seconds after which a wish without an answer is repeated: the first time, and at most."""
_TELL_S = 10.0
_AFTER_END_S = 40.0
"""Seconds after which a wish is given up where the run has ended: its coordinator stays for less."""
_ENDED = (
    "no URL came for an object of the store: the run has ended, and its coordinator, which signs URLs, has ended with "
    "it: ask the run's operator for the model (`flavor get`)"
)


class UrlAsker:
    """Asks for URLs, one wish at a time, and waits for the answer for as long as what they are for is wanted.

    The coordinator may be away for hours: so the wait has no limit of its own while the run goes on. `has_ended` says
    whether the run has. `tell` tells this site's user of a wait.
    """

    def __init__(
        self,
        membership: Membership,
        urls_channel: str,
        *,
        has_ended: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> None:
        self._membership, self._channel, self._has_ended, self._tell = membership, urls_channel, has_ended, tell
        self._lock = threading.Lock()
        self._news = threading.Event()

    def heard(self, channels: Collection[str]) -> None:
        """Take note that something was published on these channels."""
        if self._channel in channels or RESYNC in channels:
            self._news.set()

    def ask(self, wish: UrlWish) -> UrlAnswer:
        """Return the coordinator's answer. Raises `TransferStopped`, `DamagedRecord` and what `Membership` raises."""
        with self._lock:
            began = time.monotonic()
            asks_at, again_s, looks_at, tells_at = began, _FIRST_AGAIN_S, began + _LOOK_S, began + _TELL_S
            is_told = False
            while True:
                now = time.monotonic()
                if now >= asks_at:
                    if now >= began + _AFTER_END_S and self._has_ended():
                        raise StoreUnavailable(_ENDED, passing=True)
                    self._news.clear()
                    self._membership.wish(wish)
                    asks_at, again_s = now + again_s, min(2 * again_s, _MOST_AGAIN_S)
                if self._news.wait(_STEP_S) or now >= looks_at:
                    self._news.clear()
                    looks_at = now + _LOOK_S
                    answer = self._membership.urls()
                    if answer is not None and answer.wish == wish.id:
                        if is_told:
                            self._tell("the run's coordinator signs URLs again")
                        return answer
                current_watch().check()
                if now >= tells_at and not is_told:
                    is_told = True
                    self._tell("waiting for the run's coordinator, which signs the URLs that this site needs")
