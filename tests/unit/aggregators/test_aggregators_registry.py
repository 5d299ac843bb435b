"""Algorithms by name, and the one-call face over them."""

from __future__ import annotations

import numpy as np
import pytest

import aggregators
from aggregators import aggregate, catalogue, parse, parse_server_step
from aggregators.clip import NormClip
from aggregators.krum import MultiKrum
from aggregators.mean import Mean
from aggregators.order_statistics import Median, TrimmedMean
from aggregators.server import Momentum, Nesterov, Replace
from flavor.errors import InvalidSetting


def test_the_public_face_is_pinned():
    assert sorted(aggregators.__all__) == [
        "Aggregation",
        "Algorithm",
        "Entry",
        "ServerState",
        "aggregate",
        "catalogue",
        "check_compatible",
        "parse",
        "parse_server_step",
        "run",
    ]


@pytest.mark.parametrize(
    ("text", "step", "reducer", "server_step"),
    [
        ("fedavg", None, Mean(), Replace()),
        ("diloco", None, Mean(), Nesterov(0.7, 0.9)),
        ("diloco", "momentum:beta=0.5", Mean(), Momentum(1.0, 0.5)),
        ("trimmed_mean:f=2", None, TrimmedMean(2), Replace()),
        ("multi_krum:m=3,f=1", "nesterov:lr=1e-2", MultiKrum(1, 3), Nesterov(0.01)),
        ("norm_clip:c=2.5", None, NormClip(2.5), Replace()),
        ("norm_clip/median", None, NormClip("median", Median()), Replace()),
        ("norm_clip:c=1/norm_clip:c=median/trimmed_mean:f=1", None, None, Replace()),
        ("norm_clip:c=median/diloco", None, NormClip(), Nesterov()),
    ],
)
def test_what_a_name_means(text, step, reducer, server_step):
    algorithm = parse(text, step)
    wanted = NormClip(1.0, NormClip("median", TrimmedMean(1))) if reducer is None else reducer
    assert algorithm.reducer == wanted
    assert algorithm.server_step == server_step
    assert algorithm.needs_global == (wanted.needs_global or server_step.needs_global)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("avg", r"unknown aggregator 'avg'; there are: fedavg, diloco, mean, median,"),
        ("nesterov", r"unknown aggregator 'nesterov'"),
        ("median:f=1", r"bad option 'f=1'; write median"),
        ("krum:f=1,f=2", r"bad option 'f=2'"),
        ("krum:f", r"bad option 'f'; write krum:f="),
        ("krum", r"'krum': f is missing; write krum:f="),
        ("norm_clip:c=far", r"'far' does not fit c; write norm_clip:\[c=median\]"),
        ("multi_krum:f=1,m=1.5", r"'1.5' does not fit m"),
        ("krum:f=one", r"'one' does not fit f; write krum:f="),
        ("trimmed_mean:f=1.5", r"'1.5' does not fit f"),
        ("norm_clip:c=-1", r"'norm_clip:c=-1': norm_clip needs c > 0"),
        ("median/mean", r"median cannot go before another aggregator, as norm_clip can"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(text, message):
    with pytest.raises(InvalidSetting, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_server_steps_are_refused_likewise():
    with pytest.raises(InvalidSetting, match="unknown server step 'median'; there are: replace, momentum"):
        parse_server_step("median")
    with pytest.raises(InvalidSetting, match="nesterov needs 0 <= momentum < 1, got 1"):
        parse("fedavg", "nesterov:momentum=1")


def test_usage_shows_what_is_asked_for_and_the_defaults():
    usage = {entry.name: entry.usage for entry in catalogue()}
    assert usage["nesterov"] == "nesterov:[lr=0.7],[momentum=0.9]"
    assert usage["multi_krum"] == "multi_krum:f=,[m=]"
    assert usage["norm_clip"] == "norm_clip:[c=median]"
    assert usage["median"] == "median"


@pytest.mark.parametrize(
    ("text", "reducer"),
    [("norm_clip/median", Median()), ("norm_clip:c=1/norm_clip/trimmed_mean:f=1", TrimmedMean(1)), ("mean", Mean())],
)
def test_in_a_first_round_without_weights_the_rule_behind_a_clip_stands_in(text, reducer):
    first = parse(text, "nesterov").without_global()
    assert (first.reducer, first.server_step) == (reducer, Replace())
    assert not first.needs_global


def test_every_entry_of_the_catalogue_is_described_and_can_be_built():
    examples = {"f": "1", "m": "2", "c": "median", "rounds": "3", "a": "down", "b": "up"}
    for entry in catalogue():
        assert entry.description
        assert entry.source
        assert entry.condition
        assert "\n" not in f"{entry.description}{entry.source}{entry.condition}{entry.usage}"
        options = ",".join(f"{name}={examples.get(name, '0.5')}" for name in entry.options)
        text = f"{entry.name}:{options}" if options else entry.name
        assert parse_server_step(text) if entry.kind == "server step" else parse(text)


def test_aggregate_takes_what_becomes_an_array_and_returns_the_model():
    got = aggregate([{"w": [1.0, 2.0], "n": 1}, {"w": [3.0, 6.0], "n": 4}], [1, 3])
    np.testing.assert_allclose(got["w"], [2.5, 5.0])
    assert got["n"] == 3


def test_aggregate_returns_the_state_of_a_step_with_memory():
    theta = {"w": np.zeros(2)}
    model, state = aggregate([{"w": np.ones(2)}], aggregator="diloco", global_model=theta)
    np.testing.assert_allclose(model["w"], 0.7 * 1.9)
    model, state = aggregate([{"w": np.ones(2)}], aggregator="diloco", global_model=theta, state=state)
    np.testing.assert_allclose(state.tensors["momentum/w"], -1.9)
    assert state.rounds == 2


def test_aggregate_takes_objects_as_well_as_names():
    clients = [{"w": np.array([v])} for v in (1.0, 2.0, 90.0)]
    assert aggregate(clients, aggregator=Median())["w"] == 2
    assert aggregate(clients, aggregator="median", threads=1)["w"] == 2
    model, _ = aggregate(clients, aggregator=Median(), server_step=Nesterov(1, 0), global_model={"w": np.array([9.0])})
    assert model["w"] == 2
