"""Lets promtool evaluate the alert rules of deploy/observability on series that are made up."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

RULES = Path(__file__).parents[1] / "deploy" / "observability" / "rules.yml"
STEP_S = 15
"""Seconds between two scrapes, and between two evaluations."""
LONG_STEPS = 100
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")


@dataclass
class Case:
    """Series, each with its values `STEP_S` seconds apart (None for no value), and what fires at which seconds.

    What fires is `NAME`, or `NAME CLIENT`; see `fires`.
    """

    series: Mapping[str, Sequence[float | None]]
    fires: Mapping[int, Sequence[str]] = field(default_factory=dict)
    ever: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """What has fired at any time until then."""

    @property
    def steps(self) -> int:
        """How many it lasts, until the last look."""
        return max((*self.fires, *self.ever)) // STEP_S


def check(cases: Mapping[str, Case], folder: Path) -> None:
    """Have promtool check all cases, for exactly the alerts that fire: long ones in one test, all others in another.

    promtool takes longer to begin a test than to evaluate the rules, and evaluates them on the series of all cases of a
    test until the last one has ended.
    """
    long = {name: case for name, case in cases.items() if case.steps > LONG_STEPS}
    short = {name: case for name, case in cases.items() if name not in long}
    file = folder / "tests.yml"  # JSON is YAML
    tests = [_test(some) for some in (short, long) if some]
    whole = {"rule_files": [str(RULES)], "evaluation_interval": f"{STEP_S}s", "tests": tests}
    file.write_text(json.dumps(whole, indent=1))
    environment = {**os.environ, "GOGC": "400"}  # a sixth of the time went into collections of garbage
    command = ["promtool", "test", "rules", str(file)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"{found.stdout}{found.stderr}"


def _test(cases: Mapping[str, Case]) -> dict[str, object]:
    """A test of promtool. Each case has instances of its own in it."""
    series, expected = [], []
    for name, case in cases.items():
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower())
        for each, values in case.series.items():
            assert 'instance="' in each, "the cases must not meet"
            labelled = re.sub(r'\binstance="([^"]*)"', rf'instance="{slug}/\1"', each)
            series.append({"series": labelled, "values": _shown(values)})
        firing = f'ALERTS{{alertstate="firing",instance=~"{slug}/.*"}}'
        asked = [(firing, at_s, alerts) for at_s, alerts in case.fires.items()]
        asked += [(f"max_over_time({firing}[1h])", at_s, alerts) for at_s, alerts in case.ever.items()]
        for what, at_s, alerts in asked:
            samples = [{"labels": _labels(alert), "value": 1} for alert in sorted(alerts)]
            expr = f"count by (alertname, client) ({what})"
            expected.append({"expr": expr, "eval_time": f"{at_s}s", "exp_samples": samples})
    return {"interval": f"{STEP_S}s", "input_series": series, "promql_expr_test": expected}


def _shown(values: Sequence[float | None]) -> str:
    """Values as promtool reads them: a series that ends is stale, as one that a scrape no longer has."""
    words = []
    for before, value in zip([None, *values], values, strict=False):
        words.append(repr(float(value)) if value is not None else "_" if before is None else "stale")
    return " ".join(words)


def _labels(alert: str) -> str:
    name, _, client = alert.partition(" ")
    return f'{{alertname="{name}"{f", client={json.dumps(client)}" if client else ""}}}'
