"""How much a stale update counts, and the text of the rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregators.staleness import Constant, Hinge, Polynomial, Staleness, parse_staleness
from flavor.errors import InvalidSetting


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("constant", Constant()),
        ("polynomial", Polynomial(0.5)),
        ("polynomial:0.25", Polynomial(0.25)),
        ("polynomial:0.1234567", Polynomial(0.1234567)),
        ("hinge", Hinge(10, 4)),
        ("hinge:2", Hinge(2, 4)),
        ("hinge:2:3", Hinge(2, 3)),
        ("hinge:1.23456789:12345678", Hinge(1.23456789, 12345678)),
    ],
)
def test_a_text_stands_for_a_rule_and_the_rule_for_a_text(text: str, rule: Staleness) -> None:
    assert parse_staleness(text) == rule
    assert parse_staleness(str(rule)) == rule


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("linear", "unknown staleness rule 'linear'; there are: constant, polynomial:A, hinge:A:B"),
        ("", "unknown staleness rule ''"),
        ("constant:1", "constant takes no values"),
        ("polynomial:1:2", "polynomial takes 1 value;"),
        ("hinge:1:2:3", "hinge takes 2 values;"),
        ("polynomial:x", "'x' is no number"),
        ("polynomial:-1", "polynomial needs a finite a >= 0, got -1"),
        ("hinge:1:inf", "hinge needs a finite b >= 0, got inf"),
        ("hinge:nan:1", "hinge needs a finite a >= 0, got nan"),
    ],
)
def test_what_is_no_rule_is_refused_in_one_line(text: str, why: str) -> None:
    with pytest.raises(InvalidSetting) as error:
        parse_staleness(text)
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_the_factors_are_those_of_the_paper() -> None:
    assert [Constant().factor(rounds) for rounds in (0, 1, 50)] == [1, 1, 1]
    assert Polynomial(0.5).factor(3) == pytest.approx(0.5)  # 4^-0.5
    assert Polynomial(1).factor(9) == pytest.approx(0.1)
    assert [Hinge(10, 4).factor(rounds) for rounds in (0, 4)] == [1, 1]
    assert Hinge(10, 4).factor(5) == pytest.approx(1 / 11)
    assert Hinge(0.5, 0).factor(2) == pytest.approx(0.5)


amounts = st.floats(0, 1e6, allow_nan=False)


@given(
    rule=st.one_of(st.just(Constant()), st.builds(Polynomial, amounts), st.builds(Hinge, amounts, amounts)),
    rounds=st.integers(0, 10**6),
)
def test_a_fresh_update_counts_in_full_and_an_older_one_never_more(rule: Staleness, rounds: int) -> None:
    assert rule.factor(0) == 1
    assert 0 <= rule.factor(rounds + 1) <= rule.factor(rounds) <= 1
