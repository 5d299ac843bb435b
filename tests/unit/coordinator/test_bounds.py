"""What an operator is warned of when a run starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aggregators import aggregate
from flavor.config import RunConfig
from flavor.coordinator.bounds import bound_warnings
from flavor.coordinator.url_counts import UrlCounts
from flavor.store.url_rights import Occasion

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
    ("rule", "share", "warned"),
    [
        ("median", ["*lora_*"], True),
        ("norm_clip:c=1/mean", ["*lora_*"], True),
        ("multi_krum:f=1", ["*LoRA*"], True),
        ("median", ["*lora_A*", "*lora_B*"], True),
        ("median", ["*lora_B*", "head.*"], False),  # A is frozen
        ("median", ["head.*"], False),
        ("krum:f=1", ["*lora_*"], False),
        ("lora-exact", ["*lora_*"], False),
        (None, ["*lora_*"], False),
    ],
)
def test_a_rule_that_takes_the_factors_of_adapters_apart(rule: str | None, share: list[str], warned: bool) -> None:
    config = RunConfig.parse(
        {"rounds": 2, "min_clients": 7, "store": "file:///s", "share": share, **({"aggregator": rule} if rule else {})}
    )
    assert any("factors A and B of LoRA adapters apart" in line for line in bound_warnings(config)) is warned


def moved(rule: str, liar: float, steps: float) -> float:
    """How far the model moves in a round of three honest sites and one that moves by 1 and reports these steps."""
    change = np.random.default_rng(3).normal(size=(4, 16))
    rows = change / np.linalg.norm(change, axis=1)[:, None]
    rows[3] *= liar
    models, theta = [{"w": row} for row in rows], {"w": np.zeros(16)}
    made: Any = aggregate(models, aggregator=rule, global_model=theta, local_steps=[8, 10, 12, steps])
    return float(np.linalg.norm(made["w"]))


@pytest.mark.parametrize(
    ("rule", "bound"),
    [
        ("fednova", "fednova/norm_clip)"),
        ("norm_clip:c=1/fednova", "norm_clip:c=1/fednova/norm_clip)"),
        ("fednova/norm_clip/fednova", "fednova/norm_clip/fednova/norm_clip)"),
        ("fednova/norm_clip", ""),
        ("fednova/norm_clip:c=1", ""),
        ("fednova/median", ""),
        ("norm_clip", ""),
    ],
)
def test_what_is_said_of_local_steps_is_what_they_do(rule: str, bound: str) -> None:
    """Where no warning is given, a site's number moves the model no farther than an honest update could."""
    config = RunConfig.parse({"rounds": 2, "min_clients": 2, "store": "file:///s", "aggregator": rule})
    warned = [line for line in bound_warnings(config) if "localSteps" in line]
    assert [bound in line for line in warned] == ([True] if bound else [])
    farthest = max(moved(rule, 1, steps) for steps in (1e-30, 1e-3, 10, 1e3, 1e12))
    assert farthest > 20 if bound else farthest < 1.3, "the honest sites move it by up to 1"
    assert farthest <= 26, "and the warning says 100 times, of a quarter of the weight"


@pytest.mark.parametrize("rule", ["fednova", "norm_clip", "fednova/norm_clip", "median"])
def test_what_is_said_of_the_farthest_update_is_what_it_does(rule: str) -> None:
    config = RunConfig.parse({"rounds": 2, "min_clients": 2, "store": "file:///s", "aggregator": rule})
    warned = any("how far one update moves" in line for line in bound_warnings(config))
    assert warned is (moved(rule, 1e6, 10) > 1.3)


@pytest.mark.parametrize(
    ("mode", "clients", "share"),
    [
        ("async:buffer=1", 4, "the whole model in each round"),
        ("async:buffer=2", 5, "half of the model in each round"),
        ("async:buffer=3", 6, ""),
        ("async:buffer=2", 3, ""),
        ("async:buffer=1", 2, ""),
        ("sync", 4, ""),
    ],
)
def test_a_buffer_that_one_quick_site_fills_is_told(mode: str, clients: int, share: str) -> None:
    config = RunConfig.parse({"rounds": 2, "min_clients": clients, "store": "file:///s", "mode": mode})
    warned = [line for line in bound_warnings(config) if "sooner than the others" in line]
    assert [share in line for line in warned] == ([True] if share else [])
    command = RunConfig.parse({**config.to_mapping(), "aggregator": "command"})
    assert bound_warnings(command) == warned
    assert all(f"({clients // 2 + 1} of {clients})" in line for line in warned)


def test_a_command_is_no_rule_that_flavor_can_judge() -> None:
    config = RunConfig.parse({"rounds": 2, "min_clients": 2, "store": "file:///s", "aggregator": "command"})
    assert bound_warnings(config) == bound_warnings(config, has_model=False) == []


@pytest.mark.parametrize("aggregator", ["median", "command"])
def test_urls_for_updates_of_any_size_are_warned_of(aggregator: str) -> None:
    given = {"rounds": 2, "min_clients": 2, "store": "s3://b/p", "aggregator": aggregator, "max_dataset_size": 9}
    for settings, warned in (({"signed_urls": True}, True), ({"signed_urls": True, "max_update_bytes": 9}, False)):
        lines = bound_warnings(RunConfig.parse({**given, **settings}))
        assert any("the room that a site takes in the bucket" in line for line in lines) is warned
    assert not bound_warnings(RunConfig.parse(given))


def test_the_objects_that_a_site_gets_urls_to_write_are_counted_for_each_occasion() -> None:
    """In a buffered run a site has tasks of several rounds at a time: to ask for them in turns gets it no more."""
    counts = UrlCounts()
    for number in range(20):
        for round_ in (1, 2):
            for kind, tail in (("update", ".safetensors"), ("info", ".json")):
                path = f"runs/r/clients/a/{round_:04}-{kind}-{number:016x}{tail}"
                assert (counts.refusal("a", path, Occasion(round_)) == "") is (number < 8)
    assert counts.refusal("a", f"runs/r/clients/a/0001-update-{0:016x}.safetensors", Occasion(1)) == "", "again"
    assert counts.refusal("b", "runs/r/clients/b/0001-update-00.safetensors", Occasion(1)) == "", "another site"
    images = [f"runs/r/clients/a/0001-result-3-image-{number:016x}.png" for number in range(200)]
    given = [path for path in images if not counts.refusal("a", path, Occasion(1, 3))]
    assert len(given) == 8 * 17, "eight times a report with all the images that one may have"
    assert counts.refusal("a", "runs/r/clients/a/0001-result-3-00.json", Occasion(1, 3)) == ""
