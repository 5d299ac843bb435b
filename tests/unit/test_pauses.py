"""Pauses, reports and patience in an outage: pure numbers, without a clock."""

from __future__ import annotations

import random

from flavor.outage import LONGEST_PAUSE_S, next_told_s, pause_s, site_patience_s

HOURS_S = 2.5 * 3600


def test_pauses_grow_with_the_outage_and_chance_makes_them_up_to_a_half_shorter() -> None:
    longest = [pause_s(away_s, chance=lambda: 0.0) for away_s in (0.0, 1.0, 8.0, 40.0, 80.0, HOURS_S)]
    assert longest == [0.05, 0.125, 1.0, 5.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert pause_s(8.0, chance=lambda: 1.0) == 0.5
    before = random.getstate()
    assert {round(pause_s(80.0), 6) for _ in range(20)} != {LONGEST_PAUSE_S}, "sites do not come back at once"
    assert random.getstate() == before, "the numbers that a training script draws do not depend on outages"
    assert pause_s(HOURS_S, longest_s=0.5, chance=lambda: 0.0) == 0.5


def test_an_outage_is_told_at_twice_its_time_and_every_half_hour_at_last() -> None:
    told_s = [0.0]
    while (later_s := next_told_s(told_s[-1])) <= HOURS_S:
        told_s.append(later_s)
    assert told_s[:6] == [0.0, 5.0, 10.0, 20.0, 40.0, 80.0]
    assert len(told_s) < 16
    assert told_s[-1] - told_s[-2] == 1_800.0


def test_a_site_waits_for_a_day_or_for_the_deadline_of_a_round_that_is_longer() -> None:
    assert site_patience_s() == site_patience_s(3600.0) == 86_400.0
    assert site_patience_s(3 * 86_400.0) == 3 * 86_400.0
