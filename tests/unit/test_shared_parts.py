"""Which tensors `--share` and `--local` share, and which patterns are refused."""

from __future__ import annotations

import pytest

from flavor.cook.control import control_name
from flavor.parts import WHOLE, Parts

NAMES = ["conv1.weight", "bn1.weight", "bn1.running_mean", "head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("parts", "shared"),
    [
        (WHOLE, NAMES),
        (Parts(local=["*bn*"]), ["conv1.weight", "head.weight", "head.bias"]),
        (Parts(share=["head.*"]), ["head.weight", "head.bias"]),
        (Parts(share=["head.*", "conv1.*"], local=["*.bias"]), ["conv1.weight", "head.weight"]),
        (Parts(share=["HEAD.*"]), []),
    ],
)
def test_the_shared_tensors(parts: Parts, shared: list[str]) -> None:
    assert parts.shared(NAMES) == shared


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        (WHOLE, ""),
        (Parts(local=["*bn*"]), ""),
        (Parts(share=["hed.*"]), "--share 'hed.*' matches none of 5 tensors: the nearest are head.weight, head.bias"),
        (Parts(local=["*bn*", "batch_*"]), "--local 'batch_*' matches none of 5 tensors: the nearest"),
        (
            Parts(local=["BN1*"]),
            "--local 'BN1*' matches none of 5 tensors: the nearest are bn1.weight, bn1.running_mean",
        ),
        (Parts(share=["*"]), "--share '*' shares all of 5 tensors: leave it out"),
        (Parts(local=["*"]), "--local '*' shares none of 5 tensors: nothing would be aggregated"),
        (Parts(["head.*"], ["head.*"]), "--share 'head.*' --local 'head.*' shares none of 5 tensors"),
    ],
)
def test_patterns_of_no_use_are_named_with_what_they_may_have_meant(parts: Parts, problem: str) -> None:
    found = parts.problem(NAMES)
    assert found.startswith(problem)
    assert bool(found) == bool(problem)
    if found:
        assert not any(name in parts.problem(NAMES, near=False) for name in NAMES), "an operator learns no names"


@pytest.mark.parametrize(
    ("local", "forgotten"),
    [
        ("*bn*", ["down.1.running_mean"]),
        ("*.running*", []),
        ("*running_mean", ["bn1.running_var"]),
        ("head.*", []),  # a head that has a normalisation of its own means no other one
        ("down.0.weight", []),
    ],
)
def test_normalisation_that_a_pattern_forgets(local: str, forgotten: list[str]) -> None:
    shapes = {
        "bn1.weight": (4,),
        "bn1.running_mean": (4,),
        "bn1.running_var": (4,),
        "bn1.num_batches_tracked": (),
        "down.0.weight": (4, 4),
        "down.1.weight": (4,),
        "down.1.running_mean": (4,),
        "head.weight": (2, 4),
        "head.1.running_mean": (2,),
    }
    found = Parts(local=[local]).forgotten(shapes)
    assert found == [*forgotten, *(["head.1.running_mean"] if local == "*bn*" else [])]


@pytest.mark.parametrize("before", ["", "model."])
def test_a_control_variate_is_shared_if_its_parameter_is(before: str) -> None:
    """A pattern of a parameter's name does not match that of its variate, in which other characters stand for dots."""
    parameters = [f"{before}{name}" for name in ("conv1.weight", "head.weight", "head_old.weight")]
    variates = [f"{before}{control_name(name)}" for name in ("conv1.weight", "head.weight", "head_old.weight")]
    for parts in (Parts(share=[f"{before}head.*"]), Parts(local=[f"{before}conv1.*", f"{before}head_old.*"])):
        assert parts.shared([*parameters, *variates]) == [parameters[1], variates[1]]


def test_what_an_aggregator_refuses() -> None:
    parts = Parts(local=["*bn*"])
    assert parts.foreign(["conv1.weight", "bn1.weight"]) == "bn1.weight"
    assert not parts.foreign(["conv1.weight", control_name("conv1.weight")])
