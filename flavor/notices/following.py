"""Sends messages about a run that another process serves: follows the run's log, in a thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

from flavor.bus.answers import LEAST_S
from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.notices.destination import Destination
from flavor.notices.notices import Notices
from flavor.view.log import newest_entry, read_log
from flavor.view.snapshot import take_snapshot

_LOOK_MS = 500
_PAUSE_S = 1.0
_PATIENCE_S = 1.0


@contextlib.contextmanager
def following(
    runs: RunStore, url: str, places: Sequence[Destination], *, after_s: float, tell: Callable[[str], None]
) -> Iterator[None]:
    """Send messages to `places` about what the log of a run gets within the context, also about its end.

    `tell` gets a line if the end of the log cannot be read.
    """
    # quiet: the program itself says for how long it waits, which is longer
    redis = connect(url, patience_s=_PATIENCE_S, client_name=f"flavor-notices:{runs.run}", quiet=True)
    own = RunStore(redis, runs.run, url)
    newest = newest_entry(runs)
    notices = Notices(runs.run, places, after_s=after_s, waits=lambda: _held_s(own))
    over = threading.Event()
    thread = threading.Thread(target=_follow, args=(own, notices, newest, over, tell), name="notices-log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_LOOK_MS / 1000 + LEAST_S + _PATIENCE_S)  # of a look that goes on, and of the last one
        notices.close()
        own.redis.close()


def _follow(runs: RunStore, notices: Notices, newest: str, over: threading.Event, tell: Callable[[str], None]) -> None:
    """Pass on each entry of the log until the context is over, and the log has no more."""
    while True:
        is_last = over.is_set()
        try:
            entries = read_log(runs, after=newest, wait_ms=None if is_last else _LOOK_MS)
        except Exception as error:  # a Redis that is away, or has ended with the run
            if is_last:
                tell(f"notices: the last messages may lack what happened at the end, as Redis cannot be read: {error}")
                return
            over.wait(_PAUSE_S)  # one more look follows, also where it is over by now
            continue
        for logged in entries:
            newest = logged.id
            notices.hear(logged.event)
        if is_last and not entries:
            return


def _held_s(runs: RunStore) -> float | None:
    """Return for how many seconds the run has waited, if it cannot go on by itself: the log has other waits, too.

    0 where the log does not say it.
    """
    snapshot = take_snapshot(runs)
    wait = snapshot.waits_for
    return (wait.lasts_s(snapshot.now_ms) or 0.0) if wait is not None and wait.is_held else None
