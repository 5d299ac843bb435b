"""The moment that `--since` names: so long ago, a date, a time of day, or both."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta

from flavor.errors import InvalidSetting

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_PART = r"(\d{1,12}(?:\.\d{1,9})?) ?(s|min|m|h|d|w)"
_AGO = re.compile(rf"{_PART}(?: ?{_PART})*", flags=re.ASCII)
_FORMS = "write so long ago (90s, 30m, 2h, 1d), a time (03:00), a date (2026-11-29) or both (2026-11-29T03:00+01:00)"


def since_ms(text: str, now_ms: int) -> int:
    """Return the moment in milliseconds since 1970; `now_ms` is the present one, by the clock that wrote the log.

    A date or a time without a time zone is in the zone of this machine, as the times that `flavor log` prints. A time
    of day without a date is the last such time. Raises `InvalidSetting` for other text, and for a moment to come.
    """
    found = _moment(text.strip(), now_ms)
    if found is None:
        raise InvalidSetting(f"--since {text}: {_FORMS}")
    if found > now_ms:
        raise InvalidSetting(
            f"--since {text}: that is still to come: the clock of the Redis server says {_shown(now_ms)}"
        )
    return max(0, found)


def _moment(text: str, now_ms: int) -> int | None:
    if _AGO.fullmatch(text):
        seconds = sum(float(count) * _UNITS[unit] for count, unit in re.findall(_PART, text))
        return now_ms - round(1000 * seconds)
    try:
        if ":" in text[:3]:
            now = datetime.fromtimestamp(now_ms / 1000).astimezone()
            at = time.fromisoformat(text)
            today = datetime.combine(now.astimezone(at.tzinfo), at)
            moment = today if today.timestamp() * 1000 <= now_ms else today - timedelta(days=1)
        else:
            moment = datetime.fromisoformat(text)
        return round(1000 * moment.timestamp())
    except (ValueError, OverflowError, OSError):
        return None


def _shown(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000).astimezone().isoformat(sep=" ", timespec="seconds")
