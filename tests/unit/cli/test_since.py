"""Which moment `--since` names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from flavor.cli.since import since_ms
from flavor.errors import InvalidSetting

NOW = int(datetime(2026, 11, 29, 12, 0, tzinfo=UTC).timestamp() * 1000)
HOUR = 3_600_000


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One hour east of UTC: it is 13:00 here."""
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "ago_ms"),
    [
        ("90s", 90_000),
        ("30m", HOUR // 2),
        ("30 min", HOUR // 2),
        ("2h", 2 * HOUR),
        ("1.5h", HOUR * 3 // 2),
        ("1d 6h", 30 * HOUR),
        ("1w", 7 * 24 * HOUR),
        ("0s", 0),
        ("2026-11-29T12:00:00+01:00", HOUR),
        ("2026-11-29 12:30:00.250", HOUR // 2 - 250),
        ("2026-11-29T11:59Z", 60_000),
        ("2026-11-29", 13 * HOUR),
        ("20261129", 13 * HOUR),
        ("03:00", 10 * HOUR),
        ("13:00", 0),
        ("13:30", 23 * HOUR + HOUR // 2),  # yesterday
        ("11:00Z", HOUR),
        ("08:00-03:00", HOUR),
        ("999999999999w", NOW),  # from the beginning
        ("0001-01-01T00:00+00:00", NOW),
    ],
)
def test_moments(text: str, ago_ms: int) -> None:
    assert since_ms(text, NOW) == NOW - ago_ms


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2", "h", "-1h", "2h ago", "2x", "25:00", "03:00x", "2026-13-01", "2026-11-29T", "٢h"]
)
def test_other_text_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidSetting, match=r"^--since .*: write so long ago \(90s, 30m, 2h, 1d\)") as refused:
        since_ms(text, NOW)
    assert "\n" not in str(refused.value)


def test_a_moment_to_come_is_refused_with_the_server_s_time() -> None:
    with pytest.raises(InvalidSetting, match=r"still to come: the clock of the Redis server says 2026-11-29 13:00:00"):
        since_ms("2026-11-29T13:00:01", NOW)
