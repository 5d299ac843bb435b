"""The text of `--mode`, and what it does not go together with."""

from __future__ import annotations

from typing import Any

import pytest

from flavor.cli.serve import check_rule
from flavor.config import RunConfig
from flavor.errors import InvalidSetting
from flavor.policy.mode import Buffered
from flavor.resume import resumed_config


def config(mode: str = "async:buffer=2", **more: Any) -> RunConfig:
    return RunConfig.parse({"rounds": 3, "store": "-", "min_clients": 3, "mode": mode, **more})


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("sync", None),
        ("async:buffer=3", Buffered(3)),
        ("async:buffer=3,staleness=hinge:2:1", Buffered(3, "hinge:2:1")),
        ("async:max_staleness=0,buffer=1,staleness=constant", Buffered(1, "constant", 0)),
        ("async:buffer=2,staleness=polynomial", Buffered(2, "polynomial:0.5", 10)),
        ("sync:slow=async", Buffered(None)),
        ("sync:slow=async,staleness=constant,max_staleness=4", Buffered(None, "constant", 4)),
    ],
)
def test_a_text_stands_for_a_mode(text: str, mode: Buffered | None) -> None:
    assert Buffered.parse(text) == mode
    assert mode is None or Buffered.parse(str(mode)) == mode


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("buffered", "unknown mode 'buffered': write sync, sync:slow=async[,staleness=RULE]"),
        ("sync:buffer=3", "bad option 'buffer=3'"),
        ("sync:", "a synchronous run takes slow=async alone"),
        ("sync:slow=drop", "a synchronous run takes slow=async alone"),
        ("sync:staleness=constant", "a synchronous run takes slow=async alone"),
        ("async:buffer=2,slow=async", "bad option 'slow=async'"),
        ("async", "buffer=K is missing"),
        ("async:staleness=constant", "buffer=K is missing"),
        ("async:buffer", "bad option 'buffer'"),
        ("async:buffer=2,buffer=3", "bad option 'buffer=3'"),
        ("async:buffer=2,patience=3", "bad option 'patience=3'"),
        ("async:buffer=0", "buffer=0: a whole number, 1 or more, is needed"),
        ("async:buffer=two", "buffer=two: a whole number"),
        ("async:buffer=²", "buffer=²: a whole number"),
        ("async:buffer=2,max_staleness=-1", "max_staleness=-1: a whole number, from 0 to 100, is needed"),
        ("async:buffer=2,max_staleness=101", "max_staleness=101: a whole number, from 0 to 100"),
        ("async:buffer=2,staleness=linear", "unknown staleness rule 'linear'"),
        ("async:buffer=2,staleness=polynomial:-1", "polynomial needs a finite a >= 0, got -1"),
    ],
)
def test_what_is_no_mode_is_refused_with_how_to_write_it(text: str, why: str) -> None:
    with pytest.raises(InvalidSetting) as error:
        config(text)
    assert why in str(error.value)
    assert "--mode" in str(error.value)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"mode": "async:buffer=4"}, "buffer 4 is more than min_clients 3"),
        ({"quorum": 2}, "and quorum 2: the buffer says how many updates close a round"),
        ({"mode": "sync:slow=async", "quorum": 3}, "and quorum 3: a round of 3 clients needs 3 updates then"),
        ({"mode": "sync:slow=async", "quorum": 0.7}, "and quorum 0.7: a round of 3 clients needs 3 updates then"),
        ({"fraction": 0.5}, "and fraction 0.5: an asynchronous round samples no sites"),
        ({"on_quorum_lost": "retry"}, "on_quorum_lost retry opens no asynchronous round again"),
        ({"keep_globals": 11}, "keep_globals 11 does not keep the models that sites train from: 12 or more"),
        ({"checkpoint": "opaque"}, "opaque checkpoints have none that it could see"),
    ],
)
def test_settings_that_exclude_each_other_are_refused_with_their_numbers(more: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidSetting) as error:
        config(**more)
    assert why in str(error.value)


RULES_OF_SITES = [
    ({"select": "accuracy:max"}, "--select accuracy:max"),
    ({"select": "pooled/auc:max", "stop_after_no_gain": "3"}, "--select pooled/auc:max"),
    ({"stop_when": ("central/auc>=0.9", "auc>=0.9")}, "--stop-when 'auc>=0.9'"),
]


@pytest.mark.parametrize(("more", "named"), RULES_OF_SITES)
def test_a_rule_on_metrics_of_sites_is_refused_where_not_all_judge_each_model(more: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidSetting) as error:
        config(**more)
    assert f"{named} does not go together with --mode async: each model is judged only by" in str(error.value)
    assert "(central/NAME, by `flavor-agg -e`)" in str(error.value)
    assert "(`flavor evaluate RUN --round N`)" in str(error.value)
    assert config("sync", **more).buffered is None


def test_a_rule_on_the_operators_own_data_goes_together_with_asynchronous_rounds() -> None:
    own = config(select="central/auc:max", stop_when=("central/auc>=0.9",), stop_after_no_gain="3")
    assert own.buffered is not None


def test_an_asynchronous_run_that_goes_on_gets_no_new_rule_on_metrics_of_sites() -> None:
    full = {**config("sync:slow=async", quorum=2).to_mapping(), "quorum": 3}  # such a run of an earlier state goes on
    assert RunConfig.of_run("r", full).quorum == resumed_config(full, {"rounds": 9}, closed=1)[0].quorum == 3
    before = {**config().to_mapping(), "select": "accuracy:max"}  # of an earlier state of this project
    assert RunConfig.of_run("r", before).select == "accuracy:max"
    assert resumed_config(before, {"rounds": 9}, closed=1)[0].rounds == 9
    assert resumed_config(before, {"stop_when": ["central/auc>=0.9"]}, closed=1)[0].stop_when == ("central/auc>=0.9",)
    for given, named in (({"stop_when": ["auc>=0.9"]}, "--stop-when"), ({"stop_after_no_gain": "3"}, "--stop-after")):
        with pytest.raises(InvalidSetting, match=f"{named}.* does not go together with --mode async"):
            resumed_config(before, given, closed=1)


def test_the_settings_that_go_together_do() -> None:
    assert config(keep_globals=12, on_quorum_lost="wait", aggregator="command").buffered == Buffered(2)
    assert config("sync", quorum=2, fraction=0.5, on_quorum_lost="retry", keep_globals=2).buffered is None


def test_the_buffer_is_what_a_round_needs() -> None:
    assert (config().needed, config().needed_of(9), config().needed_of(1)) == (2, 2, 1)


def test_the_text_is_kept_whole_so_that_a_manifest_names_all_of_it() -> None:
    assert config("async:buffer=2").mode == "async:buffer=2,staleness=polynomial:0.5,max_staleness=10"


def test_a_rule_that_needs_more_updates_names_the_setting_that_gives_them() -> None:
    with pytest.raises(InvalidSetting, match=r"a round may close with 2: raise the buffer of --mode$"):
        check_rule(config(aggregator="krum:f=1"))
    with pytest.raises(InvalidSetting, match=r"a round may close with 3: raise --min-clients or --quorum$"):
        check_rule(config("sync", aggregator="krum:f=1"))
