"""How far a training script says that it is: a plain value, bounded, in the script's own words.

Plain Python without dataclasses, because a trainer imports it (`flavor.watch` says why).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

LONGEST_MESSAGE = 300
MOST_METRICS = 20
LONGEST_NAME = 64
"""Characters of the name of a metric."""
MOST_BYTES = 4096
"""The whole record as JSON."""
_LARGEST = 1e300
_MOST_ROUNDS = 2**53


class Reported(NamedTuple):
    """What a script has reported last."""

    done: float
    """Steps, batches, epochs, … that are done; 0 or more."""
    total: float | None = None
    """How many there are in this round, more than 0; None where the script does not say."""
    message: str = ""
    metrics: Mapping[str, float] = {}
    round: int = 0
    """The round that the trainer was in, as its edge knows it; 0 before the first."""

    @property
    def share(self) -> float | None:
        """The part that is done, from 0 to 1; None where the script does not say of how much."""
        return None if self.total is None else min(1.0, self.done / self.total)

    @property
    def line(self) -> str:
        """All of it in one line, in the script's own words: escape it before it is shown."""
        of = "" if self.total is None else f" of {self.total:.12g}"
        metrics = (f"{name} {value:.4g}" for name, value in self.metrics.items())
        return ", ".join(part for part in (f"{self.done:.12g}{of}", *metrics, self.message) if part)

    def to_json(self) -> str:
        """ASCII of `MOST_BYTES` at most; leaves out the last metrics, and then the end of the message, for that."""
        metrics, message = dict(self.metrics), self.message
        while True:
            fields = {"done": self.done, "total": self.total, "message": message, "metrics": metrics}
            text = json.dumps({**fields, "round": self.round}, allow_nan=False)
            if len(text) <= MOST_BYTES:
                return text
            if metrics:
                metrics.popitem()
            else:
                message = message[: len(message) // 2]

    @classmethod
    def from_json(cls, text: str) -> Reported | None:
        """Read what another party has written; None where that is no report, or is longer than one."""
        if len(text) > MOST_BYTES:
            return None
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict):
            return None
        done, total, round_ = (_finite(found.get(name)) for name in ("done", "total", "round"))
        if done is None or done < 0:
            return None
        message, metrics = found.get("message"), found.get("metrics")
        read = ((name[:LONGEST_NAME], _finite(value)) for name, value in _items(metrics))
        known = [(name, value) for name, value in read if value is not None]
        return cls(
            done,
            total if total is not None and total > 0 else None,
            message[:LONGEST_MESSAGE] if isinstance(message, str) else "",
            dict(known[:MOST_METRICS]),
            int(round_) if round_ is not None and 0 <= round_ < _MOST_ROUNDS else 0,
        )


def checked_report(
    done: object, total: object = None, message: object = "", metrics: Mapping[str, object] | None = None
) -> tuple[Reported, list[str]]:
    """Return what a script reports, and what is wrong with it and was left out.

    Numbers may be scalars of numpy or torch. A metric that is None or not finite is missing, and that is not wrong. A
    longer message ends in "…". Raises `ValueError` where `done` is no number.
    """
    wrong: list[str] = []
    steps, whole = _number(done), _number(total)
    if steps is None or steps < 0:
        raise ValueError(f"done must be a number, 0 or more, and is {_shown(done)}")
    if total is not None and (whole is None or whole <= 0):
        wrong.append(f"total must be a number above 0, and is {_shown(total)}")
        whole = None
    text = message if isinstance(message, str) else str(message)
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[: LONGEST_MESSAGE - 1]}…"
    found: dict[str, float] = {}
    for name, value in (metrics or {}).items():
        number = _number(value)
        if number is None:
            if not _is_missing(value):
                wrong.append(f"the metric {name[:LONGEST_NAME]!a} must be a number, and is {_shown(value)}")
        elif len(name) > LONGEST_NAME:
            wrong.append(f"the name {name[:40]!a}… has more than {LONGEST_NAME} characters")
        elif len(found) == MOST_METRICS:
            wrong.append(f"there are more than {MOST_METRICS} metrics, and the first {MOST_METRICS} are taken")
            break
        else:
            found[name] = number
    return Reported(steps, whole, text, found), wrong


def _items(value: object) -> list[tuple[str, object]]:
    return list(value.items()) if isinstance(value, dict) else []


def _finite(value: object) -> float | None:
    """A number of JSON, if it is one and finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= _LARGEST else None  # NaN is not, and an integer of any length can be compared


def _number(value: Any) -> float | None:
    """A finite number, also of numpy or torch; None for anything else."""
    if callable(item := getattr(value, "item", None)):
        try:
            value = item()
        except (TypeError, ValueError, RuntimeError):  # of more than one number
            return None
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        return None
    if not isinstance(value, int | float):  # Decimal, Fraction
        try:
            value = float(value)
        except (TypeError, ValueError, OverflowError):
            return None
    return _finite(value)


def _is_missing(value: Any) -> bool:
    """Whether a metric has no value: None, NaN or infinite."""
    if value is None:
        return True
    try:
        return not isinstance(value, str | bytes) and not math.isfinite(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return False


def _shown(value: object) -> str:
    try:
        text = ascii(value)
    except Exception:  # the value is the script's own
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:60]}…"
