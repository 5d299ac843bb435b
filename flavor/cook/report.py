"""Tells how far a training script is. Never raises an error, and never waits for a network.

Importing this module imports no library.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from flavor.programs.report_file import read_report, write_fault, write_report
from flavor.records.reported import Reported, checked_report

_EVERY_S = 1.0


class Cancellable(Protocol):
    """A call that is to come."""

    def cancel(self) -> None:
        """Make it not come."""


def _later(seconds: float, call: Callable[[], None]) -> Cancellable:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()
    return timer


class Throttle:
    """Writes the newest report, at most once a second: at once, or once the second is over. From any thread.

    `write` raises no error.
    """

    def __init__(
        self,
        write: Callable[[Reported], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], Cancellable] = _later,
    ) -> None:
        self._write, self._clock, self._later = write, clock, later
        self._lock, self._writing = threading.RLock(), threading.RLock()  # a signal handler may report, too
        self._pending: Reported | None = None
        self._timer: Cancellable | None = None
        self._due = clock()

    def take(self, reported: Reported) -> None:
        """Write this report, unless another follows within the second of the one before."""
        with self._lock:
            self._pending = reported
            left_s = self._due - self._clock()
            if left_s > 0:
                if self._timer is not None:
                    return
                try:
                    self._timer = self._later(left_s, self.flush)
                    return
                except RuntimeError:  # no thread starts any more: the interpreter ends, or a limit is reached
                    pass
        self.flush()

    def flush(self) -> None:
        """Write now what is not written yet."""
        with self._writing:  # one by one, the last one last
            with self._lock:
                pending, self._pending = self._pending, None
                timer, self._timer = self._timer, None
                if timer is not None:
                    timer.cancel()
                if pending is None:
                    return
                self._due = self._clock() + _EVERY_S
            self._write(pending)


class _Reporter:
    """The reports of this process beside one local model."""

    _instance: _Reporter | None = None
    _lock = threading.RLock()
    _has_warned = False

    def __init__(self, local_model: Path) -> None:
        self.local_model = local_model
        self.throttle = Throttle(self._write)
        self._has_written = False

    @classmethod
    def current(cls) -> _Reporter | None:
        """The reporter of this process; None outside of `flavor-fl`."""
        local = os.environ.get("LOCAL_MODEL_PATH")
        if not local:
            return None
        with cls._lock:
            if cls._instance is None:
                _flush_at_end()
            elif cls._instance.local_model != Path(local):
                flush()
            if cls._instance is None or cls._instance.local_model != Path(local):
                cls._instance = cls(Path(local))
            return cls._instance

    @classmethod
    def after_fork(cls) -> None:
        """Begin anew in a forked process: a thread that it does not have may have held the locks.

        What its parent has not written yet, its parent writes.
        """
        cls._instance, cls._lock = None, threading.RLock()

    @classmethod
    def warn(cls, why: str) -> None:
        """Print one line on stderr, once in a process."""
        if not cls._has_warned and sys.stderr is not None:
            cls._has_warned = True
            with contextlib.suppress(Exception):  # stderr is closed
                print(f"flavor: Report: {why}; training goes on", file=sys.stderr, flush=True)

    def fail(self, why: str) -> None:
        """Warn, and leave a note for `check-fl` where no report was made before, by this process or another one."""
        self.warn(why)
        if not self._has_written:
            with contextlib.suppress(Exception):  # the warning has said it
                if read_report(self.local_model) is None:
                    write_fault(self.local_model, why)

    def _write(self, reported: Reported) -> None:
        try:
            write_report(self.local_model, reported)
            self._has_written = True
        except Exception as error:  # no report is worth a training
            self.warn(f"cannot be written: {error}")


def Report(done: Any = None, total: Any = None, message: str = "", **metrics: Any) -> None:
    """Tell how far this round's training is: `done` of `total` steps, batches or epochs.

    **What is reported leaves the site**: the run's operator, and everyone who may read the run, sees the message and
    the metrics. Report nothing that identifies a patient. `flavor-fl --no-report` keeps all of it at the site.

    `message` is text of up to 300 characters; `metrics` are up to 20 finite numbers, such as `loss=0.3`. Scalars of
    numpy and torch are accepted. A metric that is None or NaN is left out.

    Call it as often as you like: at most one report a second is written, and the last one is kept. It raises no error:
    what is wrong with a report is printed once, on stderr. It does nothing in a script that was started by itself,
    whose environment has no LOCAL_MODEL_PATH.
    """
    report(done, total, message, metrics)


def report(done: Any, total: Any, message: Any, metrics: Mapping[str, Any]) -> None:
    """Do as `Report`, with metrics of any name."""
    try:
        reporter = _Reporter.current()
        if reporter is None:
            return
        try:
            reported, wrong = checked_report(done, total, message, metrics)
        except ValueError as error:
            reporter.fail(str(error))
            return
        if wrong:
            _Reporter.warn("; ".join(wrong))
        reporter.throttle.take(reported)
    except Exception as error:  # no report is worth a training
        _Reporter.warn(f"{type(error).__name__}: {error}")


def flush() -> None:
    """Write the last report now, if it is not written yet. Raises no error."""
    reporter = _Reporter._instance
    if reporter is not None:
        reporter.throttle.flush()


def _flush_at_end() -> None:
    """Have the last report written at the end of this process, also if it is one of multiprocessing's."""
    atexit.register(flush)
    if (util := sys.modules.get("multiprocessing.util")) is not None:  # its processes end without atexit
        util.Finalize(None, flush, exitpriority=0)


os.register_at_fork(after_in_child=_Reporter.after_fork)
