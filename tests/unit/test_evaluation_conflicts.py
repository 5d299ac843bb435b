"""Settings about evaluation that exclude each other are refused before a run begins."""

from __future__ import annotations

import re

import pytest

from flavor.config import RunConfig
from flavor.errors import InvalidSetting
from flavor.resume import resumed_config

GAIN = {"select": "accuracy:max", "stop_after_no_gain": "2"}
GOAL = {"stop_when": ("accuracy>=0.9",)}
_WHY = "no evaluation has it, because no evaluator can report"
POSSIBLE = [
    "a",
    "a (weighted)",
    "pooled/a",
    "worst/a",
    "central/a",
    "central/pooled/a",
    "pooled/auc_bound",
    "x/pooled/a",
]
IMPOSSIBLE = {
    "worst/pooled/auc": f"{_WHY} 'pooled/auc': name 'worst/auc' or 'pooled/auc'",
    "worst/central/auc": f"{_WHY} 'central/auc': name 'worst/auc' or 'central/auc'",
    "pooled/accuracy (weighted)": f"{_WHY} 'accuracy (weighted)': name 'pooled/accuracy' or 'accuracy (weighted)'",
    "central/a (weighted)": f"{_WHY} 'a (weighted)': name 'central/a' or 'a (weighted)'",
    "central/pooled/worst/a": f"{_WHY} 'worst/a': name 'central/a' or 'pooled/a' or 'worst/a'",
    "a (weighted) (weighted)": f"{_WHY} 'a (weighted)': name 'a (weighted)'",
    "worst/merge/a": f"{_WHY} 'merge/a': name 'worst/a'",
    "central/count/a": "no evaluation has it: counts are not kept, and 'central/pooled/…' is computed of them",
    "merge/lora_residual": "no evaluation has it: names that begin with 'merge/' are figures of how models became one",
}


@pytest.mark.parametrize(
    ("rules", "mode", "said"),
    [
        (GOAL, "final", "--stop-when never ends a run of which only the last model is judged: pass --evaluate every"),
        (GAIN, "final", "--stop-after-no-gain never ends a run of which only the last model is judged"),
        (GAIN, "off", "--select needs evaluations, and --evaluate is off"),
        ({"stop_after_no_gain": "2"}, None, "--stop-after-no-gain needs --select"),
        ({"select": "accuracy:max"}, "final", ""),
        (GAIN, "2", ""),
        (GOAL, None, ""),
        *(({"select": f"{name}:max"}, None, "") for name in POSSIBLE),
        *(({"select": f"{name}:max"}, None, f"--select {name}:max: {said}") for name, said in IMPOSSIBLE.items()),
        ({"stop_when": ("a>1", "worst/pooled/a>=0.9")}, None, "--stop-when 'worst/pooled/a>=0.9': no evaluation has"),
    ],
    ids=str,
)
def test_a_rule_that_can_never_hold_is_refused(rules, mode, said):
    settings = {"rounds": 3, "store": "file:///s", "evaluate": mode, **rules}
    if not said:
        assert RunConfig.parse(settings).evaluate == mode
        return
    with pytest.raises(InvalidSetting, match=re.escape(said)):
        RunConfig.parse(settings)


def test_a_run_that_is_there_keeps_a_rule_that_can_never_have_a_value():
    before = {"rounds": 3, "store": "file:///s", "stop_when": ["worst/pooled/a>=0.9"]}
    assert RunConfig.known(before).stop_when == RunConfig.of_run("r", before).stop_when
    assert resumed_config(before, {"rounds": 9}, closed=1)[0].rounds == 9
    with pytest.raises(InvalidSetting, match=r"--stop-when 'central/worst/a>=0\.9': no evaluation has it"):
        resumed_config(before, {"stop_when": ["worst/pooled/a>=0.9", "central/worst/a>=0.9"]}, closed=1)
