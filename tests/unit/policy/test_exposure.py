"""Updates that sites keep to themselves do not follow from those that other sites give away."""

from __future__ import annotations

import numpy as np
import pytest

from flavor.policy.exposure import LEAST_KEPT, keeping, why_exposed

SITES = ("a", "b", "c", "d", "e")


def test_all_sites_may_allow_it_or_so_many_keep_theirs_that_these_hide_each_other():
    assert why_exposed(SITES, SITES) == ""
    assert why_exposed(SITES, ("a", "b")) == ""
    assert why_exposed(SITES, ()) == ""
    assert keeping(SITES, ("d", "a")) == ["b", "c", "e"]


@pytest.mark.parametrize(
    ("allowing", "said"),
    [
        (("a", "b", "c", "d"), "e does not allow it (flavor-fl --allow-cross), and its update could be computed"),
        (("a", "b", "c"), "d, e do not allow it (flavor-fl --allow-cross), and each of them could compute the other's"),
    ],
)
def test_fewer_would_be_exposed(allowing, said):
    assert said in why_exposed(SITES, allowing)


def test_two_sites_of_one_round_are_exposed_by_each_other_alone():
    """A round of two: the model without the one is the other's update, so both have to allow it."""
    assert why_exposed(("a", "b"), ("a",)) != ""
    assert why_exposed(("a", "b"), ("a", "b")) == ""


def test_why_so_many():
    """Who knows the mean and all updates but `kept`, and has one of these, knows no other one of three or more."""
    for kept in range(1, LEAST_KEPT + 1):
        unknown = kept - 1 if kept > 1 else 1  # one of those that keep theirs looks, or if it is alone, another site
        equations = np.ones((1, unknown))  # the mean says the sum of what is unknown, and nothing more
        is_computed = np.linalg.matrix_rank(equations) == unknown
        assert is_computed == bool(why_exposed([f"s{i}" for i in range(kept + 2)], ["s0", "s1"]))
