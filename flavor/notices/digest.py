"""Decides which events of a run become a message, what it says, and when it is due. Sends nothing.

A message has a few lines; what does not fit is counted. Messages about sites and waits are bounded in number: a few at
once, and one more every few minutes. What comes in between waits for the next message. The message about the end of the
run is always due at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from flavor.counted import counted
from flavor.durations import shown_duration
from flavor.printable import printable
from flavor.view.client_events import (
    ClientLost,
    ClientNotAdmitted,
    ClientOtherKey,
    ClientQuarantined,
    UpdateAccepted,
    UpdateRefused,
)
from flavor.view.event import Event
from flavor.view.round_events import (
    AggregationBegun,
    RoundClosed,
    RoundOpened,
    RoundReopened,
    RoundWaiting,
    RunEnded,
    RunFailed,
    RunFinished,
    RunWaiting,
)

AFTER_S = 900.0
"""Default of how long a run waits before a message says so."""
TOGETHER_S = 2.0
"""Sites that are lost at once, as when a network fails, are in one message."""
GROUPED_S = 60.0
"""Refusals of so many seconds are in one message."""
_BURST, _REFILL_S = 5, 300.0
_MOST_LINES, _MOST_NAMED, _MOST_SHOWN = 10, 8, 200
_MOVES = (RoundOpened, RoundReopened, RoundClosed, AggregationBegun, UpdateAccepted)
"""Events that end a wait."""


_PLAIN = str.maketrans("@<>[]`*", "＠‹›()'∗")
"""Signs by which a chat calls people, links and formats, and what stands in their place."""


class Tone(StrEnum):
    """How bad the news is, in the words that apprise has for it."""

    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


_TONES = {RunFinished: Tone.SUCCESS, RunFailed: Tone.FAILURE}


@dataclass(frozen=True)
class Message:
    """What is sent."""

    title: str
    body: str
    tone: Tone


@dataclass
class _Refusals:
    """Refusals that wait for a message."""

    since: float
    by_site: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    others: int = 0
    """Refusals of sites beyond those that are named."""

    def add(self, site: str, reason: str) -> None:
        if site in self.by_site or len(self.by_site) < _MOST_NAMED:
            self.by_site[site] = self.by_site.get(site, 0) + 1
            self.reasons[site] = reason
        else:
            self.others += 1

    def lines(self) -> list[str]:
        found = [
            f"refused: {site}{f' ({number} times, the last time: ' if number > 1 else ' ('}{self.reasons[site]})"
            for site, number in self.by_site.items()
        ]
        return [*found, f"and {counted(self.others, 'refusal')} of other sites"] if self.others else found


class Digest:
    """The news of one run that are not sent yet. Times are seconds of one monotonic clock."""

    def __init__(self, run: str, *, after_s: float = AFTER_S) -> None:
        """Make a digest in which a wait is news after `after_s` seconds."""
        self._run, self._after_s = run, after_s
        self._round = ""
        self._lines: list[str] = []
        self._more = 0
        self._since: float | None = None  # when the oldest of the lines came
        self._tone = Tone.INFO
        self._refusals: _Refusals | None = None
        self._wait: tuple[str, float] | None = None
        self._told_wait = False
        self._end: tuple[str, str, Tone] | None = None
        self._left, self._left_at = float(_BURST), 0.0

    def add(self, event: Event, now: float) -> None:
        """Take note of an event."""
        match event:
            case RunEnded():
                tone = Tone.SUCCESS if isinstance(event, RunFinished) else Tone.WARNING
                self.end(
                    event.name.removeprefix("run."),
                    event.reason,
                    Tone.FAILURE if isinstance(event, RunFailed) else tone,
                )
            case ClientQuarantined(client=client):
                self._add(f"{shown(client)} is quarantined: {shown(event.reason)}", Tone.WARNING, now)
            case ClientLost(client=client):
                self._add(f"{shown(client)} is gone: {shown(event.reason)}", Tone.WARNING, now)
            case UpdateRefused(client=client) | ClientNotAdmitted(client=client) | ClientOtherKey(client=client):
                self._refusals = self._refusals or _Refusals(now)
                self._refusals.add(shown(client), shown(event.reason))
            case RoundWaiting() | RunWaiting():
                if event.is_routine:
                    self._has_moved(now)
                else:
                    self._wait = (event.reason, now if self._wait is None else self._wait[1])
            case _ if isinstance(event, _MOVES):
                self._has_moved(now)
        if isinstance(event, RoundOpened | RoundReopened) and event.round:
            rounds = event.rounds if isinstance(event, RoundOpened) else 0
            self._round = f", round {event.round}{f' of {rounds}' if rounds else ''}"

    def end(self, how: str, reason: str, tone: Tone) -> None:
        """Take note that the run has ended, or its coordinator: the last message."""
        self._end = how, shown(reason), tone

    @property
    def awaits(self) -> bool:
        """Whether the run has waited for so long that it becomes news at the next `take`."""
        return self._wait is not None and not self._told_wait

    def goes_on(self, now: float) -> None:
        """Forget the present wait, which is none that people have to know of; it begins anew."""
        if self._wait is not None:
            self._wait = (self._wait[0], now)

    def due(self, now: float) -> float | None:
        """Return when the next message is due; None while there is no news."""
        if self._end is not None:
            return now
        dues = []
        if self._since is not None:
            dues.append(max(self._since + TOGETHER_S, self._allowed_at(now)))
        if self._refusals is not None:
            dues.append(max(self._refusals.since + GROUPED_S, self._allowed_at(now)))
        if self.awaits and self._wait is not None:
            dues.append(max(self._wait[1] + self._after_s, self._allowed_at(now)))
        return min(dues, default=None)

    def take(self, now: float) -> Message | None:
        """Return all news as one message; None where there are none."""
        if self.awaits and self._wait is not None and now >= self._wait[1] + self._after_s and self._end is None:
            reason, since = self._wait
            self._told_wait = True
            self._add(f"waiting for {shown_duration(now - since)}: {shown(reason)}", Tone.WARNING, now)
        lines = list(self._lines)
        if self._refusals is not None:
            lines += self._refusals.lines()
        if not lines and self._end is None:
            return None
        kept, more = lines[:_MOST_LINES], self._more + max(0, len(lines) - _MOST_LINES)
        kept += [f"and {more} more"] if more else []
        tone = self._tone if self._lines else Tone.WARNING
        if self._end is not None:
            how, reason, tone = self._end
            kept.insert(0, f"{how}: {reason}")
        else:
            how = lines[0].partition(":")[0] + (", and more" if len(lines) > 1 or more else "")
        self._lines, self._more, self._since, self._refusals, self._tone = [], 0, None, None, Tone.INFO
        self._end = None
        self._left = max(0.0, self._allowance(now) - 1)
        self._left_at = now
        return Message(f"flavor: run {self._run}{self._round}: {how}", "\n".join(kept), tone)

    def _add(self, line: str, tone: Tone, now: float) -> None:
        if len(self._lines) < _MOST_LINES:
            self._lines.append(line)
        else:
            self._more += 1
        self._since = now if self._since is None else self._since
        self._tone = tone

    def _has_moved(self, now: float) -> None:
        if self._wait is not None and self._told_wait:
            self._add(f"going on after {shown_duration(now - self._wait[1])}", Tone.INFO, now)
        self._wait, self._told_wait = None, False

    def _allowance(self, now: float) -> float:
        return min(float(_BURST), self._left + (now - self._left_at) / _REFILL_S) if self._left_at else float(_BURST)

    def _allowed_at(self, now: float) -> float:
        """Return from when on a message is allowed."""
        lacks = 1 - self._allowance(now)
        return now + lacks * _REFILL_S if lacks > 0 else 0.0


def shown(text: str) -> str:
    """Return what others wrote as a chat can show it: short, on one line, without calls, tags and links."""
    line = printable(" ".join(text[: 4 * _MOST_SHOWN].split()))
    line = line if len(line) <= _MOST_SHOWN else f"{line[: _MOST_SHOWN - 1]}…"
    line = re.sub(r"(?i)\bhttp(s?)://", r"hxxp\1://", line)
    return line.translate(_PLAIN)
