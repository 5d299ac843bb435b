"""The output of a script that a site shares: bounded, seldom, and only if its user says so."""

from __future__ import annotations

from typing import cast

import pytest

from flavor.edge.membership import Membership
from flavor.edge.shared_log import SharedLog, bounded
from flavor.errors import BusUnavailable
from flavor.records.names import MOST_LOG_BYTES


class Site:
    """A script's output, a clock that stands still, and a run that hears of the output."""

    def __init__(self, most: int = 3) -> None:
        self.now, self.lines = 0.0, list[str]()
        self.heard: list[tuple[float, str]] = []
        self.error: Exception | None = None
        self.log = SharedLog(cast(Membership, self), lambda: self.lines, most=most, clock=lambda: self.now)

    def share_log(self, text: str) -> None:
        self.heard.append((self.now, text))
        if self.error is not None:
            raise self.error

    def looks(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            self.log.look()


def test_the_last_lines_are_written_every_few_seconds_and_at_the_end() -> None:
    site = Site()
    site.lines = ["a"]
    site.looks(1)
    assert site.heard == [(1.0, "a")]
    site.looks(9)
    assert len(site.heard) == 1, "nothing new"
    for number in range(12):
        site.lines.append(str(number))
        site.looks(1)
    assert site.heard[1:] == [(11.0, "a\n0"), (16.0, "3\n4\n5"), (21.0, "8\n9\n10")]
    site.log.end()
    site.log.end()
    assert site.heard[-1] == (22.0, "9\n10\n11")
    assert len(site.heard) == 5


def test_a_site_that_shares_nothing_removes_what_an_earlier_process_wrote() -> None:
    site = Site(0)
    site.lines = ["a"]
    site.looks(30)
    site.log.end()
    assert site.heard == [(1.0, "")]


def test_the_end_of_an_edge_does_not_wait_for_a_server_that_is_away() -> None:
    site = Site()
    site.lines, site.error = ["a"], BusUnavailable("away")
    with pytest.raises(BusUnavailable):
        site.looks(1)
    site.log.end()
    assert site.heard == [(1.0, "a")]
    site.error = None
    site.looks(5)
    assert site.heard[1:] == [(6.0, "a")], "later, it is told"


def test_it_is_bounded() -> None:
    assert bounded(["a", "b", "c"], 0) == bounded([], 9) == ""
    assert bounded(["a", "b", "c"], 2) == "b\nc"
    many = bounded(["\U0001f600" * 5000] * 1000, 1000)
    assert 0.9 * MOST_LOG_BYTES < len(many.encode()) <= MOST_LOG_BYTES
    assert max(map(len, many.split("\n"))) <= 1003
