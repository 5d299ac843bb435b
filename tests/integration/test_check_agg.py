"""`check-agg` on right aggregators and on wrong ones, each of which fails the check meant for it and no other."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import textwrap

import pytest
from test_check_fl import ALL_ROUNDS, GOOD, WRONG, changed, clean  # noqa: F401 - a fixture

MEAN = textwrap.dedent('''
    import pickle, sys, time
    import numpy as np
    from flavor.cook.utils import GetPaths

    def load(path):
        with open(path, "rb") as file:
            return pickle.load(file)["state_dict"]

    models = [load(path) for path in GetPaths("localModels")]
    made = {k: np.mean([m[k] for m in models], axis=0).astype(models[0][k].dtype) for k in models[0]}
    with open(GetPaths("globalModel")[0], "wb") as file:
        pickle.dump({"state_dict": made}, file)
''')  # fmt: skip

SAVE = 'with open(GetPaths("globalModel")[0], "wb") as file:\n'
WRONG_AGGREGATORS = {
    "exits 1": (MEAN.replace(SAVE, "sys.exit(1)\n" + SAVE), "ends with exit code 0"),
    "hangs": (MEAN.replace(SAVE, "time.sleep(60)\n" + SAVE), "ends with exit code 0"),
    "writes nothing": (MEAN.replace(SAVE, "sys.exit(0)\n" + SAVE), "writes the global model"),
    "no state_dict": (MEAN.replace('{"state_dict": made}', "made"), "is a checkpoint like the trainers'"),
    "not loadable": (MEAN.replace("pickle.dump({", "print({").replace("made}, file", "made}"), None),
    "NaN": (MEAN.replace(SAVE, 'made["b1"][0] = np.nan\n' + SAVE), "all values are finite"),
    "shapes": (MEAN.replace(SAVE, 'made["b1"] = made["b1"][:3]\n' + SAVE), "keeps names and shapes"),
    "dtypes": (MEAN.replace(".astype(models[0][k].dtype)", ""), "keeps names and shapes"),
    "constant": (
        MEAN.replace(SAVE, "made = {k: v * 0 for k, v in made.items()}\n" + SAVE),
        "follows every local model",
    ),
    "first alone": (MEAN.replace(SAVE, "made = models[0]\n" + SAVE), "follows every local model"),
}
WRONG_AGGREGATORS["not loadable"] = (WRONG_AGGREGATORS["not loadable"][0], "is a checkpoint like the trainers'")


@pytest.fixture
def check_agg(tmp_path, clean):  # noqa: F811
    def run(aggregator, trainer=GOOD, *arguments):
        (tmp_path / "main.py").write_text(trainer)
        (tmp_path / "aggregate.py").write_text(aggregator)
        commands = [shlex.join([sys.executable, str(tmp_path / name)]) for name in ("aggregate.py", "main.py")]
        return subprocess.run(
            [sys.executable, "-m", "flavor.cli.check_aggregator", "-m", commands[0], "-cm", commands[1], *arguments],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("trainer", [GOOD, changed(ALL_ROUNDS)], ids=["endless", "exactly TOTAL_ROUNDS"])
def test_a_mean_passes_every_check(check_agg, trainer):
    ran = check_agg(MEAN, trainer, "--json", "--rounds", "3")
    report = json.loads(ran.stdout)
    assert {item["status"] for item in report["checks"]} == {"passed"}, report
    assert {item["section"] for item in report["checks"]} == {"trainer", "aggregator"}
    assert (ran.returncode, ran.stderr, report["workspace"]) == (0, "", None)


@pytest.mark.parametrize("name", WRONG_AGGREGATORS)
def test_wrong_aggregators_fail_the_check_for_it_and_no_other(check_agg, name):
    aggregator, wanted = WRONG_AGGREGATORS[name]
    ran = check_agg(aggregator, GOOD, "--json", "--timeout-s", "5")
    failed = [item for item in json.loads(ran.stdout)["checks"] if item["status"] == "failed"]
    assert [(item["section"], item["name"]) for item in failed] == [("aggregator", wanted)], failed
    assert failed[0]["hint"]
    assert ran.returncode == 1


def test_a_trainer_that_ignores_the_global_model_fails_its_own_check(check_agg):
    ran = check_agg(MEAN, WRONG["ignores the global model"][0], "--json")
    failed = [item for item in json.loads(ran.stdout)["checks"] if item["status"] == "failed"]
    assert [(item["section"], item["name"]) for item in failed] == [("trainer", "trains from the global model")]


def test_noise_in_the_result_is_said(check_agg):
    noisy = MEAN.replace(SAVE, 'made["b1"] += np.random.normal(size=12).astype("f4") * 1e-4\n' + SAVE)
    ran = check_agg(noisy)
    assert ran.returncode == 0, ran.stdout
    assert "two runs on the same models differ by" in ran.stdout


def test_a_command_that_does_not_exist_is_exit_code_2(clean):  # noqa: F811
    module = [sys.executable, "-m", "flavor.cli.check_aggregator"]
    ran = subprocess.run(
        [*module, "-m", "no-such-program", "-cm", "true"], capture_output=True, text=True, check=False, env=os.environ
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "no-such-program" in ran.stderr
