"""Settings about evaluation that exclude each other are refused before a run begins."""

from __future__ import annotations

import pytest

from flavor.config import RunConfig
from flavor.errors import InvalidSetting

GAIN = {"select": "accuracy:max", "stop_after_no_gain": "2"}
GOAL = {"stop_when": ("accuracy>=0.9",)}


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
    ],
    ids=str,
)
def test_a_rule_that_can_never_hold_is_refused(rules, mode, said):
    settings = {"rounds": 3, "store": "file:///s", "evaluate": mode, **rules}
    if not said:
        assert RunConfig.parse(settings).evaluate == mode
        return
    with pytest.raises(InvalidSetting, match=said.replace(":", ".")):
        RunConfig.parse(settings)
