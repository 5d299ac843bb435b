"""`check-fl` on right scripts and on wrong ones, each of which fails the check meant for it and no other."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from pages import prepared
from warm import STARTER

from flavor.bus.events import ClientEvents
from flavor.check.fake_bus import FakeBus
from flavor.check.folders import Folders
from flavor.check.output import Screen
from flavor.check.report import Status
from flavor.check.trainer import CheckedTrainer, TrainerCheck
from flavor.check.trainer_checks import CONTENT, TRAINER_CHECKS
from flavor.checkpoints.kinds import OPAQUE
from flavor.programs.readmark import ReadMark

ALL = [check.name for check in TRAINER_CHECKS if not check.if_used]

GOOD = textwrap.dedent('''
    import json, os, pickle, sys, time
    import numpy as np
    from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

    LOCAL, GLOBAL = os.environ["LOCAL_MODEL_PATH"], os.environ["GLOBAL_MODEL_PATH"]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 16)).astype(np.float32)
    y = np.abs(x[:, :4]).argmax(1)
    model = {
        "w1": rng.normal(size=(16, 12)).astype(np.float32) / 4, "b1": np.zeros(12, np.float32),
        "w2": rng.normal(size=(12, 4)).astype(np.float32) / 3, "steps": np.array(0),
    }

    def train(model, steps=30, rate=0.3):
        for _ in range(steps):
            hidden = np.maximum(x @ model["w1"] + model["b1"], 0)
            score = np.exp(hidden @ model["w2"])
            score /= score.sum(1, keepdims=True)
            score[np.arange(len(y)), y] -= 1
            back = score @ model["w2"].T * (hidden > 0)
            model["w2"] = model["w2"] - rate * hidden.T @ score / len(y)
            model["w1"] = model["w1"] - rate * x.T @ back / len(y)
            model["b1"] = model["b1"] - rate * back.mean(0)
        model["steps"] = model["steps"] + steps

    def load():
        global model
        if os.path.exists(GLOBAL):
            with open(GLOBAL, "rb") as file:
                model = dict(pickle.load(file)["state_dict"])

    def save():
        with open(LOCAL, "wb") as file:
            pickle.dump({"state_dict": model}, file)

    def info(epoch):
        cells = {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")}
        return {"metadata": {"epoch": epoch, "datasetSize": len(y), "importance": 1.0}, "metrics": cells}

    SetEvent("TrainInitDone")
    epoch = 0
    while True:
        WaitEvent("TrainStarted")
        epoch += 1
        load()
        train(model)
        save()
        SaveInfoJson(info(epoch))
        SetEvent("TrainFinished")
''')  # fmt: skip

DIGITS = textwrap.dedent('''
    import os
    import numpy as np
    from sklearn.datasets import load_digits
    from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

    digits = load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target
    w, b = np.zeros((64, 10), np.float32), np.zeros(10, np.float32)
    cells = {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")}
    SetEvent("TrainInitDone")
    for epoch in range(int(os.environ["TOTAL_ROUNDS"])):
        WaitEvent("TrainStarted")
        if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):
            known = np.load(os.environ["GLOBAL_MODEL_PATH"])
            w, b = known["w"], known["b"]
        for _ in range(20):
            p = np.exp(x @ w + b)
            p /= p.sum(1, keepdims=True)
            p[np.arange(len(y)), y] -= 1
            w, b = w - 0.5 * (x.T @ p) / len(y), b - 0.5 * p.mean(0)
        with open(os.environ["LOCAL_MODEL_PATH"], "wb") as file:
            np.savez(file, w=w, b=b)
        metadata = {"epoch": epoch, "datasetSize": len(y), "importance": 1.0}
        SaveInfoJson({"metadata": metadata, "metrics": cells})
        SetEvent("TrainFinished")
''')  # fmt: skip

SHELL = textwrap.dedent('''
    set -e
    flavor event set TrainInitDone
    epoch=0
    while flavor event wait TrainStarted; do
        epoch=$((epoch + 1))
        echo "weights of round $epoch" > "$LOCAL_MODEL_PATH"
        flavor info save - <<END
        {"metadata": {"epoch": $epoch, "datasetSize": 3, "importance": 1},
         "metrics": {"basic/confusion_tp": -1, "basic/confusion_fp": -1,
                     "basic/confusion_fn": -1, "basic/confusion_tn": -1}}
    END
        flavor event set TrainFinished
    done
''')  # fmt: skip


def changed(*changes: tuple[str, str]) -> str:
    """The good script, with each old text replaced by a new one."""
    script = GOOD
    for old, new in changes:
        assert script.count(old) == 1, old
        script = script.replace(old, new)
    return script


LOOP = "while True:\n    WaitEvent"
ASKS = "from flavor.cook.utils import IsSetEvent\nwhile True:\n    IsSetEvent"
ALL_ROUNDS = (LOOP, 'for _ in range(int(os.environ["TOTAL_ROUNDS"])):\n    WaitEvent')
REST = GOOD[GOOD.index("    save()\n    SaveInfoJson") :]
NEVER_LOADS = ("    load()\n", "    pass\n")
THREE_WEIGHTS = [
    (
        '"w1": rng.normal(size=(16, 12)).astype(np.float32) / 4, "b1": np.zeros(12, np.float32),',
        '"w": np.zeros(2),',
    ),
    ('"w2": rng.normal(size=(12, 4)).astype(np.float32) / 3, "steps": np.array(0),', '"b": np.array(0.0)'),
    (
        "    train(model)\n",
        "    for _ in range(20):\n"
        "        error = x[:, :2] @ model['w'] + model['b'] - (x[:, 0] + 2 * x[:, 1] + 3)\n"
        "        model['w'] = model['w'] - 0.02 * x[:, :2].T @ error / len(y)\n"
        "        model['b'] = model['b'] - 0.02 * error.mean()\n",
    ),
]

SLEEP = "    load()\n    time.sleep(0.3)\n"

RIGHT = {
    "endless loop": GOOD,
    "exactly TOTAL_ROUNDS": changed(ALL_ROUNDS),
    "softmax on digits, npz": DIGITS,
    "three weights": changed(*THREE_WEIGHTS),
    "trained for long": changed(("train(model)\n", "train(model, 1500)\n")),
    "with objects beside state_dict": changed(
        ('{"state_dict": model}', '{"state_dict": model, "path": __import__("pathlib").Path()}')
    ),
}
TOLD_OF_RIGHT = {
    "endless loop": (
        "trains from the global model",
        "it shows clearly in the weights sent in; not judged alone: b1 (12 numbers)",
    ),
    "exactly TOTAL_ROUNDS": ("ends", "exit code 0 after 3 rounds"),
}

WRONG = {
    "no TrainInitDone": (changed(('SetEvent("TrainInitDone")\n', "\n")), "sets TrainInitDone"),
    "dies before TrainInitDone": (
        changed(('SetEvent("TrainInitDone")\n', "sys.exit(3)\n")),
        "sets TrainInitDone",
    ),
    "does not wait": (changed(('    WaitEvent("TrainStarted")\n', "")), "waits for TrainStarted"),
    "waits only once": (
        changed((LOOP + '("TrainStarted")\n', 'WaitEvent("TrainStarted")\nwhile True:\n')),
        "waits for TrainStarted",
    ),
    "writes before it waits": (changed((LOOP, "save()\n" + LOOP)), "waits for TrainStarted"),
    "no checkpoint": (changed(("    save()\n    Save", "    Save")), "saves a checkpoint"),
    "np.savez appends .npz": (
        changed(("    save()\n    Save", "    np.savez(LOCAL, **model)\n    Save")),
        "saves a checkpoint",
    ),
    "no checkpoint, and ends": (
        changed(ALL_ROUNDS, ("    save()\n    Save", "    Save"), (REST[-30:], REST[-30:] + "    break\n")),
        "saves a checkpoint",
    ),
    "not a checkpoint": (changed(("pickle.dump({", "print({")), "has a state_dict"),
    "no state_dict": (changed(('dump({"state_dict": model}', "dump(model")), "has a state_dict"),
    "empty state_dict": (changed(('"state_dict": model}', '"state_dict": {}}')), "has a state_dict"),
    "object in state_dict": (
        changed(('"state_dict": model}', '"state_dict": model | {"o": __import__("pathlib").Path()}}')),
        "holds only tensors",
    ),
    "NaN": (
        changed(("    save()\n    S", '    model["b1"][3] = np.nan\n    save()\n    S')),
        "all values are finite",
    ),
    "shape changes": (
        changed(("    save()\n    S", '    model["extra"] = np.zeros(epoch)\n    save()\n    S')),
        "keeps names and shapes",
    ),
    "dtype changes": (
        changed(
            (
                "    save()\n    S",
                '    model["b1"] = model["b1"].astype("f4" if epoch > 1 else "f8")\n    save()\n    S',
            )
        ),
        "keeps names and shapes",
    ),
    "ignores the global model": (changed(NEVER_LOADS), "trains from the global model"),
    "loads it before it waits": (
        changed(("    load()\n", ""), (LOOP, "while True:\n    load()\n    WaitEvent")),
        "trains from the global model",
    ),
    "opens it and does not use it": (
        changed(("    load()\n", "    os.path.exists(GLOBAL) and open(GLOBAL, 'rb').read()\n")),
        "trains from the global model",
    ),
    "loads it only to evaluate": (
        changed(("    load()\n", "    own = dict(model)\n    load()\n    model = own\n")),
        "trains from the global model",
    ),
    "starts anew each round": (
        changed(("    load()\n", "    model = {k: rng.normal(size=v.shape) for k, v in model.items()}\n")),
        "trains from the global model",
    ),
    "three weights, never loads": (changed(*THREE_WEIGHTS, NEVER_LOADS), "trains from the global model"),
    "no info.json": (changed(("    SaveInfoJson(info(epoch))\n", "")), "writes info.json"),
    "info.json without datasetSize": (
        changed(
            (
                "    SaveInfoJson(info(epoch))\n",
                "    told = info(epoch)\n    del told['metadata']['datasetSize']\n"
                "    json.dump(told, open(os.path.join(os.path.dirname(LOCAL), 'info.json'), 'w'))\n",
            )
        ),
        "writes info.json",
    ),
    "half an info.json": (
        changed(
            (
                "    SaveInfoJson(info(epoch))\n",
                "    with open(os.path.join(os.path.dirname(LOCAL), 'info.json'), 'w') as file:\n"
                "        file.write(json.dumps(info(epoch))[:80])\n",
            )
        ),
        "writes info.json",
    ),
    "saves before it trains": (
        changed(("    train(model)\n    save()\n", "    save()\n    train(model)\n")),
        "changes the model",
    ),
    "loads the global model after training": (
        changed(("    load()\n    train(model)\n", "    train(model)\n    load()\n")),
        "changes the model",
    ),
    "a learning rate of 0": (changed(("rate=0.3", "rate=0.0")), "changes the model"),
    "weights of 0 and a learning rate of 0": (
        changed(("rate=0.3", "rate=0.0"), ("/ 4,", "* 0,"), ("/ 3,", "* 0,")),
        "changes the model",
    ),
    "waits for TrainInitDone": (
        changed((LOOP + '("TrainStarted")', LOOP + '("TrainInitDone")'), ("    load()\n", SLEEP)),
        "waits for TrainStarted",
    ),
    "asks whether TrainInitDone is set": (
        changed(
            (LOOP + '("TrainStarted")', ASKS + '("TrainInitDone")'),
            ("    load()\n", SLEEP),
        ),
        "waits for TrainStarted",
    ),
    "takes a while and waits for nothing": (
        changed(('    WaitEvent("TrainStarted")\n', ""), ("    load()\n", SLEEP)),
        "waits for TrainStarted",
    ),
    "forgets TrainFinished": (changed(('    SetEvent("TrainFinished")\n', "")), "sets TrainFinished"),
    "no TrainFinished": (
        changed(('    SetEvent("TrainFinished")\n', "    time.sleep(60)\n")),
        "sets TrainFinished",
    ),
    "TrainFinished before the files": (
        changed((REST, '    SetEvent("TrainFinished")\n' + REST.replace('    SetEvent("TrainFinished")\n', ""))),
        "sets TrainFinished",
    ),
    "TrainFinished before the files, and ends": (
        changed(
            ALL_ROUNDS,
            (REST, '    SetEvent("TrainFinished")\n' + REST.replace('    SetEvent("TrainFinished")\n', "")),
        ),
        "sets TrainFinished",
    ),
    "saves again after TrainFinished": (GOOD + "    save()\n", "sets TrainFinished"),
    "saves again at its end": (changed(ALL_ROUNDS) + "\ntime.sleep(0.5)\nsave()\n", "sets TrainFinished"),
    "dies in round one": (changed(("    save()\n    S", "    sys.exit(3)\n    S")), "sets TrainFinished"),
    "dies in round two": (
        changed(("    save()\n    S", "    epoch < 2 or sys.exit(3)\n    save()\n    S")),
        "sets TrainFinished",
    ),
    "sets Error": (
        changed(("    save()\n    S", "    SetEvent('Error')\n    save()\n    S")),
        "sets TrainFinished",
    ),
    "ends after round one": (GOOD + "    break\n", "ends"),
    "dies at the end": (changed(ALL_ROUNDS) + "\nsys.exit(3)\n", "ends"),
    "never ends": (changed(ALL_ROUNDS) + "\ntime.sleep(60)\n", "ends"),
    "catches the end": (
        changed(
            (
                LOOP + '("TrainStarted")\n',
                'while True:\n    try:\n        WaitEvent("TrainStarted")\n'
                "    except SystemExit:\n        time.sleep(60)\n",
            )
        ),
        "ends",
    ),
}
TOLD_OF_WRONG = {
    "ignores the global model": "round 2: $GLOBAL_MODEL_PATH was not read between TrainStarted and TrainFinished",
    "loads it only to evaluate": "was read, but does not show",
    "asks whether TrainInitDone is set": "it asked for TrainInitDone",
    "waits for TrainInitDone": "WaitEvent('TrainInitDone'): a trainer sets it itself",
}
SLOW = ("no TrainFinished", "never ends", "catches the end")
"""These wait for the time limit."""


@pytest.fixture
def clean(monkeypatch, tmp_path):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    for name in ("INPUT_PATH", "OUTPUT_PATH", "LOG_PATH", "LOCAL_MODEL_PATH", "GLOBAL_MODEL_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def check(tmp_path, clean, warm_scripts):
    """Check a script in this process; the results by name."""

    def run(script, *, environment=None, rounds=2, **settings):
        path = tmp_path / "main.py"
        path.write_text(script)
        chosen = dict(os.environ) | (environment or {})
        folders = Folders(chosen)
        try:
            command = [sys.executable, str(path)]
            return TrainerCheck(
                CheckedTrainer(command, rounds=rounds, **settings),
                folders,
                environment=chosen,
                screen=Screen(quiet=True),
            ).run()
        finally:
            folders.close(keep=False)

    return run


def outcome(report, status):
    return [result.check.name for result in report.results if result.status is status]


def detail(report, name):
    return next(result.detail for result in report.results if result.check.name == name)


@pytest.mark.parametrize("name", RIGHT)
def test_right_scripts_pass_every_check(check, name):
    report = check(RIGHT[name], rounds=3 if name == "exactly TOTAL_ROUNDS" else 2, timeout_s=30)
    assert outcome(report, Status.PASSED) == ALL, [r.as_dict() for r in report.results]
    assert report.ok
    if name in TOLD_OF_RIGHT:
        where, told = TOLD_OF_RIGHT[name]
        assert detail(report, where) == told


def test_what_a_script_reports_is_shown(check):
    reports = 'Report(29, 30)\n    Report(30, 30, "a\\x1bb", loss=0.31)\n    save()\n'
    report = check(
        changed(("    save()\n    S", f"    from flavor.cook.utils import Report\n    {reports}    S")), timeout_s=30
    )
    assert outcome(report, Status.PASSED) == [*ALL[:-2], "reports its progress", *ALL[-2:]]
    assert detail(report, "reports its progress") == "30 of 30, loss 0.31, a\\x1bb"


def test_a_report_that_never_works_is_a_warning(check):
    report = check(
        changed(
            ("    save()\n    S", "    from flavor.cook.utils import Report\n    Report('1/3')\n    save()\n    S")
        ),
        timeout_s=30,
    )
    assert outcome(report, Status.WARNED) == ["reports its progress"]
    assert "never worked: done must be a number, 0 or more, and is '1/3'" in detail(report, "reports its progress")
    assert report.ok


MAKES = "    load()\n    from flavor.cook.numpy import proximal\n    term = proximal(model, 0.1)\n"
USES = "    pull = term.gradients(model)\n"
FEDPROX = {
    "in each round": (MAKES + USES, ""),
    "made before the loop": (MAKES.replace("    term =", "    term = epoch > 1 and term or") + USES, ""),
    "never": (MAKES, "round 1: it made proximal(model, mu) and never used the term, so it trained as FedAvg does"),
    "in the first round alone": (
        MAKES + "    if epoch == 1:\n    " + USES,
        "round 2: it made proximal(model, mu) and never used the term, so it trained as FedAvg does",
    ),
}


@pytest.mark.parametrize("name", FEDPROX)
def test_a_proximal_term_that_is_made_has_to_be_used_in_every_round(check, tmp_path, name):
    lines, told = FEDPROX[name]
    report = check(changed(("    load()\n", lines)), timeout_s=30, environment={"OUTPUT_PATH": str(tmp_path / "out")})
    failed = [result for result in report.results if result.status is Status.FAILED]
    assert [result.detail for result in failed] == ([told] if told else [])
    if told:
        assert "add the term to the loss (loss = loss + term())" in failed[0].hint
    assert detail(report, "calls what its algorithm needs").startswith(told or "FedProx: ")


CORRECT, FINISH = "scaffold.correction(model)", "scaffold.finish(model)"
SCAFFOLD_CALLS = {
    "all": (CORRECT, f"{FINISH}; save()", ""),
    "no correction": (
        "None",
        f"{FINISH}; save()",
        "round 1: it made Scaffold(model, lr) and never called correct(), so no step was corrected",
    ),
    "no end": (
        CORRECT,
        "save()",
        "round 1: it made Scaffold(model, lr) and never called finish(), so no control variate was handed in",
    ),
    "an end after the model is saved": (
        CORRECT,
        f"save(); {FINISH}",
        "round 1: all control variates in the saved model are 0",
    ),
    "a model saved without them": (
        CORRECT,
        f"{FINISH}; model = {{name: each for name, each in model.items() if '__' not in name}}; save()",
        "round 1: it called Scaffold's finish(), and the model that it saved has no control variates",
    ),
    "a model loaded without them": (
        CORRECT,
        f"{FINISH}; save()",
        "round 2: c is, in all tensors, what this site handed in itself, so that no step is corrected",
    ),
}
LOADED = 'dict(pickle.load(file)["state_dict"])'


@pytest.mark.parametrize("name", SCAFFOLD_CALLS)
def test_what_scaffold_needs_is_called_in_every_round(check, name):
    correct, then, told = SCAFFOLD_CALLS[name]
    own = "{each: array for each, array in model.items() if '__' in each}"
    loads = [(LOADED, f"{LOADED} | {own}")] if name == "a model loaded without them" else []
    report = check(
        changed(
            *loads,
            ("def train(", "from flavor.cook.numpy import Scaffold\nscaffold = Scaffold(model, 0.3)\n\ndef train("),
            ("        hidden = ", f"        more = {correct}\n        hidden = "),
            ("    train(model)\n    save()\n", f"    train(model)\n    {then}\n"),
        ),
        timeout_s=30,
    )
    failed = outcome(report, Status.FAILED)
    unseen = "its steps were not looked at: call scaffold.correction(model, gradients)"
    expected = told or f"SCAFFOLD: every round had its corrections and its end; {unseen}"
    assert detail(report, "calls what its algorithm needs") == expected
    assert ("calls what its algorithm needs" in failed) == bool(told), failed
    if name != "a model saved without them":  # whose next round cannot begin
        assert len(failed) == bool(told)
    assert outcome(report, Status.WARNED) == []


READS = """import functools
@functools.lru_cache
def read():
    with open(GLOBAL, "rb") as file:
        return pickle.load(file)["state_dict"]

def load():
"""


def test_a_script_that_takes_the_first_global_model_for_all_is_noticed(tmp_path, clean):
    """The default number of rounds has to show it: two rounds have one global model alone."""
    loads = 'with open(GLOBAL, "rb") as file:\n            model = dict(pickle.load(file)["state_dict"])'
    once = changed((loads, "model = dict(read())"), ("def load():\n", READS))
    ran = check_fl("-m", main(tmp_path, once))
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "FAILED   trains from the global model" in ran.stdout
    assert "round 3: $GLOBAL_MODEL_PATH was not read" in ran.stdout


@pytest.mark.parametrize("name", WRONG)
def test_wrong_scripts_fail_the_check_for_it_and_no_other(check, name):
    script, wanted = WRONG[name]
    began = time.monotonic()
    report = check(script, timeout_s=3 if name in SLOW else 60)
    assert time.monotonic() - began < 30, "it was found by the time limit alone"
    assert outcome(report, Status.FAILED) == [wanted], [r.as_dict() for r in report.results]
    assert not report.ok
    for result in report.results:
        assert bool(result.hint) or result.status is not Status.FAILED
        assert result.check.name != "starts" or result.status is Status.PASSED
    if name in TOLD_OF_WRONG:
        assert TOLD_OF_WRONG[name] in detail(report, wanted)
    if name == "ignores the global model":
        assert detail(report, wanted) == TOLD_OF_WRONG[name]
    if name == "waits for TrainInitDone":
        assert detail(report, wanted).endswith("call WaitEvent('TrainStarted')")


@pytest.fixture
def late_look(monkeypatch):
    """The check looks 0.3 s after each event: the script has gone on by then."""
    wait = FakeBus.wait

    def wait_and_dawdle(bus, timeout_s):
        wait(bus, timeout_s)
        time.sleep(0.3)

    monkeypatch.setattr(FakeBus, "wait", wait_and_dawdle)


@pytest.mark.usefixtures("late_look")
def test_files_are_judged_as_they_were_at_the_event_however_late_one_looks(check):
    report = check(WRONG["TrainFinished before the files"][0])
    assert outcome(report, Status.FAILED) == ["sets TrainFinished"]


@pytest.mark.usefixtures("late_look")
def test_a_model_that_is_loaded_before_the_wait_is_not_taken_for_this_rounds_however_late_one_looks(check):
    """Its next pass has read the file by then."""
    report = check(WRONG["loads it before it waits"][0])
    (failed,) = [result for result in report.results if result.status is Status.FAILED]
    assert failed.detail == "round 2: $GLOBAL_MODEL_PATH was not read between TrainStarted and TrainFinished"
    assert "is the model loaded before WaitEvent?" in failed.hint


def test_a_script_that_waits_for_the_next_round_is_not_taken_for_one_that_waits_twice(check, monkeypatch):
    """The server's thread has seen the last round's model, and goes on once the next round has begun."""
    start, begun, is_file, waited = ClientEvents.start_round, threading.Event(), Path.is_file, []

    def start_round(events, round_, **options):
        start(events, round_, **options)
        if round_ == 2:
            begun.set()

    def seen_late(path):
        found = is_file(path)
        if found and threading.current_thread() is not threading.main_thread() and path.parent.name == "local":
            waited.append(begun.wait(20))
        return found

    monkeypatch.setattr(ClientEvents, "start_round", start_round)
    monkeypatch.setattr(Path, "is_file", seen_late)
    report = check(GOOD)
    assert outcome(report, Status.FAILED) == [], [result.as_dict() for result in report.results]
    assert waited[0]


TWICE = ('    WaitEvent("TrainStarted")\n', '    WaitEvent("TrainStarted")\n    WaitEvent("TrainStarted")\n')
IN_A_PROCESS = (
    TWICE[0],
    TWICE[0] + "    import subprocess; busy = subprocess.Popen(['sleep', '60'])\n"
    "    other = subprocess.Popen(['sleep', '60'])\n" + TWICE[0],
)


def test_a_script_that_waits_twice_is_told_so_long_before_its_time_is_over(check):
    """It was told that a round may take longer, after ten minutes."""
    began = time.monotonic()
    report = check(changed(TWICE), timeout_s=60)
    assert time.monotonic() - began < 30
    assert outcome(report, Status.FAILED) == ["sets TrainFinished"]
    told = "round 1: it called WaitEvent('TrainStarted') again before TrainFinished"
    assert detail(report, "sets TrainFinished") == told


def test_of_a_script_of_several_processes_another_may_finish_the_round(check):
    report = check(changed(IN_A_PROCESS), timeout_s=4)
    (failed,) = [result for result in report.results if result.status is Status.FAILED]
    assert failed.detail == "round 1: it called WaitEvent('TrainStarted') again before TrainFinished"
    assert failed.hint.startswith("call WaitEvent('TrainStarted') once in each round")


def test_a_death_is_reported_at_once_with_its_last_lines_and_skips_the_rest(check, monkeypatch):
    monkeypatch.setattr("flavor.check.script._TICK_S", 30.0)  # the death itself ends the wait
    script = changed(("    save()\n    S", "    raise OSError('no space for the model')\n    S"))
    began = time.monotonic()
    report = check(script, timeout_s=60)
    assert time.monotonic() - began < 5
    assert outcome(report, Status.PASSED) == ["starts", "sets TrainInitDone", "waits for TrainStarted"]
    assert len(outcome(report, Status.SKIPPED)) == len(ALL) - 4
    lines = detail(report, "sets TrainFinished").splitlines()
    assert lines[0] == "the script ended with exit code 1 in round 1, before TrainFinished"
    assert lines[-1] == "| OSError: no space for the model"


def test_the_last_line_of_a_script_is_quoted_whole_and_a_long_one_before_it_is_cut_in_its_middle(check):
    fails = "    print('begin' + '.' * 900 + 'end')\n    raise OSError('no space' + ' and no memory' * 60)\n    S"
    lines = detail(check(changed(("    save()\n    S", fails))), "sets TrainFinished").splitlines()
    assert lines[-1] == "| OSError: no space" + " and no memory" * 60
    (long,) = [line for line in lines if "begin..." in line and line.endswith("end")]
    assert len(long) < 320


def test_a_script_that_still_imports_is_not_told_to_set_what_it_will_set(check):
    report = check("import time\ntime.sleep(60)\n" + GOOD, timeout_s=1)
    (failed,) = [result for result in report.results if result.status is Status.FAILED]
    assert failed.check.name == "sets TrainInitDone"
    assert failed.detail.startswith("still running after 1 s (--timeout-s)")
    assert "it may still import" in failed.detail
    assert failed.hint.startswith("give each step more time with --timeout-s")


def test_a_killed_script_is_named_by_its_signal(check):
    report = check(changed(("    save()\n    S", "    os.kill(os.getpid(), 9)\n    S")))
    assert "killed by SIGKILL" in detail(report, "sets TrainFinished")


ANY_BYTES = changed(
    ("            model = dict(pickle.load(file)", "            assert file.read() == b'merged'; ("),
    ('["state_dict"])', ")"),
    ('        pickle.dump({"state_dict": model}, file)', "        file.write(b'any')"),
)


def test_ignore_ckpt_takes_any_file_and_makes_no_global_model_of_it(check):
    report = check(ANY_BYTES, checkpoints=OPAQUE, rounds=1)
    assert report.ok
    assert outcome(report, Status.SKIPPED) == [*(item.name for item in CONTENT), FROM_GLOBAL]
    assert outcome(report, Status.UNCLEAR) == ["changes the model", "epoch goes up"]
    assert len(outcome(report, Status.PASSED)) == len(ALL) - len(CONTENT) - 3


@pytest.fixture
def in_path(tmp_path, monkeypatch):
    """The programs that a shell finds are those under test."""
    (tmp_path / "place").mkdir()
    environment = prepared(tmp_path / "place")
    for name in ("PATH", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, environment[name])


def test_shell_scripts_pass(tmp_path, clean, in_path):
    (tmp_path / "main.sh").write_text(SHELL)
    ran = check_fl("-m", f"sh {tmp_path / 'main.sh'}", "--ignore-ckpt", "--json")
    report = json.loads(ran.stdout)
    assert report["passed"], report
    assert ran.returncode == 0


def test_a_shell_script_that_does_not_wait_fails(tmp_path, clean, in_path):
    (tmp_path / "main.sh").write_text(SHELL.replace("while flavor event wait TrainStarted; do", "while true; do"))
    ran = check_fl("-m", f"sh {tmp_path / 'main.sh'}", "--ignore-ckpt", "--json")
    failed = [item["name"] for item in json.loads(ran.stdout)["checks"] if item["status"] == "failed"]
    assert failed == ["waits for TrainStarted"]


def test_torch(check):
    pytest.importorskip("torch")
    script = textwrap.dedent('''
        import os, torch
        from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

        torch.manual_seed(0)
        x = torch.randn(128, 8)
        y = (x[:, 0] * x[:, 1] > 0).long()
        net = torch.nn.Sequential(
            torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Linear(16, 2)
        )
        optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
        cells = {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")}
        SetEvent("TrainInitDone")
        epoch = 0
        while True:
            WaitEvent("TrainStarted")
            if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):
                net.load_state_dict(torch.load(os.environ["GLOBAL_MODEL_PATH"])["state_dict"])
            for _ in range(50):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()
            torch.save({"state_dict": net.state_dict()}, os.environ["LOCAL_MODEL_PATH"])
            metadata = {"epoch": epoch, "datasetSize": len(y), "importance": 1.0}
            SaveInfoJson({"metadata": metadata, "metrics": cells})
            SetEvent("TrainFinished")
            epoch += 1
    ''')  # fmt: skip
    assert outcome(check(script), Status.PASSED) == ALL
    unused = check(script.replace('if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):', "if False:"))
    assert outcome(unused, Status.FAILED) == ["trains from the global model"]


# -- what is no failure, and not ready without a word


def test_a_constant_epoch_is_a_warning(check):
    report = check(changed(("info(epoch))\n", "info(36))\n")))
    assert report.ok
    assert outcome(report, Status.WARNED) == ["epoch goes up"]
    assert detail(report, "epoch goes up") == "36 in round 1, 36 in round 2"


def test_integers_that_are_no_quantities_are_a_warning(check):
    tensors = {
        '"layer._extra_state": np.arange(9)': "it is called '_extra_state'",
        '"blob": np.arange(9, dtype=np.uint8)': "it is made of bytes",
        '"classes_": np.arange(9)': "it is called 'classes_'",
    }
    report = check(changed(('{"state_dict": model}', '{"state_dict": model | {' + ", ".join(tensors) + "}}")))
    assert report.ok
    assert outcome(report, Status.WARNED) == ["integers can be averaged"]
    told = detail(report, "integers can be averaged")
    assert [words for words in tensors.values() if words not in told] == [], told
    hint = next(result.hint for result in report.results if result.status is Status.WARNED)
    assert "--keep" in hint
    assert "--equal" in hint


@pytest.mark.parametrize("where", ["inside", "beside"])
def test_the_state_of_an_optimizer_among_the_weights_is_a_warning(check, where):
    state = '"optimizer": {"state": {0: {"exp_avg": np.ones(3)}}, "param_groups": [{"lr": 0.5, "params": [0]}]}'
    saved = {
        "inside": '{"state_dict": {"w": model, ' + state + "}}",
        "beside": '{"state_dict": {"w": model}, ' + state + "}",
    }
    read = ('["state_dict"])', '["state_dict"]["w"])')
    report = check(changed(('{"state_dict": model}', saved[where]), read))
    assert report.ok, [r.as_dict() for r in report.results]
    assert outcome(report, Status.WARNED) == (["holds only tensors"] if where == "inside" else [])
    if where == "inside":
        assert "averaged with the weights" in detail(report, "holds only tensors")
        assert "optimizer/state/0/exp_avg" in detail(report, "holds only tensors")
        hint = next(result.hint for result in report.results if result.status is Status.WARNED)
        assert '"optimizer": optimizer.state_dict()' in hint


def test_a_model_that_is_handed_in_twice_is_a_warning(check):
    script = changed(
        ("    save()\n    Save", "    if epoch == 1:\n        best = model\n    model = best\n    save()\n    Save")
    )
    report = check(script)
    assert detail(report, "changes the model") == (
        "round 2: what was handed in is, bit for bit, what was handed in in round 1"
    )
    hint = next(each.hint for each in report.results if each.check.name == "changes the model")
    assert "not the best model of all rounds" in hint


def test_what_a_script_saved_beside_its_weights_is_there_again(check):
    reads = """
        with open(GLOBAL, "rb") as file:
            assert pickle.load(file)["epochs"] == [{"done": epoch - 1}]
"""
    again = ("    load()\n", f"    if os.path.exists(GLOBAL) and epoch > 1:{reads}    load()\n")
    report = check(changed(again, ('{"state_dict": model}', '{"state_dict": model, "epochs": [{"done": epoch}]}')))
    assert outcome(report, Status.PASSED) == ALL, [r.as_dict() for r in report.results]


def test_what_cannot_be_told_stands_in_the_verdict(tmp_path, clean):
    """Three weights that end where they end from any start."""
    ends = THREE_WEIGHTS[2][1].replace("range(20)", "range(300)").replace("0.02", "0.2")
    ran = check_fl("-m", main(tmp_path, changed(*THREE_WEIGHTS[:2], (THREE_WEIGHTS[2][0], ends))))
    assert ran.returncode == 0, ran.stdout
    assert "unclear  trains from the global model" in ran.stdout
    assert "3 weights are too few to tell" in ran.stdout
    assert "16 passed, 1 unclear: the script is ready for flavor-fl" in ran.stdout
    assert ran.stdout.endswith("this check could not tell: trains from the global model\n")


def test_one_round_says_what_it_cannot_see_and_a_variable_that_no_shell_fills_in_is_said(tmp_path, clean):
    ran = check_fl("-m", main(tmp_path, GOOD) + " --data $INPUT_PATH", "--rounds", "1")
    assert ran.returncode == 0, ran.stdout
    assert "'$INPUT_PATH' is passed on as it is written" in ran.stderr
    assert "sh -c" in ran.stderr
    assert "could not tell: keeps names and shapes, changes the model, trains from the global" in ran.stdout
    assert "-> --rounds 2 shows it" in ran.stdout


def test_pretrained_weights_that_come_back_unchanged(check, tmp_path):
    import pickle

    import numpy as np

    pretrained = {"w1": np.ones((16, 12)), "b1": np.zeros(12), "w2": np.ones((12, 4)), "steps": np.array(0)}
    path = tmp_path / "global" / "model.ckpt"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps({"state_dict": pretrained}))
    script = changed(("    train(model)\n", "    epoch > 1 and train(model)\n"))
    report = check(script, environment={"GLOBAL_MODEL_PATH": str(path)})
    assert outcome(report, Status.FAILED) == ["changes the model"]
    assert detail(report, "changes the model") == "round 1: what was handed in is the global model, unchanged"


@pytest.mark.parametrize(("decay", "warned"), [("0.99999", True), ("0.999", True), ("0", False)])
def test_a_shadow_that_is_never_reset_is_a_warning(check, decay, warned):
    """An average of the weights over time is saved, and only the model that it shadows loads the global one."""
    step = "w, b = w - 0.5 * (x.T @ p) / len(y), b - 0.5 * p.mean(0)\n"
    script = DIGITS.replace(
        step, f"{step}        shadow = shadow and [{decay} * s + (1 - {decay}) * v for s, v in zip(shadow, (w, b))]\n"
    )
    script = script.replace("with open", "shadow = shadow or [w, b]\n    with open").replace(
        "np.savez(file, w=w, b=b)", "np.savez(file, w=np.float32(shadow[0]), b=np.float32(shadow[1]))"
    )
    report = check(script.replace("cells = ", "shadow = None\ncells = "))
    assert report.ok
    assert outcome(report, Status.WARNED) == (["trains from the global model"] if warned else [])
    told = "round 2: it shows, but at most" if warned else "it shows clearly"
    assert detail(report, "trains from the global model").startswith(told)


@pytest.mark.parametrize("average", [True, False])
def test_small_tensors_do_not_hide_a_shadow_that_is_never_reset(check, average):
    """A layer's biases that begin at 0 are trained far, so in its shadow their share of the coins is mostly chance."""
    script = changed(
        ("size=(16, 12)", "size=(16, 64)"),
        ("np.zeros(12, np.float32)", "np.zeros(64, np.float32)"),
        ("size=(12, 4)", "size=(64, 4)"),
        ("steps=30, rate=0.3", "steps=10, rate=0.3"),
        ('SetEvent("TrainInitDone")', 'shadow = dict(model)\nSetEvent("TrainInitDone")'),
        (
            "    train(model)\n",
            "    for _ in range(10):\n"
            "        train(model, 1)\n"
            "        shadow = {k: (0.999 * v + 0.001 * model[k]).astype(v.dtype) for k, v in shadow.items()}\n",
        ),
    )
    if average:
        script = script.replace('{"state_dict": model}', '{"state_dict": shadow}')
    report = check(script)
    assert report.ok
    assert outcome(report, Status.WARNED) == (["trains from the global model"] if average else [])
    told = "round 2: it shows, but at most" if average else "it shows clearly"
    assert detail(report, "trains from the global model").startswith(told)


SEEDLESS = (
    "w, b = np.zeros((64, 10), np.float32), np.zeros(10, np.float32)",
    "w, b = np.random.default_rng({}).normal(size=(64, 10)).astype(np.float32), np.zeros(10, np.float32)",
)


@pytest.mark.parametrize(
    ("seed", "shuffled", "status", "told"),
    [
        ("", False, Status.WARNED, "two starts handed in weights that have nothing in common"),
        ("3", False, Status.PASSED, "a second start handed in the same weights, bit for bit"),
        ("3", True, Status.PASSED, "a second start handed in weights like the first's"),
    ],
)
def test_a_seed_that_was_forgotten_is_a_warning(check, seed, shuffled, status, told):
    """Each site starts the script by itself; what is random in the training alone is no harm."""
    script = DIGITS.replace(SEEDLESS[0], SEEDLESS[1].format(seed))
    if shuffled:
        half = "pick = np.random.default_rng().permutation(len(digits.target))[:900]\n"
        script = script.replace("cells = ", f"{half}x, y = x[pick], y[pick]\ncells = ")
    report = check(script)
    assert report.ok
    assert "starts from the same weights" in outcome(report, status)
    assert detail(report, "starts from the same weights").startswith(told)


def test_weights_to_start_from_need_no_seed(check, tmp_path):
    with open(tmp_path / "given.npz", "wb") as file:
        np.savez(file, w=np.ones((64, 10), np.float32), b=np.zeros(10, np.float32))
    script = DIGITS.replace(SEEDLESS[0], SEEDLESS[1].format(""))
    report = check(script, environment={"GLOBAL_MODEL_PATH": str(tmp_path / "given.npz")})
    assert outcome(report, Status.SKIPPED) == ["starts from the same weights"]


LATE_PARAMETERS = textwrap.dedent('''
    import os, pickle
    import numpy as np
    from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

    class Classifier:
        """Like scikit-learn's: its parameters do not exist before the first training."""

        def partial_fit(self, x, y):
            if not hasattr(self, "coef_"):
                self.coef_, self.intercept_ = np.zeros((1, 80)), np.zeros(1)
            for _ in range(20):
                error = (1 / (1 + np.exp(-(x @ self.coef_.T + self.intercept_))))[:, 0] - y
                self.coef_ = self.coef_ - 0.1 * error @ x / len(y)
                self.intercept_ = self.intercept_ - 0.1 * error.mean()

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 80))
    y = x[:, :9].sum(1) > 0
    model = Classifier()
    SetEvent("TrainInitDone")
    for epoch in range(int(os.environ["TOTAL_ROUNDS"])):
        WaitEvent("TrainStarted")
        if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):
            with open(os.environ["GLOBAL_MODEL_PATH"], "rb") as file:
                known = pickle.load(file)["state_dict"]
            model.coef_[:], model.intercept_[:] = known["coef"], known["intercept"]
        model.partial_fit(x, y)
        with open(os.environ["LOCAL_MODEL_PATH"], "wb") as file:
            pickle.dump({"state_dict": {"coef": model.coef_, "intercept": model.intercept_}}, file)
        cells = {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")}
        SaveInfoJson({"metadata": {"epoch": epoch, "datasetSize": len(y), "importance": 1.0}, "metrics": cells})
        SetEvent("TrainFinished")
''')  # fmt: skip
EXISTS = 'if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):'
FROM_GLOBAL = "starts from a global model"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (DIGITS.replace(EXISTS, "if epoch:"), "it never read $GLOBAL_MODEL_PATH"),
        (
            DIGITS.replace('w, b = known["w"], known["b"]', 'w, b = (known["w"], known["b"]) if epoch else (w, b)'),
            "it trained from other weights",
        ),
        (DIGITS.replace("range(20)", "range(20 if epoch or not w.any() else 0)"), "it handed in the global model"),
        (
            changed(("    load()\n", "    epoch == 1 and os.path.exists(GLOBAL) and time.sleep(60)\n    load()\n")),
            "within",
        ),
    ],
)
def test_a_script_that_fails_on_a_global_model_in_its_first_pass_is_not_ready(check, script, told):
    """A site that is started again, a resumed run and --init-model have the file there from the first pass on."""
    report = check(script, timeout_s=6 if told == "within" else 60)
    assert outcome(report, Status.FAILED) == [FROM_GLOBAL], [r.as_dict() for r in report.results]
    assert detail(report, FROM_GLOBAL).startswith("started again with a global model")
    assert told in detail(report, FROM_GLOBAL)


def test_parameters_that_the_first_training_creates_are_not_ready_and_the_hint_mends_them(check):
    report = check(LATE_PARAMETERS, timeout_s=60)
    assert outcome(report, Status.FAILED) == [FROM_GLOBAL], [r.as_dict() for r in report.results]
    (found,) = [result for result in report.results if result.status is Status.FAILED]
    assert found.detail.startswith("started again with a global model")
    assert "the script ended with exit code 1 before TrainFinished of round 3" in found.detail
    assert "has no attribute 'coef_'" in found.detail
    assert "partial_fit" in found.hint
    assert "--init-model" in found.hint
    mended = 'model.partial_fit(x[:1], y[:1])\nSetEvent("TrainInitDone")'
    report = check(LATE_PARAMETERS.replace('SetEvent("TrainInitDone")', mended))
    assert outcome(report, Status.PASSED) == ALL, [r.as_dict() for r in report.results]


def test_weights_to_start_from_that_are_never_read_are_a_failure(check, tmp_path):
    with open(tmp_path / "given.npz", "wb") as file:
        np.savez(file, w=np.ones((64, 10), np.float32), b=np.zeros(10, np.float32))
    report = check(DIGITS.replace(EXISTS, "if epoch:"), environment={"GLOBAL_MODEL_PATH": str(tmp_path / "given.npz")})
    assert outcome(report, Status.FAILED) == [FROM_GLOBAL]
    assert detail(report, FROM_GLOBAL) == "round 1: the weights at $GLOBAL_MODEL_PATH were never read"


def test_statistics_are_named(check):
    report = check(GOOD.replace('"steps": np.array(0)', '"steps": np.array(0), "bn.running_var": np.ones(3)'))
    assert detail(report, "holds only tensors").endswith("with which no server step is taken: bn.running_var")


def test_statistics_and_counters_are_no_training(check):
    moves = "    model['bn.running_var'] = model['bn.running_var'] + 1\n    save()\n    S"
    script = changed(("rate=0.3", "rate=0.0"), ("    save()\n    S", moves))
    script = script.replace('"steps": np.array(0)', '"steps": np.array(0), "bn.running_var": np.ones(3)')
    report = check(script)
    assert outcome(report, Status.FAILED) == ["changes the model"]
    assert detail(report, "changes the model").endswith("unchanged but for steps, bn.running_var")


# -- the paths


def test_paths_that_are_set_are_used_and_the_pretrained_model_is_put_back(check, tmp_path):
    paths = {
        "INPUT_PATH": tmp_path / "in",
        "OUTPUT_PATH": tmp_path / "out",
        "LOG_PATH": tmp_path / "log",
        "LOCAL_MODEL_PATH": tmp_path / "local" / "mine.pkl",
        "GLOBAL_MODEL_PATH": tmp_path / "global" / "theirs.pkl",
    }
    paths["INPUT_PATH"].mkdir()
    (tmp_path / "global").mkdir()
    # what round one starts from: the good script loads it if it is there
    import pickle

    import numpy as np

    pretrained = {"w1": np.ones((16, 12)), "b1": np.zeros(12), "w2": np.ones((12, 4)), "steps": np.array(0)}
    paths["GLOBAL_MODEL_PATH"].write_bytes(pickle.dumps({"state_dict": pretrained}))
    before = paths["GLOBAL_MODEL_PATH"].read_bytes()
    script = GOOD + (
        "    with open(os.environ['OUTPUT_PATH'] + '/seen', 'w') as file:\n"
        "        file.write(str(os.listdir(os.environ['INPUT_PATH'])))\n"
    )
    (paths["INPUT_PATH"] / "data").touch()
    report = check(script, environment={name: str(path) for name, path in paths.items()})
    assert outcome(report, Status.PASSED) == [name for name in ALL if name != "starts from the same weights"]
    assert outcome(report, Status.SKIPPED) == ["starts from the same weights"]
    assert (tmp_path / "out" / "seen").read_text() == "['data']"
    assert paths["LOCAL_MODEL_PATH"].is_file()
    assert (tmp_path / "log" / "trainer.log").is_file()
    assert paths["GLOBAL_MODEL_PATH"].read_bytes() == before
    assert [path.name for path in (tmp_path / "global").iterdir()] == ["theirs.pkl"]


def test_a_read_mark_tells_reading_from_looking(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"model")
    mark = ReadMark(path)
    if mark.was_read() is None:
        pytest.skip("this file system does not keep access times")
    path.stat()
    assert mark.was_read() is False
    path.read_bytes()
    assert mark.was_read() is True


def test_the_bus_sees_a_look_and_a_write_before_the_script_goes_on(clean):
    from flavor.bus.events import ClientEvents
    from flavor.errors import RunOver
    from flavor.records.names import Event

    seen = []
    with FakeBus(2, on_set=lambda key: seen.append((key, bus.events.is_set(Event.TRAIN_INIT_DONE, 0)))) as bus:
        script = ClientEvents(bus.url, "check", "script")
        script.set(Event.TRAIN_INIT_DONE, 0)
        assert seen == [(bus.keys.event(0, Event.TRAIN_INIT_DONE), False)]
        assert bus.events.is_set(Event.TRAIN_INIT_DONE, 0)
        assert not bus.looking
        script.newest_started()
        assert bus.looking
        script.set(Event.TRAIN_FINISHED, 1)
        assert not bus.looking
        bus.finish()
        with pytest.raises(RunOver):
            script.wait_started(0)
        script.close()


# -- the command


def check_fl(*arguments):
    return STARTER.run([sys.executable, "-P", "-m", "flavor.cli.check_fl", *arguments])


def main(tmp_path: Path, script: str) -> str:
    (tmp_path / "main.py").write_text(script)
    return shlex.join([sys.executable, str(tmp_path / "main.py")])


def test_a_passing_script_on_the_terminal(tmp_path, clean):
    ran = check_fl("-y", "-m", main(tmp_path, GOOD + "    print('epoch', epoch)\n"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "17 passed: the script is ready for flavor-fl" in ran.stdout
    assert "| epoch 2" in ran.stderr
    assert "kept" not in ran.stdout


def test_a_failing_script_keeps_its_folder_and_says_what_to_change(tmp_path, clean):
    ran = check_fl("-m", main(tmp_path, WRONG["ignores the global model"][0]))
    assert ran.returncode == 1
    assert "FAILED   trains from the global model" in ran.stdout
    assert "-> after WaitEvent('TrainStarted') load" in ran.stdout
    assert "sigma" not in ran.stdout
    kept = Path(ran.stdout.rsplit(" ", 1)[1].strip())
    assert (kept / "round-2" / "local.ckpt").is_file()
    assert (kept / "logs" / "trainer.log").is_file()


def test_json(tmp_path, clean):
    ran = check_fl("--json", "-m", main(tmp_path, WRONG["NaN"][0]), "--timeout-s", "20")
    assert ran.returncode == 1
    assert ran.stderr == ""
    report = json.loads(ran.stdout)
    assert set(report) == {"passed", "checks", "workspace"}
    assert report["passed"] is False
    assert [item["name"] for item in report["checks"]] == ALL
    assert all(set(item) == {"name", "status", "hint", "detail"} for item in report["checks"])
    assert Path(report["workspace"]).is_dir()


def test_preprocess_runs_first_and_its_failure_ends_the_check(tmp_path, clean):
    script = main(
        tmp_path,
        changed(
            (
                'SetEvent("TrainInitDone")\n',
                "open(os.environ['OUTPUT_PATH'] + '/made')\nSetEvent(\"TrainInitDone\")\n",
            )
        ),
    )
    made = "sh -c 'touch $OUTPUT_PATH/made'"
    ran = check_fl("-m", script, "-p", made, "--json")
    passed = json.loads(ran.stdout)
    assert (ran.returncode, passed["passed"], passed["workspace"]) == (0, True, None)
    ran = check_fl("-m", script, "-p", "sh -c 'echo no data; exit 4'")
    assert ran.returncode == 1
    assert "FAILED   starts" in ran.stdout or "FAILED  starts" in ran.stdout
    assert "the preprocess command ended with exit code 4" in ran.stdout
    assert "| no data" in ran.stdout
    assert "-> repair what its last lines say, or set INPUT_PATH to the data" in ran.stdout
    (tmp_path / "bare.py").write_text("raise ModuleNotFoundError(\"No module named 'flavor'\")")
    ran = check_fl("-m", f"{sys.executable} {tmp_path / 'bare.py'}")
    assert ran.returncode == 1
    assert "-> install flavor in the environment that runs the script, too" in ran.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "no-such-program main.py"],
        ["-m", "true", "-p", "no-such-program"],
        ["-m", "python 'main.py"],
        ["-m", ""],
        ["-m", "true", "--rounds", "0"],
        ["-m", "true", "--ignore-ckpt", "--rounds", "2"],
        ["-m", "true", "--init-once"],
        ["-m", "true", "-am", "no-such-program"],
        ["-m", "true", "-am", "true", "--rounds", "1"],
        [],
    ],
)
def test_wrong_use_is_exit_code_2(arguments, clean):
    ran = check_fl(*arguments)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""


def test_sigterm_stops_the_script_and_removes_the_folder(tmp_path, clean):
    script = main(tmp_path, changed(("    train(model)\n", "    print(os.getpid(), flush=True)\n    time.sleep(60)\n")))
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-P", "-m", "flavor.cli.check_fl", "-m", script]
    process = STARTER.popen(command, env=environment, cwd=tmp_path)
    pid = next(int(line[2:]) for line in process.stderr if line.startswith(b"| "))
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    process.stderr.close()
    process.stdout.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not list(tmp_path.glob("check-fl-*"))


@pytest.mark.parametrize("missing", [["w1"], ["w2"], ["w1", "w2"]])
def test_tensors_that_are_never_loaded_are_named(check, missing):
    """As strict=False does it where names have another prefix."""
    wide = ('/ 3, "steps"', '/ 3, "head": rng.normal(size=(9, 9)), "steps"')
    part = f"""                found = pickle.load(file)["state_dict"]
                model = {{k: model[k] if k in {missing!r} else v for k, v in found.items()}}
"""
    line = '                model = dict(pickle.load(file)["state_dict"])\n'
    script = changed(wide, (line.removeprefix("    "), textwrap.indent(textwrap.dedent(part), " " * 12)))
    (found,) = [result for result in check(script, rounds=2).results if result.check.name == ALL[10]]
    assert (found.status, found.detail) == (
        Status.WARNED,
        f"round 2: nothing of it is left in {', '.join(missing)}",
    ), found
    assert "strict=False" in found.hint
