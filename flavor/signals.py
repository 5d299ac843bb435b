"""SIGTERM, SIGINT and SIGHUP, heard within a second wherever the main thread stands.

Python runs signal handlers between two instructions of the main thread, so one that is inside a long call of a library
in another language (an upload, a wait for the network) hears nothing until that call is over. Here a thread of its own
hears them: the interpreter writes each signal's number into a pipe at once. It notes that the end was asked for, which
every wait of this project looks at, and ends a process whose main thread does not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

WITHIN_S = 1.0
"""How long the main thread may take to hear of a signal, or an idle process to end."""
_TWICE_S = 1.0
"""A second signal this soon is the same one: sent to a process and, by a terminal, to its group."""
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_asked = threading.Event()


def asked_to_end() -> bool:
    """Whether SIGTERM, SIGINT or SIGHUP has come since this process began to listen."""
    return _asked.is_set()


def pause(seconds: float) -> bool:
    """Sleep, but no longer than until the end is asked for; whether it is."""
    return _asked.wait(seconds)


class Listener:
    """Hears the signals of a process, in a thread of its own; one a process, made in the main thread.

    `overdue` says, a second after a signal and from then on each second, whether the process is to be ended from
    here; `last` is what is done before, and `code` the exit code then, by default that of a process that the signal
    has ended. With `twice` a second signal ends it whatever `overdue` says.
    """

    def __init__(
        self,
        overdue: Callable[[], bool],
        *,
        last: Callable[[], None] = lambda: None,
        code: int | None = None,
        twice: bool = False,
    ) -> None:
        self._overdue, self._last, self._code, self._twice = overdue, last, code, twice
        _asked.clear()
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        self._before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._write = write
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def close(self) -> None:
        """Listen no more; for tests, since a process listens as long as it lives."""
        signal.set_wakeup_fd(self._before)
        os.close(self._write)
        _asked.clear()

    def _listen(self) -> None:
        first_at = 0.0
        while numbers := os.read(self._read, 64):
            for number in numbers:
                if number not in _ENDING:
                    continue
                if not first_at:
                    first_at = time.monotonic()
                    _asked.set()
                    threading.Thread(target=self._see_to_it, args=(number,), name="ending", daemon=True).start()
                elif self._twice and time.monotonic() - first_at > _TWICE_S:
                    self._end(number, None)
        os.close(self._read)

    def _see_to_it(self, number: int) -> None:
        while _asked.is_set():
            time.sleep(WITHIN_S)
            if self._overdue():
                self._end(number, self._code)

    def _end(self, number: int, code: int | None) -> None:
        with contextlib.suppress(Exception):
            self._last()
        os._exit(128 + number if code is None else code)


class Errand:
    """What a process has in hand, and finishes although its end was asked for: a job, say.

    Whoever takes it up does so under the same lock that `Listener` looks under, so no process is ended in between.
    """

    def __init__(self) -> None:
        self._lock, self._in_hand = threading.Lock(), 0

    @contextlib.contextmanager
    def in_hand(self) -> Iterator[None]:
        """Until this is left the process is not ended for being idle."""
        self.take_up()
        try:
            yield
        finally:
            self.put_down()

    def take_up(self) -> None:
        """Have one thing more in hand; does not return in a process that is being ended."""
        with self._lock:
            self._in_hand += 1

    def put_down(self) -> None:
        """Have one thing less in hand."""
        with self._lock:
            self._in_hand -= 1

    def idle(self) -> bool:
        """Whether nothing is in hand; if so nothing ever will be: for `Listener`, which ends the process then."""
        self._lock.acquire()
        if self._in_hand:
            self._lock.release()
            return False
        return True


def raise_in_main(kind: type[BaseException], *, last: Callable[[], None] = lambda: None) -> None:
    """Raise `kind` in the main thread when SIGTERM or SIGHUP comes, once; end a process that does not within a second.

    That happens where the main thread is inside a call that no handler interrupts. `last` is done before, then; what
    this process has started by `ChildProcess` ends with it.
    """
    heard = threading.Event()

    def handler(number: int, frame: FrameType | None) -> None:
        heard.set()
        for each in hung_up_or_ended():
            signal.signal(each, signal.SIG_IGN)
        raise kind(signal.Signals(number).name)

    def interrupted(number: int, frame: FrameType | None) -> None:
        heard.set()
        signal.default_int_handler(number, frame)

    Listener(lambda: not heard.is_set(), last=last)
    for each in hung_up_or_ended():
        signal.signal(each, handler)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupted)


def hung_up_or_ended() -> list[signal.Signals]:
    """SIGTERM, and SIGHUP (the terminal was closed) unless this process is to outlive that, as under nohup."""
    outlives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM] if outlives else [signal.SIGTERM, signal.SIGHUP]
