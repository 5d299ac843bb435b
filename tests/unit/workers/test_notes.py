"""What the operator is told of metrics that are not merged: also which sites are the others."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from rq.timeouts import JobTimeoutException

from aggregators import parse
from aggregators.lora_residual import LoraResidual
from flavor.records.info import checked_info, completed
from flavor.records.merging import merge_infos
from tests.driven import info
from workers.builtin import _Round
from workers.notes import of_counts, of_factors, of_lora, of_steps, of_weighted_means
from workers.once import untold


@pytest.mark.parametrize(
    ("sites", "said"),
    [
        (
            {"s1": {"count/n": [1, 2]}, "s2": {"count/n": [3, 4]}, "s3": {"count/n": [5]}},
            "s3's count/n (it is a list of 1, and that",
        ),
        (
            {"s1": {"count/n": 1}, "s2": {"count/n": [3, 4]}, "s3": {"count/n": 7}},
            "s2's count/n (it is a list of 2, and that",
        ),
        ({"s1": {"count/n": [1]}, "s2": {"count/n": [3, 4]}, "s3": {}}, "(s1: a list of 1; s2: a list of 2)"),
        (
            {f"s{each}": {"count/n": [0] * length} for each, length in enumerate((1, 1, 2, 2, 3))},
            "(s0, s1: a list of 1; s2, s3: a list of 2; s4: a list of 3)",
        ),
        (
            {f"s{each}": {"count/n": 1, "count/n.same": at} for each, at in enumerate((0.5, 0.5, 0.7))},
            "s2's count/n (it is a number with count/n.same 0.7, and that",
        ),
        ({"s1": {"central/accuracy": 1.0}, "s2": {}}, "operator's own data (s1)"),
    ],
)
def test_the_sites_are_named_whose_metric_differs(sites: dict[str, dict[str, Any]], said: str) -> None:
    infos = {site: info(10, metrics) for site, metrics in sites.items()}
    (note,) = of_counts(merge_infos(list(infos), list(infos.values())), infos)
    assert said in note


def test_sites_that_do_the_same_are_not_named() -> None:
    infos = {site: info(10, {"count/n": 1e300}) for site in "abcdefghijk"}
    (note,) = of_counts(merge_infos(list(infos), list(infos.values())), infos)
    assert note.endswith("the sum is too large")


@pytest.mark.parametrize(
    ("sizes", "metrics", "said"),
    [
        ((0, 0, 3), ({"a": 1.0}, {"a": 3.0}, {"b": 2.0}), "datasetSize is 0 at all sites that report a, so"),
        ((0, 1, 3), ({"a": 1.0}, {"a": 3.0}, {"b": 2.0}), ""),
        ((0, 0, 0), ({"a": 1.0, "b": 1.0}, {"a": 3.0, "b": 2.0}, {}), "at all sites that report a, b, so"),
        ((0, 5, 5), ({"a": 1.0}, {"a": None}, {}), ""),
    ],
)
def test_a_weighted_mean_of_sites_without_examples_is_told(
    sizes: tuple[int, ...], metrics: tuple[dict[str, Any], ...], said: str
) -> None:
    """The mean of one site is both."""
    infos: dict[str, Any] = {}
    for site, size, own in zip("xyz", sizes, metrics, strict=True):
        infos[site] = checked_info(
            completed({"metadata": {"datasetSize": size}, "metrics": own}, 1),
        )
    notes = list(of_weighted_means(merge_infos(list(infos), list(infos.values())), infos))
    assert (said in notes[0]) if said else notes == []


def test_the_residual_of_lora_adapters_is_told_in_round_1() -> None:
    two = LoraResidual(0.0312, 2, "h.0.lora_B.weight", 0.052)
    (plain,) = of_lora(1, two, is_exact=False)
    (exact,) = of_lora(1, LoraResidual(0.0312, 1, "h.0.lora_B.weight", 0.0312), is_exact=True)
    start = "the product BA of {} is 3.12% from the mean of the sites' products"
    apart = ": A and B are averaged apart; --aggregator lora-exact makes the nearest product"
    assert plain == start.format("2 LoRA adapters") + ", most in 'h.0.lora_B.weight' (5.20%)" + apart
    assert exact == start.format("1 LoRA adapter")
    assert not [*of_lora(2, two, is_exact=True), *of_lora(1, None, is_exact=False)]
    (some,) = of_lora(1, replace(two, left_out=6), is_exact=True)
    assert "of 2 LoRA adapters (6 more would take too long to compare, and are left out) is 3.12%" in some
    (none,) = of_lora(1, LoraResidual(math.nan, 0, "", -1.0, left_out=8), is_exact=True)
    assert none.startswith("merge/lora_residual is left out: the products of so many sites, of 8 LoRA adapters")
    for broken in (math.nan, math.inf):
        (left_out,) = of_lora(7, replace(two, relative=broken), is_exact=True)
        assert left_out.startswith(
            "warning: merge/lora_residual of round 7 is left out, because it is no finite number"
        )
    assert [*of_lora(7, LoraResidual.failed("MemoryError: "), is_exact=True)] == [
        "warning: merge/lora_residual of round 7 is left out: MemoryError: "
    ]


def test_a_residual_that_cannot_be_computed_fails_no_round(monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"x.lora_A.weight": np.ones((2, 4)), "x.lora_B.weight": np.ones((4, 2))}
    updates = {"site-1": cast(Any, SimpleNamespace(tensors=model))}
    round_ = _Round(parse("fedavg"), updates, None, {}, None)
    found = round_.residual({"x.lora_A.weight": np.ones((2, 4))})
    assert found is not None
    assert found.failure == "KeyError: 'x.lora_B.weight'"
    monkeypatch.setattr("workers.builtin.lora_residual", lambda *args, **more: raise_(JobTimeoutException()))
    with pytest.raises(JobTimeoutException):
        round_.residual(model)


def raise_(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("names", "rule", "more", "said"),
    [
        (("lora_A", "lora_B"), "median", {}, "median works on the factors A and B of LoRA adapters apart"),
        (("lora_A", "lora_B"), "krum:f=1", {"chosen": ["a"]}, ""),
        (("lora_A", "lora_B"), "mean", {"is_measured": True}, ""),
        (("w", "v"), "median", {}, ""),
        (("lora_A", "lora_B"), "lora-exact", {"factors": ("lora_A", "lora_B"), "is_measured": True}, ""),
        (
            ("q_lora_A", "q_lora_B"),
            "lora-exact",
            {"factors": ("lora_A", "lora_B"), "is_measured": True},
            "'h.q_lora_A.weight', 'h.q_lora_B.weight' may be LoRA factors by other names, and are averaged apart",
        ),
        (("downsample", "upsample", "down_proj"), "lora-exact", {"factors": ("down", "up"), "is_measured": True}, ""),
        (("Block1", "Alock1"), "lora-exact", {"factors": ("A", "B"), "is_measured": True}, ""),
    ],
)
def test_factors_of_adapters_that_go_apart_are_told_in_round_1(
    names: tuple[str, ...], rule: str, more: dict[str, Any], said: str
) -> None:
    given = {"factors": None, "is_measured": False, **more}
    first, other, frozen = (
        cast(Any, SimpleNamespace(tensors={f"h.{name}.weight": np.full((2, 2), value, "f4") for name in names}))
        for value in (0, 1, 2)
    )
    frozen.tensors |= {name: array for name, array in first.tensors.items() if "A" in name}
    works = [cast(Any, SimpleNamespace(round=n, config=SimpleNamespace(aggregator=rule))) for n in (1, 2)]
    notes = [[*of_factors(work, first, updates={"a": first, "b": other}, **given)] for work in works]
    if given["factors"] is None:
        assert not [*of_factors(works[0], first, updates={"a": first, "b": frozen}, **given)], "A is the same at all"
    assert notes[1] == []
    assert len(notes[0]) == bool(said)
    assert all(note.startswith(f"warning: {said}") for note in notes[0])


def test_each_site_whose_local_steps_are_far_from_the_middle_is_named_once() -> None:
    """One that is always the farthest hides no other one."""
    told: tuple[str, ...] = ()
    found = []
    for fifth in (3.0, 3.0, 1500.0, 1500.0):
        notes, told = untold(of_steps({"e1": 2000.0, "e2": 3.0, "e3": 3.0, "e4": 4.0, "e5": fifth}), told)
        found.append([note.partition(":")[2][:28] for note in notes])
    assert found == [[" localSteps is 2000 at e1 an"], [], [" localSteps is 1500 at e5, a"], []]
    many = {f"s{each:02}": 1e6 + each if each < 9 else 1.0 for each in range(20)}
    assert len(list(of_steps(many))) == 6, "a few of them are enough"
    assert len(list(of_steps({"a": 1.0, "b": 999.0}))) == 1
