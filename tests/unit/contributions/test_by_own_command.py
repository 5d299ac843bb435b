"""The command of `flavor contributions -e` is an evaluator as any other: what it may write, how its metric is named.

Its accuracy is the first weight of the model.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from flavor.cli.contributions import contributions
from tests.unit.contributions.madeup import MadeRun, weights

SCRIPT = """
import json, os, pickle, sys
from pathlib import Path
output, info = Path(os.environ["OUTPUT_PATH"]), Path(os.environ["LOCAL_MODEL_PATH"]).with_name("info.json")
w = float(pickle.load(open(os.environ["GLOBAL_MODEL_PATH"], "rb"))["state_dict"]["w"][0])
w = float("nan") if "nan" in sys.argv else w
table = {"title": "", "labels": ["accuracy"], "values": [w]}
if "silent" in sys.argv and (output / "once").exists():
    sys.exit()
(output / "once").touch()
(output / "result.json").write_text(json.dumps({"metadata": {"datasetSize": 3}, "results": {"tables": [table]}}))
"""


def judged(tmp_path: Path, *, select: str | None, metric: str | None = None, flag: str = ""):
    """Have a round of two sites judged: the model is 2, without site a 3, and without site b 1."""
    run = MadeRun(tmp_path / "store", weights(0, 0), config={"select": select} if select else {})
    run.round({"a": (weights(1, 1), 10), "b": (weights(3, 3), 10)})
    (tmp_path / "judge.py").write_text(SCRIPT)
    command = shlex.join([sys.executable, str(tmp_path / "judge.py"), flag])
    words = ["r", "--store", str(tmp_path / "store"), "-e", command, "--input", str(tmp_path), "--json"]
    return CliRunner().invoke(contributions, [*words, *(["--metric", metric] if metric else [])])


@pytest.mark.parametrize(
    ("select", "metric"), [(None, "accuracy:max"), ("central/accuracy:max", None), (None, "central/accuracy:max")]
)
def test_it_may_write_a_result_json_and_measures_the_operator_s_own_data(
    tmp_path: Path, select: str | None, metric: str | None
) -> None:
    done = judged(tmp_path, select=select, metric=metric)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["metric"] == "accuracy:max"
    (of_round,) = found["rounds"]
    assert of_round["value"] == 2
    assert {site: part["without"] for site, part in of_round["sites"].items()} == {"a": 3, "b": 1}


@pytest.mark.parametrize(
    ("select", "metric", "flag", "said"),
    [
        ("central/f1:max", None, "", "the run's --select central/f1:max: there is no metric 'f1': there is only acc"),
        (None, "f1:max", "", "--metric f1:max: there is no metric 'f1': there is only accuracy"),
        (None, "accuracy:max", "nan", "--metric accuracy:max: accuracy is not a finite number at operator (NaN)"),
    ],
)
def test_what_it_lacks_is_named_as_it_was_asked_for(
    tmp_path: Path, select: str | None, metric: str | None, flag: str, said: str
) -> None:
    done = judged(tmp_path, select=select, metric=metric, flag=flag)
    assert done.exit_code == 1
    assert said in done.stderr


def test_what_it_wrote_of_another_model_is_not_taken_for_that_of_the_next_one(tmp_path: Path) -> None:
    done = judged(tmp_path, select=None, metric="accuracy:max", flag="silent")
    assert "the evaluator has written no result" in json.loads(done.stdout)["rounds"][0]["sites"]["a"]["why_not"]
