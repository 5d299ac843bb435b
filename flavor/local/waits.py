"""What a local run waits for, and for how long: in its coordinator's words, and in those of its other processes.

Each of them says in its log what keeps it from going on. Who looks at the run sees it without looking there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flavor.durations import shown_duration
from flavor.stamp import without_stamp
from flavor.view.snapshot import Snapshot

_TELL_S = 30.0
"""A wait of so long is told of where there is no live view, and again after each such time, doubled; what a process
says keeps it from going on, at once."""
SHOWN_S = 2.0
"""A shorter one is not worth a line of the view."""
_TROUBLE = re.compile(
    r"takes no writes|does not answer|takes none for now|No space left|trying again|cannot be used|without having set"
    r"|waiting for (the store|room), for at most|waiting for an earlier transfer"
)
_CLOCK = re.compile(r"; trying for \d+ s more")
"""What goes on changing in a line, while that what it says stays the same."""
_MOST_BYTES = 64 * 1024
"""Of what was added to a log since the last look."""


@dataclass
class _Wait:
    who: str
    text: str
    since: float
    spoken_s: float


def _of_run(snapshot: Snapshot | None) -> str:
    """What the run itself waits for."""
    if snapshot is None:
        return "waiting for the coordinator to begin the run"
    return "" if snapshot.waits_for is None else snapshot.waits_for.sentence


class Waits:
    """The waits of one run whose processes write these `logs`, by the names of the processes."""

    def __init__(self, logs: Mapping[str, Path], *, now: Callable[[], float] = time.monotonic) -> None:
        self._logs, self._now = logs, now
        self._read: dict[str, int] = {}  # how much of each log has been read
        self._said: dict[str, str] = {}  # what each process said last, if that is what keeps it from going on
        self._waits: dict[str, _Wait] = {}

    def look(self, snapshot: Snapshot | None) -> None:
        """See what is waited for now; `snapshot` is the run's, None before it has begun."""
        for name, log in self._logs.items():
            self._hear(name, log)
        for name, text in {"": _of_run(snapshot), **self._said}.items():
            before = self._waits.get(name)
            if not text:
                self._waits.pop(name, None)
            elif before is None or before.text != text:
                self._waits[name] = _Wait(name, text, self._now(), 0.0 if name else _TELL_S)
        wait = snapshot.waits_for if snapshot is not None else None
        if snapshot is not None and wait is not None and (lasts_s := wait.lasts_s(snapshot.now_ms)) is not None:
            self._waits[""].since = self._now() - lasts_s  # as the log says it

    def lines(self, *, at_least_s: float = SHOWN_S) -> list[str]:
        """What is waited for, and for how long: a line each, of those that take so long."""
        return [self._line(wait) for wait in self._waits.values() if self._age_s(wait) >= at_least_s]

    def said(self) -> list[str]:
        """What the processes have said last, of what keeps them from going on."""
        for name, log in self._logs.items():
            self._hear(name, log)
        return [f"{name}: {text}" for name, text in self._said.items() if text]

    def news(self) -> Iterable[str]:
        """Those lines that it is time to tell."""
        for wait in self._waits.values():
            if (age_s := self._age_s(wait)) >= wait.spoken_s:
                while wait.spoken_s <= age_s:
                    wait.spoken_s = max(_TELL_S, 2 * wait.spoken_s)
                yield self._line(wait)

    def _age_s(self, wait: _Wait) -> float:
        return self._now() - wait.since

    def _line(self, wait: _Wait) -> str:
        age = f", for {shown_duration(self._age_s(wait))}" if self._age_s(wait) >= 1.0 else ""
        return f"{wait.who}{age}: {wait.text}" if wait.who else f"{wait.text}{age}"

    def _hear(self, name: str, log: Path) -> None:
        """Read what a process has added to its log: its newest line of its own says what it waits for, if anything."""
        try:
            size = log.stat().st_size
            start = max(self._read.get(name, 0), size - _MOST_BYTES)
            if size <= start:
                return
            with log.open("rb") as file:
                file.seek(start)
                whole = file.read(size - start).rpartition(b"\n")[0]
        except OSError:
            return
        self._read[name] = start + len(whole) + 1 if whole else start
        for line in map(without_stamp, whole.decode(errors="replace").splitlines()):
            own = line.removeprefix(f"[{name}] ")
            if not own.startswith("flavor: ") and not line.startswith(("[coordinator] ", "[aggregator] ")):
                continue
            own = re.sub(r"^(\[\w+\] |flavor: )", "", own)
            self._said[name] = _CLOCK.sub("", own) if _TROUBLE.search(own) else ""
