"""`check-fv` on right evaluators and on wrong ones, each of which fails the check meant for it and no other."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import sys
import textwrap

import numpy as np
import pytest
from warm import STARTER

from flavor.check.evaluator import CheckedEvaluator, EvaluatorCheck
from flavor.check.evaluator_checks import EVALUATOR_CHECKS
from flavor.check.folders import Folders
from flavor.check.output import Screen
from flavor.check.report import Status
from flavor.checkpoints import Checkpoint, Format, write
from flavor.programs.evaluator_environment import folders_named

ALL = [check.name for check in EVALUATOR_CHECKS]
MAIN = textwrap.dedent('''
    import json, os, pickle, sys, time
    with open(os.environ["WEIGHT_PATH"], "rb") as file:
        weights = pickle.load(file)["state_dict"]
    score = float(abs(weights["weight"]).mean())
    size = 5
    results = {"tables": [{"title": "T", "labels": ["score"], "values": [score]}]}
    OUTPUT = os.environ["OUTPUT_PATH"]
    with open(os.path.join(OUTPUT, "result.json"), "w") as file:
        json.dump({"metadata": {"datasetSize": size}, "results": results}, file)
''')  # fmt: skip
SAVES = """from flavor.cook.utils import SaveInfoJson
SaveInfoJson({"metadata": {"datasetSize": size}, "metrics": {"score": score}})
"""
ONLY_INFO = MAIN[: MAIN.index("results = ")] + SAVES


def changed(old: str, new: str) -> str:
    assert MAIN.count(old) == 1, old
    return MAIN.replace(old, new)


RIGHT = {
    "result.json": (MAIN, "result.json: 1 table; merged as means: T/score"),
    "SaveInfoJson": (ONLY_INFO, "merged as means: score"),
    "both": (MAIN + SAVES, "result.json: 1 table; merged as means: score, T/score"),
    "sets ProcessFinished": (MAIN + "from flavor.cook.utils import SetEvent\nSetEvent('ProcessFinished')\n", "1 table"),
}
WRONG = {
    "dies": (MAIN + "sys.exit(3)\n", "ends", "the script ended with exit code 3"),
    "sets Error": (MAIN + "from flavor.cook.utils import SetEvent\nSetEvent('Error')\n", "ends", "exit code 1"),
    "never ends": (MAIN + "time.sleep(60)\n", "ends", "still running after 3 s"),
    "reports nothing": (MAIN[: MAIN.index("OUTPUT =")], "reports a result", "the evaluator has written no result"),
    "half a report": (changed("}, file)", "}, file); file.write('{')"), "reports a result", "not complete JSON"),
    "a text for a number": (
        changed('"values": [score]', '"values": ["high"]'),
        "reports a result",
        "results.tables[0].values[0] must be a number",
    ),
    "an image outside": (
        changed('{"tables"', '{"images": [{"title": "x", "filename": "../model.png"}], "tables"'),
        "reports a result",
        "results.images[0].filename must be the name of a file within $OUTPUT_PATH",
    ),
    "changes the model": (
        MAIN + "open(os.environ['WEIGHT_PATH'], 'ab').write(b'x')\n",
        "keeps the model",
        "was changed",
    ),
    "removes the model": (MAIN + "os.remove(os.environ['WEIGHT_PATH'])\n", "keeps the model", "was removed"),
}
WARNED = {
    "no examples": (changed("size = 5", "size = 0"), "counts its examples", "datasetSize is 0"),
    "no number": (changed('"values": [score]', '"values": [None]'), "measures something", "no metric has a value"),
    "NaN beside a number": (
        ONLY_INFO.replace('{"score": score}', '{"score": score, "auc": float("nan")}'),
        "measures something",
        "no finite number: auc; measured: score",
    ),
    "a name that is not known": (
        changed('"labels": ["score"]', '"labels": ["score"], "xlabel": "x"'),
        "uses known names",
        "results.tables[0].xlabel",
    ),
    "random": (
        changed("size = 5", "import random; score += random.random() / 9; size = 5"),
        "measures the same again",
        "T/score was",
    ),
    "another model": (changed("size = 5", "score = 0.5; size = 5"), "judges the model", "the same: T/score 0.5"),
}


@pytest.fixture
def clean(monkeypatch):
    for name in ("INPUT_PATH", "OUTPUT_PATH", "LOCAL_MODEL_PATH", "GLOBAL_MODEL_PATH", "LOG_PATH", "WEIGHT_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def check(tmp_path, clean):
    """Check a script in this process; returns the report."""

    def run(script, *, timeout_s=60.0, **settings):
        (tmp_path / "evaluate.py").write_text(script)
        environment = folders_named(os.environ)
        folders = Folders(environment, name="check-fv")
        try:
            with Screen(quiet=True) as screen:
                command = [sys.executable, str(tmp_path / "evaluate.py")]
                checked = CheckedEvaluator(command, timeout_s=timeout_s, **settings)
                return EvaluatorCheck(checked, folders, environment=environment, screen=screen).run()
        finally:
            folders.close(keep=False)

    return run


def told(report, name):
    return next(result for result in report.results if result.check.name == name)


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_script_passes_every_check(check, name):
    script, said = RIGHT[name]
    report = check(script)
    assert report.named(Status.PASSED) == ALL, [(r.check.name, r.detail) for r in report.results]
    assert said in told(report, "reports a result").detail


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_script_fails_the_check_that_is_meant_for_it(check, tmp_path, name):
    script, failed, said = WRONG[name]
    own = tmp_path / "own.pkl"
    own.write_bytes(pickle.dumps({"state_dict": {"weight": np.ones(3, np.float32)}}))
    report = check(script, timeout_s=3 if name == "never ends" else 60, model=own)
    assert report.named(Status.FAILED) == [failed], [(r.check.name, r.detail) for r in report.results]
    assert said in told(report, failed).detail
    assert told(report, failed).hint


@pytest.mark.parametrize("name", WARNED)
def test_what_a_run_would_go_on_with_is_a_warning(check, name):
    script, warned, said = WARNED[name]
    report = check(script)
    assert report.ok
    assert warned in report.named(Status.WARNED)
    assert said in told(report, warned).detail


def test_nothing_is_decided_of_a_script_that_does_not_take_the_made_up_model(check):
    report = check(MAIN.replace('weights["weight"]', 'weights["conv1"]'))
    assert (report.named(Status.FAILED), report.named(Status.UNCLEAR), report.ok) == ([], ["ends"], False)
    assert "KeyError: 'conv1'" in told(report, "ends").detail
    hint = told(report, "ends").hint
    assert "INPUT_PATH" in hint
    assert "name one of yours with --model" in hint
    assert report.undecided


def test_a_model_of_ones_own(check, tmp_path):
    model = tmp_path / "own.pkl"
    model.write_bytes(pickle.dumps({"state_dict": {"conv1": np.ones(3, np.float32)}}))
    report = check(MAIN.replace('weights["weight"]', 'weights["conv1"]'), model=model)
    assert report.named(Status.PASSED) == ALL


def test_a_script_that_takes_the_model_in_another_format_is_not_called_wrong(check, tmp_path):
    model = tmp_path / "own.npz"
    write(model, Checkpoint({"weight": np.ones((4, 3), np.float32)}), Format.NPZ)
    report = check(MAIN, model=model)
    assert (report.named(Status.FAILED), report.named(Status.UNCLEAR), report.ok) == ([], ["ends"], False)
    has = f"{model} has the format npz, and the script judges the same model in the format pickle"
    assert report.undecided == f"not decided, because {has}"
    hint = told(report, "ends").hint
    assert hint.startswith(has)
    assert "`flavor get RUN --format pickle`" in hint
    assert check(MAIN + "sys.exit(3)\n", model=model).named(Status.FAILED) == ["ends"], (
        "it takes the model in no format"
    )
    reads_none = changed('weights = pickle.load(file)["state_dict"]', "pass")
    reads_none = reads_none.replace('float(abs(weights["weight"]).mean())', "0.5")
    fails_again = "log = open(OUTPUT + '/../starts', 'a'); log.write('x'); sys.exit(3 if log.tell() == 2 else 0)\n"
    report = check(reads_none + fails_again, model=model)
    assert report.named(Status.FAILED) == ["ends"], "at its first start it judged the file as it is"


def test_nothing_is_decided_of_a_script_that_does_not_take_a_model_that_no_run_has(check, tmp_path):
    model = tmp_path / "bare.pkl"
    model.write_bytes(pickle.dumps({"weight": np.ones(3, np.float32)}))
    report = check(MAIN, model=model)
    assert (report.named(Status.FAILED), report.named(Status.UNCLEAR), report.ok) == ([], ["ends"], False)
    assert f"the model may be the cause: {model}: it is a state_dict itself, " in told(report, "ends").hint
    assert report.undecided == f"not decided, because {model} may be the cause"


def test_a_model_that_is_no_state_dict(check, tmp_path):
    model = tmp_path / "own.txt"
    model.write_text("0.25")
    script = changed('weights = pickle.load(file)["state_dict"]', "score = float(file.read())")
    report = check(script.replace('score = float(abs(weights["weight"]).mean())\n', ""), model=model)
    assert report.ok
    assert report.named(Status.UNCLEAR) == ["judges the model"]


def test_the_preprocess_command(check, tmp_path):
    words = [sys.executable, "-c", "import os; open(os.environ['OUTPUT_PATH'] + '/prepared', 'w')"]
    needs = MAIN + "assert os.path.exists(OUTPUT + '/prepared')\n"
    assert check(needs, preprocess=words).named(Status.PASSED) == ALL
    report = check(MAIN, preprocess=[sys.executable, "-c", "raise SystemExit(4)"])
    assert report.named(Status.FAILED) == ["starts"]
    assert "the preprocess command ended with exit code 4" in told(report, "starts").detail


# -- the command


def check_fv(*arguments):
    return STARTER.run([sys.executable, "-P", "-m", "flavor.cli.check_fv", *arguments], timeout_s=100)


def test_the_command_says_each_result_in_a_line_and_keeps_the_files_of_a_failure(tmp_path, clean):
    (tmp_path / "evaluate.py").write_text(MAIN)
    command = shlex.join([sys.executable, str(tmp_path / "evaluate.py")])
    done = check_fv("-m", command)
    assert done.returncode == 0, done.stderr
    assert "9 passed: the script is ready for flavor-fv" in done.stdout
    (tmp_path / "evaluate.py").write_text(MAIN + "sys.exit(3)\n")
    done = check_fv("-m", command, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["passed"], os.path.basename(found["workspace"])[:9]) == (False, "check-fv-")
    assert not done.stderr
    assert "not decided, because the script may need a model of yours (--model)" in check_fv("-m", command).stdout
    assert check_fv("-m", "no-such-program-xyz").returncode == 2
    assert check_fv("-m", command, "--model", str(tmp_path / "none")).returncode == 2


def test_the_files_that_an_image_names_are_used_and_a_model_is_put_back(tmp_path, clean, monkeypatch):
    (tmp_path / "evaluate.py").write_text(MAIN)
    model = tmp_path / "weight" / "model.ckpt"
    model.parent.mkdir()
    content = pickle.dumps({"state_dict": {"weight": np.full(3, 0.25, np.float32)}})
    model.write_bytes(content)
    monkeypatch.setenv("WEIGHT_PATH", str(model))
    monkeypatch.setenv("OUTPUT_PATH", str(tmp_path / "output"))
    done = check_fv("-m", shlex.join([sys.executable, str(tmp_path / "evaluate.py")]))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "T/score 0.25" in done.stdout
    assert model.read_bytes() == content
    assert (tmp_path / "output" / "result.json").exists()
