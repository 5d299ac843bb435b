"""Names of runs, clients and events, which stand in keys, channels and object paths."""

from __future__ import annotations

import re
from enum import StrEnum

from flavor.errors import InvalidSetting, UnknownEvent

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Event(StrEnum):
    """The events of the protocol, as training scripts spell them."""

    TRAIN_INIT_DONE = "TrainInitDone"
    TRAIN_STARTED = "TrainStarted"
    TRAIN_FINISHED = "TrainFinished"
    AGGREGATE_STARTED = "AggregateStarted"
    AGGREGATE_FINISHED = "AggregateFinished"
    PROCESS_FINISHED = "ProcessFinished"
    ERROR = "Error"


def event_name(value: str) -> Event:
    """Return the event of this name. `UnknownEvent` (a `ValueError`) lists the accepted names."""
    try:
        return Event(value)
    except ValueError:
        raise UnknownEvent(f"unknown event {value!r}: use one of {', '.join(Event)}") from None


MOST_LOG_LINES = 1000
MOST_LOG_BYTES = 64 * 1024
"""The most that a site shares of its script's output, and the most that is read of it."""


def count(text: str | None) -> int | None:
    """Read a number of another party: plain decimal digits of bounded length; None for other text."""
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,15}", text) else None


def is_name(value: str) -> bool:
    """Whether `value` is allowed in a key and in a path."""
    return bool(_NAME.fullmatch(value))


def checked_name(value: str, what: str) -> str:
    """Return `value` if it is allowed in a key and in a path. `InvalidSetting` names `what`."""
    if not is_name(value):
        raise InvalidSetting(
            f"{what} {value!r} cannot be used: 1 to 64 letters, digits, '.', '_' or '-', "
            "starting with a letter or digit"
        )
    return value
