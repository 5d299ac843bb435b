"""Sends messages about a run, in threads beside it: neither a slow service nor a broken one delays or ends the run."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from flavor.errors import FlavorError, LeaseHeld, LeaseLost, MisuseError, RunEnding, RunExists
from flavor.notices import AFTER_S
from flavor.notices.destination import Destination, destinations
from flavor.notices.digest import Digest, Message, Tone
from flavor.view.event import Event
from flavor.view.observer import Observer, Silent

END_S = 5.0
"""How long the end of a run waits for its last message."""
_SILENT = (MisuseError, LeaseHeld, LeaseLost, RunExists, RunEnding)
"""Errors that the person sees who has just started a coordinator, or after which another coordinator serves the run."""


class Notices:
    """An `Observer` that sends messages about what people have to know of a run."""

    def __init__(
        self,
        run: str,
        places: Sequence[Destination],
        *,
        after_s: float = AFTER_S,
        waits: Callable[[], float | None] | None = None,
    ) -> None:
        """Send to these places. A wait is news after `after_s` seconds.

        `waits` says for how many seconds the run has waited for what may not come by itself, None if it does not; it
        is asked before a message about a wait, if the events do not tell.
        """
        self._places, self._waits = places, waits
        self._digest = Digest(run, after_s=after_s)
        self._changed = threading.Condition()
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="notices", daemon=True)
        self._thread.start()

    def hear(self, event: Event) -> None:
        """See `Observer`."""
        with self._changed:
            self._digest.add(event, time.monotonic())
            self._changed.notify()

    def failed(self, error: BaseException) -> None:
        """Take note that the coordinator has ended with an error, so that nothing moves until it is started again."""
        reason = (
            f"its coordinator has ended: {error}"
            if isinstance(error, FlavorError)
            else (f"its coordinator has ended with an error of flavor itself ({type(error).__name__})")
        )
        with self._changed:
            self._digest.end("not served", reason, Tone.FAILURE)
            self._changed.notify()

    def close(self) -> None:
        """Send what is left, and wait for it for a few seconds at most."""
        until = time.monotonic() + END_S
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._thread.join(END_S)
        for place in self._places:
            place.finish(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                due = self._digest.due(now)
                if not self._is_over and (due is None or due > now):
                    self._changed.wait(None if due is None else due - now)
                    continue
                is_over = self._is_over
            if not is_over and self._waits is not None:
                self._look()
            with self._changed:
                message = self._digest.take(time.monotonic())
            if message is not None:
                self._send(message)
            if is_over:
                return

    def _look(self) -> None:
        """Ask for how long the run has waited, where that may be no news."""
        assert self._waits is not None
        with self._changed:
            is_asked = self._digest.awaits
        if not is_asked:
            return
        lasts_s: float | None = 0.0
        with contextlib.suppress(Exception):
            lasts_s = self._waits()
        with self._changed:
            if lasts_s is None:
                self._digest.goes_on(time.monotonic())
            else:
                self._digest.has_lasted(lasts_s, time.monotonic())

    def _send(self, message: Message) -> None:
        for place in self._places:
            place.put(message)


@contextlib.contextmanager
def noticed(run: str, given: Sequence[str], *, after_s: float, tell: Callable[[str], None]) -> Iterator[Observer]:
    """Give an observer that sends messages to the URLs `given`, one that does nothing where there are none.

    An error of the body that ends the run's coordinator is a message, too. Raises `InvalidSetting` for a URL that
    cannot be used.
    """
    places = destinations(given, tell)
    if not places:
        yield Silent()
        return
    tell(f"notices go by {', '.join(place.name for place in places)}")
    notices = Notices(run, places, after_s=after_s)
    try:
        yield notices
    except Exception as error:
        if not isinstance(error, _SILENT):
            notices.failed(error)
        raise
    finally:
        notices.close()
