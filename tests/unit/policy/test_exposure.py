"""Updates that sites keep to themselves do not follow from those that other sites give away."""

from __future__ import annotations

import numpy as np
import pytest

from flavor.policy.exposure import LEAST_KEPT, Mixed, keeping, why_exposed
from flavor.rule_settings import COMMAND

SITES = ("a", "b", "c", "d", "e")


def exposed(sites, allowing, *, rule="fedavg", counting=None, disclosed=()) -> str:
    return why_exposed(Mixed(rule, sites, sites if counting is None else counting, disclosed), allowing)


def test_all_sites_may_allow_it_or_so_many_keep_theirs_that_these_hide_each_other():
    assert exposed(SITES, SITES) == ""
    assert exposed(SITES, ("a", "b")) == ""
    assert exposed(SITES, ()) == ""
    assert keeping(SITES, ("d", "a")) == ["b", "c", "e"]


@pytest.mark.parametrize(
    ("allowing", "said"),
    [
        (("a", "b", "c", "d"), "e runs without --allow-cross, and its update could be computed"),
        (("a", "b", "c"), "d, e run without --allow-cross, and each of them could compute the other's"),
    ],
)
def test_fewer_would_be_exposed(allowing, said):
    assert said in exposed(SITES, allowing)


@pytest.mark.parametrize(
    ("disclosed", "allowing", "said"),
    [
        ("ab", "cd", "e runs without --allow-cross, and its update could be computed"),
        ("ab", "c", "d, e run without --allow-cross"),
        ("de", "cd", "a, b run without --allow-cross"),
        ("ab", "abcde", ""),
        ("a", "b", ""),
        ("abc", "de", ""),
    ],
)
def test_an_update_that_was_given_away_before_hides_no_other_one(disclosed, allowing, said):
    """Whose site has taken its word back, or was revoked, is known all the same."""
    why = exposed(SITES, allowing, disclosed=disclosed)
    assert said in why if said else not why
    if said:
        before = ", ".join(sorted(set(disclosed) - set(allowing)))
        assert why.endswith(f"; that of {before} was given to other sites before")


def test_a_site_without_weight_hides_no_other_one():
    assert exposed(SITES, "ab", counting="abcd").startswith("c, d run without --allow-cross")
    assert exposed(SITES, "ab", counting="ab") == ""


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ("multi_krum:f=1,m=3", "multi_krum:f=1,m=3"),
        ("median", "median"),
        ("norm_clip:c=1/fedavg", "norm_clip:c=1/fedavg"),
        ("aumai-fedtrain", "aumai-fedtrain"),
        ("not_installed_here", "not_installed_here"),
        (COMMAND, "an aggregator of your own"),
        ("", "a rule that is not recorded"),
    ],
)
def test_only_a_weighted_mean_hides_updates_behind_each_other(rule, named):
    why = exposed(SITES, "ab", rule=rule)
    assert why == f"c, d, e run without --allow-cross, and {named} may show parts of a single update"
    assert exposed(SITES, SITES, rule=rule) == ""
    assert exposed(SITES, "ab", rule="mean") == ""


def test_two_sites_of_one_round_are_exposed_by_each_other_alone():
    """A round of two: the model without the one is the other's update, so both have to allow it."""
    assert exposed(("a", "b"), ("a",)) != ""
    assert exposed(("a", "b"), ("a", "b")) == ""


def test_why_so_many():
    """Who knows the mean and all updates but `kept`, and has one of these, knows no other one of three or more."""
    for kept in range(1, LEAST_KEPT + 1):
        unknown = kept - 1 if kept > 1 else 1  # one of those that keep theirs looks, or if it is alone, another site
        equations = np.ones((1, unknown))  # the mean says the sum of what is unknown, and nothing more
        is_computed = np.linalg.matrix_rank(equations) == unknown
        assert is_computed == bool(exposed([f"s{i}" for i in range(kept + 2)], ["s0", "s1"]))
