"""Decides which events of a run become a message, what it says, and when it is due. Sends nothing.

A message has a few lines: one for each site and kind of news, with a count. What does not fit is counted. Messages
about sites and waits are bounded in number: a few at once, and one more every few minutes. Those that one site causes
are bounded more strictly, and a site of which much was told stands behind the others. What comes in between waits for
the next message. The message about the end of the run is always due at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from flavor.counted import counted
from flavor.durations import shown_duration
from flavor.notices import AFTER_S
from flavor.printable import printable
from flavor.records.evaluation import EvaluationKind
from flavor.view.client_events import (
    ClientLost,
    ClientNotAdmitted,
    ClientOtherKey,
    ClientOutpaced,
    ClientQuarantined,
    ClientTooSlow,
    UpdateAccepted,
    UpdateRefused,
)
from flavor.view.evaluation_events import EvaluationClosed, EvaluationFailed
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

TOGETHER_S = 2.0
"""Sites that are lost at once, as when a network fails, are in one message."""
GROUPED_S = 60.0
"""Refusals of so many seconds are in one message."""
_BURST, _REFILL_S = 5, 300.0
_SITE_BURST, _SITE_REFILL_S = 2, 1800.0
_MOST_LINES, _MOST_NAMED, _MOST_SHOWN = 10, 8, 200
_MOST_WHOLE, _MOST_READ = 1000, 20_000
_MOST_WAITS, _MOST_KEPT, _MOST_BUDGETS = 4, 500, 5000
_REFUSED = "refused"
_MOVES = (RoundOpened, RoundReopened, RoundClosed, AggregationBegun, UpdateAccepted)
"""Events that end a wait."""


_LINKS = (
    (re.compile(r"(?i)\bhttp(s?)://"), r"hxxp\1://"),
    (re.compile(r"(?i)\b(?!(?:hxxps?|s3|gs|az|rediss?|unix)://)([a-z][a-z0-9+.-]*)://"), r"\1(:)//"),
    (re.compile(r"(?i)\b(javascript|data|mailto|tel|sms):(?=\S)"), r"\1(:)"),
    (re.compile(r"(?i)\bwww\."), "www(.)"),
)
"""What chats make links of, and what stands in its place. Flavor's own texts name stores and servers of Redis."""
_PLAIN = str.maketrans("@<>[]`*", "＠‹›()'∗")
"""Signs by which a chat calls people, links and formats, and what stands in their place."""


class Tone(StrEnum):
    """How bad the news is, in the words that apprise has for it."""

    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Message:
    """What is sent."""

    title: str
    body: str
    tone: Tone


class _Budget:
    """Allows a few messages at once, and one more every `refill_s` seconds."""

    def __init__(self, burst: int, refill_s: float) -> None:
        self._burst, self._refill_s = float(burst), refill_s
        self._left, self._left_at = self._burst, 0.0

    def left(self, now: float) -> float:
        return min(self._burst, self._left + (now - self._left_at) / self._refill_s)

    def allowed_at(self, now: float) -> float:
        """Return from when on a message is allowed."""
        lacks = 1 - self.left(now)
        return now + lacks * self._refill_s if lacks > 0 else 0.0

    def spend(self, now: float) -> None:
        self._left, self._left_at = max(0.0, self.left(now) - 1), now


@dataclass
class _News:
    """What has happened to one site, of one kind, however often."""

    site: str
    what: str
    """Such as "is gone"."""
    since: float
    reason: str = ""
    number: int = 0

    @property
    def is_refusal(self) -> bool:
        return self.what == _REFUSED

    @property
    def due(self) -> float:
        """When it is due, if its site has not used up its messages."""
        return self.since + (GROUPED_S if self.is_refusal else TOGETHER_S)

    @property
    def title(self) -> str:
        return self.what if self.is_refusal else f"{self.site} {self.what}"

    @property
    def line(self) -> str:
        often = f"{self.number} times, the last time: " if self.number > 1 else ""
        if self.is_refusal:
            return f"refused: {self.site} ({often}{self.reason})"
        return f"{self.title} ({often}{self.reason})" if often else f"{self.title}: {self.reason}"


class _Sites:
    """News of sites that wait for a message: a line for each site and kind, with a count.

    Each site has a budget of its own. One that has used it up waits for the messages that others cause, and stands
    behind them there: a site that comes and goes cannot keep out what happens to another.
    """

    def __init__(self) -> None:
        self._news: dict[tuple[str, str], _News] = {}  # the oldest first
        self._more = 0
        self._budgets: dict[str, _Budget] = {}

    def __bool__(self) -> bool:
        return bool(self._news)

    def add(self, site: str, what: str, reason: str, now: float) -> None:
        if (site, what) not in self._news:
            if len(self._news) >= _MOST_KEPT:
                self._more += 1
                return
            self._news[site, what] = _News(site, what, now)
        news = self._news[site, what]
        news.reason, news.number = reason, news.number + 1

    def due(self, now: float) -> float | None:
        return min(
            (max(each.due, self._budget(each.site).allowed_at(now)) for each in self._news.values()), default=None
        )

    def take(self, now: float, most: int) -> tuple[list[_News], list[str]]:
        """Return the news to tell, and lines that count the rest.

        Those of sites of which much was told stand behind the others, and refusals behind what else has happened.
        """

        def rank(each: _News) -> tuple[bool, bool, float]:
            left = self._budget(each.site).left(now)
            return left < 1, each.is_refusal, -left

        ranked = sorted(self._news.values(), key=rank)
        refusals = [each for each in ranked if each.is_refusal][:_MOST_NAMED]
        told = [each for each in ranked if not each.is_refusal or each in refusals][:most]
        left_out = [each for each in ranked if each not in told]
        self._more += sum(not each.is_refusal for each in left_out)
        refused = sum(each.number for each in left_out if each.is_refusal)
        rest = [f"and {self._more} more"] if self._more else []
        rest += [f"and {counted(refused, 'refusal')} of other sites"] if refused else []
        for site in dict.fromkeys(each.site for each in told):
            budget = self._budget(site)
            budget.spend(now)
            self._budgets.pop(site, None)
            self._budgets[site] = budget
        while len(self._budgets) > _MOST_BUDGETS:
            del self._budgets[next(iter(self._budgets))]
        self._news, self._more = {}, 0
        return sorted(told, key=lambda each: each.is_refusal), rest

    def _budget(self, site: str) -> _Budget:
        return self._budgets.get(site) or _Budget(_SITE_BURST, _SITE_REFILL_S)


class Digest:
    """The news of one run that are not sent yet. Times are seconds of one monotonic clock."""

    def __init__(self, run: str, *, after_s: float = AFTER_S) -> None:
        """Make a digest in which a wait is news after `after_s` seconds."""
        self._run, self._after_s = run, after_s
        self._round = ""
        self._lines: list[str] = []  # about waits and evaluations
        self._failing: set[EvaluationKind | None] = set()  # kinds of evaluations of which the last one has failed
        self._is_warned = False  # whether a line says that one has failed
        self._since: float | None = None  # when the oldest of the lines came
        self._sites = _Sites()
        self._wait: tuple[str, float] | None = None
        self._told_wait = False
        self._end: tuple[str, str, Tone] | None = None
        self._budget = _Budget(_BURST, _REFILL_S)

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
                self._sites.add(shown(client), "is quarantined", shown(event.reason), now)
            case ClientTooSlow(client=client):
                self._sites.add(shown(client), "is too slow", shown(event.reason), now)
            case ClientOutpaced(client=client):
                self._sites.add(shown(client), "is left behind by quicker sites", shown(event.reason), now)
            case ClientLost(client=client):
                self._sites.add(shown(client), "is gone", shown(event.reason), now)
            case UpdateRefused(client=client) | ClientNotAdmitted(client=client) | ClientOtherKey(client=client):
                self._sites.add(shown(client), _REFUSED, shown(event.reason), now)
            case RoundWaiting() | RunWaiting():
                if event.is_routine:
                    self._has_moved(now)
                else:
                    self._wait = (event.reason, now if self._wait is None else self._wait[1])
            case EvaluationFailed() if event.kind is not EvaluationKind.ASKED and event.kind not in self._failing:
                self._failing.add(event.kind)
                self._is_warned = True
                self._add(f"evaluation failed: {shown_whole(event.reason)}", now)
            case EvaluationClosed():
                self._failing.discard(event.kind)
            case _ if isinstance(event, _MOVES):
                self._has_moved(now)
        if isinstance(event, RoundOpened | RoundReopened) and event.round:
            rounds = event.rounds if isinstance(event, RoundOpened) else 0
            self._round = f", round {event.round}{f' of {rounds}' if rounds else ''}"

    def end(self, how: str, reason: str, tone: Tone) -> None:
        """Take note that the run has ended, or its coordinator: the last message."""
        self._end = how, shown_whole(reason), tone

    @property
    def awaits(self) -> bool:
        """Whether the run waits, for however short a time, and no message has told of that yet."""
        return self._wait is not None and not self._told_wait

    def goes_on(self, now: float) -> None:
        """Forget the present wait, which is none that people have to know of; it begins anew."""
        if self._wait is not None:
            self._wait = (self._wait[0], now)

    def has_lasted(self, seconds: float, now: float) -> None:
        """Take note that the present wait has lasted for so long: it may have begun before its first event came."""
        if self._wait is not None:
            self._wait = (self._wait[0], min(self._wait[1], now - seconds))

    def due(self, now: float) -> float | None:
        """Return when the next message is due; None while there is no news."""
        if self._end is not None:
            return now
        dues = [] if (of_sites := self._sites.due(now)) is None else [of_sites]
        if self._since is not None:
            dues.append(self._since + TOGETHER_S)
        if self.awaits and self._wait is not None:
            dues.append(self._wait[1] + self._after_s)
        return max(min(dues), self._budget.allowed_at(now)) if dues else None

    def take(self, now: float) -> Message | None:
        """Return all news as one message; None where there are none."""
        is_long = self.awaits and self._wait is not None and now >= self._wait[1] + self._after_s
        tone = Tone.WARNING if self._sites or self._is_warned or (is_long and self._end is None) else Tone.INFO
        if is_long and self._wait is not None and self._end is None:
            reason, since = self._wait
            self._told_wait = True
            self._add(f"waiting for {shown_duration(now - since)}: {shown_whole(reason)}", now)
        if not self._lines and not self._sites and self._end is None:
            return None
        news, rest = self._sites.take(now, _MOST_LINES - len(self._lines))
        lines = [*(each.line for each in news if not each.is_refusal), *self._lines]
        lines += [*(each.line for each in news if each.is_refusal), *rest]
        titles = [*(each.title for each in news), *(line.partition(":")[0] for line in self._lines)]
        if self._end is not None:
            how, reason, tone = self._end
            lines.insert(0, f"{how}: {reason}")
        else:
            how = titles[0] + (", and more" if len(lines) > 1 else "")
        self._lines, self._since, self._end, self._is_warned = [], None, None, False
        self._budget.spend(now)
        return Message(f"flavor: run {self._run}{self._round}: {how}", "\n".join(lines), tone)

    def _add(self, line: str, now: float) -> None:
        self._lines = [*self._lines, line][-_MOST_WAITS:]
        self._since = now if self._since is None else self._since

    def _has_moved(self, now: float) -> None:
        if self._wait is not None and self._told_wait:
            self._add(f"going on after {shown_duration(now - self._wait[1])}", now)
        self._wait, self._told_wait = None, False


def shown(text: str) -> str:
    """Return what others wrote as a chat can show it: short, on one line, without calls, tags and links."""
    line = printable(" ".join(text[: 4 * _MOST_SHOWN].split()))
    return _plain(line if len(line) <= _MOST_SHOWN else f"{line[: _MOST_SHOWN - 1]}…")


def shown_whole(text: str) -> str:
    """Return what flavor itself says, which often ends with what to do, as `shown` does, at greater length.

    What sites wrote stands in quotation marks, and is cut as in `shown`. A text that is too long loses its middle.
    """
    cut = re.sub(r'"([^"]*)"', lambda found: f'"{_cut(found[1])}"', " ".join(text[:_MOST_READ].split()))
    line = printable(cut)
    if len(line) > _MOST_WHOLE:
        line = f"{line[: _MOST_WHOLE // 2]} … {line[-_MOST_WHOLE // 2 :]}"
    return _plain(line)


def _cut(words: str) -> str:
    return words if len(words) <= _MOST_SHOWN else f"{words[: _MOST_SHOWN - 1]}…"


def _plain(line: str) -> str:
    """Return the line without calls, tags and links."""
    for link, words in _LINKS:
        line = link.sub(words, line)
    return line.translate(_PLAIN)
