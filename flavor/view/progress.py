"""How far a client is in what it is doing, and since when, for people: from what its edge and its script say.

What a client says is its own word. It is shown only where it fits what the run itself knows of the client.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from flavor.durations import shown_duration
from flavor.printable import quoted
from flavor.programs.process import shortened
from flavor.records.client import Transfer
from flavor.records.pulse import Doing, Load, Pulse
from flavor.records.reported import Reported
from flavor.sizes import shown_progress

MOST_SHOWN = 80
"""Characters of a message in a table."""
_METRICS_SHOWN = 4
_LONGEST_NAME = 24
_LONGEST_REPORT = 120
"""Characters of a report in a table, about."""
_LEAST_OF_MESSAGE = 40
"""Characters of a message that are shown also where metrics take the room."""
_MOVES = (Doing.DOWNLOADING, Doing.UPLOADING)
OLD_S = 10.0
"""From this age on, the age of the newest report is told."""
TOO_SHORT_S = 5.0
"""Below this, how long something lasts is not told."""


@dataclass(frozen=True)
class Progress:
    """How far a client is."""

    doing: Doing | None = None
    """What its edge says that it is doing; None where that does not fit its phase."""
    since_ms: int | None = None
    """Since when it does that, by the clock of the server; None where that is not known."""
    transfer: Transfer | None = None
    """The model that moves at present."""
    reported: Reported | None = None
    """What its script has reported last in this round."""
    load: Load | None = None
    """How busy its machine is."""
    reported_ms: int | None = None
    """When its script has reported that, by the clock of the server; None where that is not known."""

    def lasts_s(self, now_ms: int) -> float | None:
        """How long it has been doing that; None where that is not known."""
        return None if self.since_ms is None else max(0, now_ms - self.since_ms) / 1000

    def silent_s(self, now_ms: int) -> float | None:
        """How long its script has reported nothing; None where that is not known, or it has reported nothing at all."""
        return None if self.reported_ms is None else max(0, now_ms - self.reported_ms) / 1000

    @property
    def share(self) -> float | None:
        """The part of its training that is done by its script's word, from 0 to 1; None where that is not known."""
        moves = self.transfer is not None or self.doing in _MOVES
        return None if moves or self.reported is None else self.reported.share

    @property
    def of(self) -> str:
        """How much of what: '61 % (310 of 508)', '61 of 126 MB (48 %, 2.1 MB/s)', or ''.

        What its script has reported is no share of a model that moves.
        """
        if self.transfer is not None:
            return shown_progress(self.transfer.done_bytes, self.transfer.total_bytes, self.transfer.bytes_s)
        if self.reported is None or self.doing in _MOVES:
            return ""
        done = f"{self.reported.done:.6g}"
        share = self.reported.share
        return done if share is None else f"{math.floor(100 * share)} % ({done} of {self.reported.total:.6g})"

    def described(self, phase: str, now_ms: int) -> str:
        """Describe it after the client's phase: 'training 61 % (310 of 508), began 14 min ago'."""
        return timed(self.words(phase), self.lasts_s(now_ms), self.silent_s(now_ms))

    def words(self, phase: str) -> str:
        """Describe it after the client's phase, without for how long: 'training 61 % (310 of 508)'."""
        word = self.doing if self.doing in _MOVES else phase
        word = word if self.transfer is None else self.transfer.phase
        return " ".join(part for part in (word, self.of) if part)


def timed(words: str, lasts_s: float | None, silent_s: float | None) -> str:
    """Add to a client's `words` how old its report is, and how long it does that; leave short times out.

    So a script that hangs is told from a slow one: what it has reported grows old.
    """
    parts = [words]
    if silent_s is not None and silent_s >= OLD_S:
        parts.append(f"reported {shown_duration(silent_s)} ago")
    if lasts_s is not None and lasts_s >= TOO_SHORT_S:
        lasts = shown_duration(lasts_s)
        parts.append(f"began {lasts} ago" if " " in words else f"for {lasts}")  # not for how long it is 61 %
    return ", ".join(parts)


def words_of(reported: Reported | None) -> str:
    """Return the script's own words, set apart and safe for a terminal: 'loss 0.31, "epoch 3"'; '' for none."""
    if reported is None:
        return ""
    parts, left = list[str](), _LONGEST_REPORT
    for name, value in list(reported.metrics.items())[:_METRICS_SHOWN]:
        short = shortened(name, _LONGEST_NAME)
        part = f"{short if short.isidentifier() and short.isascii() else quoted(short)} {value:.4g}"
        if (left := left - len(part)) >= 0:
            parts.append(part)
    message = quoted(shortened(reported.message, min(MOST_SHOWN, max(_LEAST_OF_MESSAGE, left))))
    return ", ".join(part for part in (*parts, message) if part)


def progress_of(
    pulse: Pulse, transfer: Transfer | None, *, fits: frozenset[Doing], round_: int, begun_ms: int
) -> Progress:
    """Return how far a client is, of which the run knows that it does one of `fits` in this round.

    A time before the run began (`begun_ms`) is not believed.
    """
    doing, reported = pulse.doing, pulse.reported
    in_round = 0 if Doing.STARTING in fits else round_
    if doing is not None and (doing not in fits or (doing is not Doing.WAITING and pulse.round != in_round)):
        doing = None
    if reported is not None and (not fits & {Doing.STARTING, Doing.TRAINING} or reported.round != in_round):
        reported = None
    since_ms = max(pulse.since_ms, begun_ms) if doing and pulse.since_ms else None
    reported_ms = max(pulse.reported_ms, begun_ms) if reported is not None and pulse.reported_ms else None
    return Progress(doing, since_ms, transfer, reported, pulse.load, reported_ms)
