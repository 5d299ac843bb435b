"""What an operator is warned of when a run starts."""

from __future__ import annotations

import pytest

from flavor.config import RunConfig
from flavor.coordinator.bounds import bound_warnings

FIRST_ROUND = "nothing bounds how far an update moves the model of round 1"


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"max_update_norm": 5.0}, True),
        ({"aggregator": "norm_clip:c=1"}, True),
        ({"aggregator": "median", "max_update_norm": 5.0}, False),
        ({}, False),
    ],
)
def test_bounds_that_do_not_hold_in_a_first_round_without_a_model(settings: dict[str, object], warned: bool) -> None:
    config = RunConfig.parse({"rounds": 2, "min_clients": 2, "store": "file:///s", "max_dataset_size": 9, **settings})
    assert any(FIRST_ROUND in line for line in bound_warnings(config, has_model=False)) is warned
    assert not any(FIRST_ROUND in line for line in bound_warnings(config))
    assert any("nothing bounds how far one update moves" in line for line in bound_warnings(config)) is (not settings)


@pytest.mark.parametrize(
    ("rule", "bound"),
    [
        ("fednova", "fednova/norm_clip)"),
        ("norm_clip:c=1/fednova/median", "norm_clip:c=1/fednova/norm_clip/median)"),
        ("fednova/norm_clip", ""),
        ("norm_clip", ""),
    ],
)
def test_local_steps_are_bounded_by_a_clip_behind_the_division(rule: str, bound: str) -> None:
    config = RunConfig.parse({"rounds": 2, "min_clients": 2, "store": "file:///s", "aggregator": rule})
    warned = [line for line in bound_warnings(config) if "localSteps" in line]
    assert [bound in line for line in warned] == ([True] if bound else [])
    assert any("how far one update moves" in line for line in bound_warnings(config)) is (rule == "fednova")


def test_a_command_is_no_rule_that_flavor_can_judge() -> None:
    config = RunConfig.parse({"rounds": 2, "min_clients": 2, "store": "file:///s", "aggregator": "command"})
    assert bound_warnings(config) == bound_warnings(config, has_model=False) == []
