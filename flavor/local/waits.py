"""What a local run waits for, and for how long: by its snapshot, and by what blocks each of its processes.

A process writes what blocks it into a file (`flavor.view.blocked`), so that no program has to look for it in a log.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flavor.bus.runs import RunStore
from flavor.durations import shown_duration
from flavor.errors import FlavorError, RunNotFound
from flavor.programs.process import described_exit
from flavor.view.blocked import blocked_by
from flavor.view.server import refusal_of
from flavor.view.snapshot import Phase, Snapshot, take_snapshot

_TELL_S = 30.0
"""Where there is no live view, a wait of the run is told after so long, and again after twice that time, and so on.

What blocks a process is told at once, and that the Redis server takes no writes.
"""
_SERVER = "\n"
"""Stands for the Redis server among the names of processes, and is the name of none."""
_HELD = "; the run does not go on by itself: end it with Ctrl-C, and `flavor run --resume FOLDER` starts the site again"
"""What to do where a local run waits for a site that has gone: none of its processes starts the site again."""
SHOWN_S = 2.0
"""A shorter wait is not worth a line of the view."""


@dataclass
class _Wait:
    who: str
    text: str
    since: float
    spoken_s: float
    advice: str = ""


def snapshot_if_there(runs: RunStore) -> Snapshot | None:
    """Return how the run stands; None before it has begun."""
    try:
        return take_snapshot(runs)
    except RunNotFound:
        return None


def why_ended(runs: RunStore, code: int | None, line: str) -> str:
    """Say why a process has ended with this exit code and last line.

    A process that a signal has killed did not print why. One that cannot write to the Redis server for too long ends,
    and its log may lie on the same full disk.
    """
    if code is not None and code < 0:
        return f"it was {described_exit(code)}"
    with contextlib.suppress(FlavorError):
        if refusal := refusal_of(runs.redis):
            return f"{refusal}; its last line: {line}"
    return line


def _of_run(snapshot: Snapshot | None) -> str:
    """What the run itself waits for."""
    if snapshot is None:
        return "waiting for the coordinator to begin the run"
    return "" if snapshot.waits_for is None else snapshot.waits_for.sentence


def _is_held(snapshot: Snapshot | None) -> bool:
    """Whether the run cannot go on without a site that has gone."""
    lost = snapshot is not None and any(each.phase in (Phase.GONE, Phase.FAILED) for each in snapshot.clients.values())
    return lost and snapshot is not None and snapshot.waits_for is not None and snapshot.waits_for.is_held


class Waits:
    """The waits of one run; `notes` are the files in which its processes say what blocks them, by process."""

    def __init__(self, notes: Mapping[str, Path], *, now: Callable[[], float] = time.monotonic) -> None:
        self._notes, self._now = notes, now
        self._waits: dict[str, _Wait] = {}

    def look(self, snapshot: Snapshot | None) -> None:
        """See what is waited for now; `snapshot` is the run's, None before it has begun."""
        refusal = snapshot.refusal if snapshot is not None else ""
        texts = {_SERVER: refusal, "": _of_run(snapshot)}
        texts |= {name: blocked_by(note) for name, note in self._notes.items()}
        for name, text in texts.items():
            before = self._waits.get(name)
            if not text:
                self._waits.pop(name, None)
            elif before is None or before.text != text:
                advice = _HELD if not name and _is_held(snapshot) else ""
                spoken_s = 0.0 if name or advice else _TELL_S
                self._waits[name] = _Wait(name.strip(), text, self._now(), spoken_s, advice)
        wait = snapshot.waits_for if snapshot is not None else None
        if snapshot is not None and wait is not None and (lasts_s := wait.lasts_s(snapshot.now_ms)) is not None:
            self._waits[""].since = self._now() - lasts_s  # as the log says it

    def lines(self, *, at_least_s: float = SHOWN_S) -> list[str]:
        """What is waited for, and for how long: a line for each wait that has lasted so long.

        A server that takes no writes comes first: it explains the others.
        """
        return [self._line(wait) for wait in self._in_order() if self._age_s(wait) >= at_least_s]

    def blocked(self) -> list[str]:
        """What keeps the run's processes from going on at this moment: a line for each that is blocked."""
        return [f"{name}: {text}" for name, note in self._notes.items() if (text := blocked_by(note))]

    def news(self) -> Iterable[str]:
        """The lines that it is time to tell."""
        for wait in self._in_order():
            if (age_s := self._age_s(wait)) >= wait.spoken_s:
                while wait.spoken_s <= age_s:
                    wait.spoken_s = max(_TELL_S, 2 * wait.spoken_s)
                yield self._line(wait)

    def _in_order(self) -> list[_Wait]:
        return [self._waits[name] for name in sorted(self._waits, key=lambda name: name != _SERVER)]

    def _age_s(self, wait: _Wait) -> float:
        return self._now() - wait.since

    def _line(self, wait: _Wait) -> str:
        age = f", for {shown_duration(self._age_s(wait))}" if self._age_s(wait) >= 1.0 else ""
        return f"{wait.who}{age}: {wait.text}" if wait.who else f"{wait.text}{age}{wait.advice}"
