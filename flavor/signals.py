"""Handle SIGTERM, SIGINT and SIGHUP within a second, also while the main thread is inside a library.

Python runs signal handlers between two instructions of the main thread. A main thread inside a long call of a library
in another language (an upload, a wait for the network) handles no signal until that call ends. So a separate thread
reads the signals: the interpreter writes each signal's number into a pipe at once. The thread records that the process
was asked to end, which every wait of this project checks, and ends a process whose main thread does not.
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
"""Longest time for the main thread to handle a signal, or for an idle process to end."""
_TWICE_S = 1.0
"""A second signal within this time counts as the same: sent to a process and, by a terminal, to its group."""
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_asked = threading.Event()


def asked_to_end() -> bool:
    """Whether SIGTERM, SIGINT or SIGHUP has come since this process began to listen."""
    return _asked.is_set()


def pause(seconds: float) -> bool:
    """Sleep until the time is over or the process is asked to end; return whether it is asked to end."""
    return _asked.wait(seconds)


class Listener:
    """Handles the signals of a process in a separate thread. A process has one, made in the main thread.

    A second after a signal, and each second from then on, `overdue` says whether this thread must end the process.
    Before it ends the process, it calls `last`. `code` is the exit code, by default that of a process ended by the
    signal. With `twice`, a second signal ends the process regardless of `overdue`.
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
        """Stop listening. For tests: a process listens until it ends."""
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
    """Counts the tasks, such as jobs, that a process finishes even after it was asked to end.

    A task begins under the same lock under which `Listener` checks the count, so that no process is ended in between.
    """

    def __init__(self) -> None:
        self._lock, self._in_hand = threading.Lock(), 0

    @contextlib.contextmanager
    def in_hand(self) -> Iterator[None]:
        """Keep the process from being ended as idle during the block."""
        self.take_up()
        try:
            yield
        finally:
            self.put_down()

    def take_up(self) -> None:
        """Begin a task. Does not return in a process that is being ended."""
        with self._lock:
            self._in_hand += 1

    def put_down(self) -> None:
        """End a task."""
        with self._lock:
            self._in_hand -= 1

    def idle(self) -> bool:
        """Whether there is no task; then none can begin any more. `Listener` calls this, and ends the process."""
        self._lock.acquire()
        if self._in_hand:
            self._lock.release()
            return False
        return True


class _Held:
    """Whether the main thread holds exceptions of signals back, and what then raises the one that came."""

    depth = 0
    then: Callable[[], None] | None = None


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Raise what a signal raises in the main thread (`raise_in_main`) at the end of this short block.

    For a library that makes an error of its own of any exception in what it calls, as pydantic does when it writes
    JSON: what the signal has raised would be lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Held.depth += 1
    try:
        yield
    finally:
        _Held.depth -= 1
        if not _Held.depth and (then := _Held.then) is not None:
            _Held.then = None
            then()


def raise_in_main(kind: type[BaseException], *, last: Callable[[], None] = lambda: None) -> None:
    """Raise `kind` in the main thread, once, when SIGTERM or SIGHUP comes.

    Ends the process after a second where the main thread is inside a call that no handler interrupts, after calling
    `last`. A second signal, more than a second after the first, ends the process also during its clean-up. Children
    that were started by `ChildProcess` end with it.
    """
    heard = threading.Event()

    def handler(number: int, frame: FrameType | None) -> None:
        heard.set()
        for each in hung_up_or_ended():
            signal.signal(each, lambda *_: None)  # the listener hears the next one
        now_or_later(lambda: raised(kind(signal.Signals(number).name)))

    def interrupted(number: int, frame: FrameType | None) -> None:
        heard.set()
        now_or_later(lambda: raised(KeyboardInterrupt()))

    def now_or_later(act: Callable[[], None]) -> None:
        if _Held.depth:
            _Held.then = act
        else:
            act()

    def raised(error: BaseException) -> None:
        raise error

    Listener(lambda: not heard.is_set(), last=last, twice=True)
    for each in hung_up_or_ended():
        signal.signal(each, handler)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupted)


def hung_up_or_ended() -> list[signal.Signals]:
    """Return SIGTERM, and SIGHUP (the terminal was closed) unless the process ignores it, as under nohup."""
    outlives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM] if outlives else [signal.SIGTERM, signal.SIGHUP]
