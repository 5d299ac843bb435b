"""`check-agg` on right aggregators and on wrong ones, each of which fails the check meant for it and no other."""

from __future__ import annotations

import json
import os
import shlex
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_check_fl import ALL_ROUNDS, GOOD, WRONG, changed, clean, in_path  # noqa: F401 - fixtures
from warm import STARTER

from flavor.check.aggregator import CommandAggregation
from flavor.check.aggregator_checks import ANEW_CHECKS, CONTENT, ONCE_CHECKS
from flavor.check.aggregator_process import CheckedAggregator
from flavor.check.evaluator_checks import EVALUATOR_CHECKS
from flavor.check.folders import Folders
from flavor.check.output import Screen
from flavor.check.report import Report, Result, Status
from flavor.check.trainer import CheckedTrainer, TrainerCheck
from flavor.check.trainer_checks import TRAINER_CHECKS
from flavor.checkpoints.kinds import OPAQUE, TENSORS
from flavor.programs.aggregator import UserAggregator

SAVE = '    with open(GetPaths("globalModel")[0], "wb") as file:\n        pickle.dump({"state_dict": made}, file)\n'
BODY = textwrap.dedent('''
    import json, os, pickle, sys, threading, time
    import numpy as np
    from flavor.cook.utils import GetPaths, SetEvent, WaitEvent

    def load(path):
        with open(path, "rb") as file:
            return pickle.load(file)["state_dict"]

    def aggregate():
        models = [load(path) for path in GetPaths("localModels")]
        sizes = json.load(open(GetPaths("globalInfo")[0]))["metadata"]["datasetSize"]
        made = {k: np.average([m[k] for m in models], axis=0, weights=sizes) for k in models[0]}
        made = {k: v.astype(models[0][k].dtype) for k, v in made.items()}
''') + SAVE  # fmt: skip
ANEW = BODY + "\naggregate()\n"
LOOP = '\nwhile True:\n    WaitEvent("AggregateStarted")\n    aggregate()\n    SetEvent("AggregateFinished")\n'
ONCE = BODY + LOOP


@dataclass(frozen=True)
class Outcome:
    """The results of both scripts."""

    trainer: Report
    aggregator: Report

    @property
    def failed(self) -> list[Result]:
        return [
            result
            for report in (self.trainer, self.aggregator)
            for result in report.results
            if result.status is Status.FAILED
        ]

    def of(self, name: str) -> Result:
        return next(result for result in self.aggregator.results if result.check.name == name)

    def names(self, status: Status) -> list[str]:
        return [result.check.name for result in self.aggregator.results if result.status is status]


@pytest.fixture
def check(tmp_path, clean, warm_scripts):  # noqa: F811
    """Check two scripts in this process."""

    def run(aggregator, trainer=GOOD, *, once=False, opaque=False, rounds=2, timeout_s=600, passed=()):
        (tmp_path / "main.py").write_text(trainer)
        (tmp_path / "aggregate.py").write_text(aggregator)
        python = [sys.executable]
        folders, screen = Folders(os.environ), Screen(quiet=True)
        try:
            aggregation = CommandAggregation(
                CheckedAggregator(
                    UserAggregator((*python, str(tmp_path / "aggregate.py")), tmp_path, tuple(passed)),
                    rounds,
                    timeout_s,
                    os.environ,
                    folders.workspace.log,
                ),
                folders,
                screen=screen,
                init_once=once,
                checkpoints=OPAQUE if opaque else TENSORS,
            )
            kind = OPAQUE if opaque else TENSORS
            settings = CheckedTrainer([*python, str(tmp_path / "main.py")], None, rounds, 600, kind)
            trained = TrainerCheck(
                settings, folders, environment=os.environ, screen=screen, aggregation=aggregation
            ).run()
        finally:
            folders.close(keep=False)
        return Outcome(trained, aggregation.report)

    return run


def replaced(script: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert script.count(old) == 1, old
        script = script.replace(old, new)
    return script


# -- right ones

RIGHT_ANEW = {
    "mean": ANEW,
    "a megabyte on stderr, and metrics of its own": BODY
    + "sys.stderr.write('x' * 2**20 + 10_000 * ('y' * 99 + '\\n'))\naggregate()\n"
    + "path, = GetPaths('globalInfo')\nmerged = json.load(open(path))\nmerged['metrics']['mine'] = 0.5\n"
    + "json.dump(merged, open(path, 'w'))\n",
}
ANOTHER_FORMAT = replaced(
    ANEW, ('        pickle.dump({"state_dict": made}, file)\n', "        np.savez(file, **made)\n")
)
MOMENTUM = replaced(
    ONCE,
    ("\ndef aggregate():", "\nlast, velocity = None, {}\n\ndef aggregate():\n    global last"),
    (
        SAVE,
        "    for k in made if last is not None else ():\n"
        "        velocity[k] = 0.9 * velocity.get(k, 0) + made[k] - last[k]\n"
        "        made[k] = (last[k] + velocity[k]).astype(made[k].dtype)\n"
        "    last = made\n" + SAVE,
    ),
)
RIGHT_ONCE = {
    "mean": ONCE,
    "momentum, and exactly TOTAL_ROUNDS": replaced(
        MOMENTUM, ("while True:", 'for _ in range(int(os.environ["TOTAL_ROUNDS"])):')
    ),
    "a megabyte on stderr, and sets the event twice": replaced(
        ONCE, ("    aggregate()\n", "    aggregate()\n    sys.stderr.write('x' * 2**20)\n")
    )
    + '    SetEvent("AggregateFinished")\n',
}


@pytest.mark.parametrize("name", RIGHT_ANEW)
def test_right_ones_pass_every_check(check, name):
    outcome = check(RIGHT_ANEW[name], GOOD, rounds=3 if name == "mean" else 2)  # the third is one of four clients
    assert outcome.names(Status.PASSED) == [item.name for item in ANEW_CHECKS], outcome.aggregator.results
    assert not outcome.failed, [r.detail for r in outcome.failed]


@pytest.mark.parametrize("name", RIGHT_ONCE)
def test_right_ones_that_are_started_once_pass_every_check(check, name):
    outcome = check(RIGHT_ONCE[name], changed(ALL_ROUNDS), once=True, rounds=3 if "momentum" in name else 2)
    assert outcome.names(Status.PASSED) == [item.name for item in ONCE_CHECKS], outcome.aggregator.results
    assert not outcome.failed, [r.detail for r in outcome.failed]


# -- wrong ones: what they do, and the check that fails when started anew, and when started once

EXITS, FINISHED = "ends with exit code 0", "sets AggregateFinished"
BEFORE_SAVE = {
    "exits 3": ("    sys.exit(3)\n", EXITS, FINISHED),
    "raises": ("    raise OSError('no space for the model')\n", EXITS, FINISHED),
    "exits 0 without a model": ("    sys.exit(0)\n", "writes the global model", FINISHED),
    "writes nothing": ("    return\n", "writes the global model", "writes the global model"),
    "a megabyte on stderr, and dies": ("    sys.stderr.write('x' * 2**20)\n    sys.exit(4)\n", EXITS, FINISHED),
    "hangs": ("    time.sleep(600)\n", EXITS, FINISHED),
    "NaN": ("    made['b1'][0] = np.nan\n", "all values are finite", None),
    "shape": ("    made['b1'] = made['b1'][:3]\n", "keeps names and shapes", None),
    "dtype": ("    made['b1'] = made['b1'].astype(float)\n", "keeps names and shapes", None),
    "a name is gone": ("    del made['b1']\n", "keeps names and shapes", None),
    "constant": ("    made = {k: v * 0 for k, v in made.items()}\n", "follows every local model", None),
    "the first alone": ("    made = models[0]\n", "follows every local model", None),
    "ignores the third": (
        "    made = {k: ((models[0][k] + models[1][k]) / 2).astype(v.dtype) for k, v in made.items()}\n",
        "follows every local model",
        None,
    ),
    "breaks the merged info": (
        "    open(GetPaths('globalInfo')[0], 'w').write('{\"metrics\": {\"mIOU\": \"good\"}}')\n",
        "leaves the merged info valid",
        None,
    ),
}
IN_SAVE = {
    "garbage": ('pickle.dump({"state_dict": made}, file)', "file.write(b'garbage' * 99)", "is a checkpoint that can"),
    "no state_dict": ('{"state_dict": made}', "made", "is a checkpoint that can"),
    "half a model": (", file)", ", file); file.truncate(200)", "is a checkpoint that can"),
    "empty": ('pickle.dump({"state_dict": made}, file)', "pass", "writes the global model"),
    "np.savez appends .npz": (
        SAVE,
        '    np.savez(GetPaths("globalModel")[0], **made)\n',
        "writes the global model",
    ),
    "to a local model": ('GetPaths("globalModel")[0]', 'GetPaths("localModels")[0]', "leaves the local models alone"),
}
WRONG_MODELS = {name: (replaced(BODY, (SAVE, new + SAVE)), *rest) for name, (new, *rest) in BEFORE_SAVE.items()}
WRONG_MODELS |= {name: (replaced(BODY, (old, new)), start, None) for name, (old, new, start) in IN_SAVE.items()}


@pytest.mark.parametrize(
    ("name", "once"),
    [(name, False) for name in WRONG_MODELS]
    + [(name, True) for name, (_, _, other) in WRONG_MODELS.items() if other]
    + [(name, True) for name in ("NaN", "the first alone", "empty", "to a local model")],
)
def test_wrong_models_fail_the_check_for_it_and_no_other(check, name, once):
    body, anew, other = WRONG_MODELS[name]
    body = replaced(body, ("\ndef aggregate():\n", "\ndef aggregate():\n    print('the last words')\n"))
    outcome = check(body + (LOOP if once else "\naggregate()\n"), once=once, timeout_s=8 if name == "hangs" else 600)
    (failed,) = outcome.failed
    assert failed.check.name.startswith((other or anew) if once else anew), failed
    assert failed.hint
    assert "\n| " in failed.detail
    assert ("the last words" in failed.detail) == ("megabyte" not in name), failed
    if (name, once) == ("the first alone", False):
        told = "a change in local model 2 or 3 of 3 changes nothing; it is local model 1 itself"
        assert failed.detail.partition("\n")[0] == told
    assert len(failed.detail) < 6500  # the last line as it is, up to 4,000 characters, and parts of seven before it


MEAN = "np.average([m[k] for m in models], axis=0, weights=sizes)"
WRONG_SHARES = {
    "ignores datasetSize": ((", weights=sizes", ""), "weighs by datasetSize", Status.WARNED, "count alike"),
    "weighs the wrong sites": (
        ("weights=sizes", "weights=sorted(sizes)"),
        "weighs by datasetSize",
        Status.FAILED,
        "the weights are those of other clients",
    ),
    "a median": ((MEAN, "np.median([m[k] for m in models], axis=0)"), "weighs by datasetSize", Status.WARNED, "same"),
    "a damped mean": ((MEAN, f"np.tanh({MEAN})"), "weighs by datasetSize", Status.PASSED, "another model"),
    "exchanges two tensors": (
        (SAVE, "    made['w1'], made['w3'] = made['w3'], made['w1']\n" + SAVE),
        "follows every local model",
        Status.FAILED,
        "w3 of the global model is made of w1",
    ),
    "takes some from the first": (
        (SAVE, "    made['w1'], made['w3'] = models[0]['w1'], models[0]['w3']\n" + SAVE),
        "follows every local model",
        Status.FAILED,
        "a change in local model 2 or 3 of 3 does not show in w3, w1",
    ),
    "takes a small one from the first": (
        (SAVE, "    made['b1'] = models[0]['b1']\n" + SAVE),
        "follows every local model",
        Status.WARNED,
        "a change in local model 2 or 3 of 3 does not show in b1",
    ),
}


@pytest.mark.parametrize("name", WRONG_SHARES)
def test_each_tensor_and_the_share_of_each_site_is_looked_at(check, name):
    change, where, status, told = WRONG_SHARES[name]
    two = changed(("model = {", "model = {'w3': rng.normal(size=(16, 12)).astype('f4'), "))
    outcome = check(replaced(ANEW, change), two)
    found = outcome.of(where)
    assert (found.status, told in found.detail) == (status, True), found
    assert [result.check.name for result in outcome.failed] == ([where] if status is Status.FAILED else [])


SCALED = {  # what the model is made of, in which round that fails, and what the shares of all sites sum to
    "twice": (f"2 * {MEAN}", 2, "2, not to 1"),
    "a sum": ("np.sum([m[k] for m in models], axis=0)", 1, "3, not to 1: a sum in place of a mean?"),
    "not divided by the sizes": (
        "np.sum([s * m[k] for s, m in zip(sizes, models)], axis=0)",
        1,
        "1400, not to 1: a sum in place of a mean?",
    ),
    "divided twice": (f"{MEAN} / len(models)", 2, "0.3333, not to 1: divided twice?"),
    "twice a median": ("2 * np.median([m[k] for m in models], axis=0)", 2, "2, not to 1"),
}


@pytest.mark.parametrize(("name", "once"), [*((name, False) for name in SCALED), ("twice", True)])
def test_a_model_that_is_too_large_or_too_small_by_a_factor_fails(check, name, once):
    made, round_, told = SCALED[name]
    outcome = check(replaced(ONCE if once else ANEW, (MEAN, made)), once=once)
    (failed,) = outcome.failed
    assert failed.check.name == "weighs by datasetSize", outcome.failed
    assert failed.detail.startswith(f"round {round_}: the shares of the local models sum to {told}"), failed
    assert failed.hint.startswith("divide by what the weights sum to, once")


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ("sum(m[k] / 3 for m in models)", "round 3: the shares of 4 local models sum to 1.333, those of 3 to 1"),
        ("np.median([m[k] for m in models], axis=0)", ""),
    ],
)
def test_factors_that_are_made_for_three_clients_fail_with_four(check, made, told):
    outcome = check(replaced(ANEW, (MEAN, made)), rounds=3)
    assert [failed.detail for failed in outcome.failed] == ([told] if told else [])


STEPS = {  # of a server of the user's own: from which model, with which velocity, and whether it begins with zeros
    "a rate of 0.5 from zeros": ("0.5 * (m - old)", True, Status.WARNED),
    "Nesterov from zeros": ("0.7 * (1.9 * (m - old) + 0.81 * v)", True, Status.WARNED),
    "Nesterov": ("0.7 * (1.9 * (m - old) + 0.81 * v)", False, Status.PASSED),
    "heavy momentum": ("0.95 * v + m - old", False, Status.PASSED),
    "signs": ("0.01 * np.sign(m - old)", False, Status.PASSED),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_server_step_of_ones_own_is_not_out_of_scale(check, name, tmp_path):
    step, from_zeros, status = STEPS[name]
    state = str(tmp_path / "state")
    first = "{k: 0 * v for k, v in made.items()}" if from_zeros else "made"
    body = (
        f"    old, velocity = pickle.load(open({state!r} + at, 'rb')) if at else ({first}, {{}})\n"
        "    def moved(k, m, old, v):\n"
        f"        return (old + {step}).astype(m.dtype) if m.dtype.kind == 'f' else m\n"
        "    mean = made\n"
        "    made = {k: moved(k, m, old[k], velocity.get(k, 0)) for k, m in mean.items()}\n"
        "    velocity = {k: 0.9 * velocity.get(k, 0) + m - old[k] for k, m in mean.items()}\n"
    )
    # started anew, it keeps its state in a file for each round, and knows the round by the files there are
    known = f"    at = '1' if sizes and 'round-2' in GetPaths('globalModel')[0] else ''\n{body}"
    kept = f"    at or pickle.dump((made, velocity), open({state!r} + '1', 'wb'))\n"
    outcome = check(replaced(ANEW, (SAVE, known + kept + SAVE)), rounds=3 if name == "Nesterov" else 2)
    assert not outcome.failed, outcome.failed
    assert outcome.of("weighs by datasetSize").status is status, outcome.of("weighs by datasetSize")


EVENTS = {
    "is for starting anew": (ANEW, "waits for AggregateStarted", "leave out --init-once"),
    "gets its paths too early": (
        replaced(ONCE, ("\nwhile True", "\nGetPaths('localModels')\nwhile True")),
        "waits for AggregateStarted",
        "GetPaths after it",
    ),
    "cannot start": ("import no_such_module\n" + ONCE, "waits for AggregateStarted", "repair what its last lines say"),
    "waits for TrainStarted": (
        ONCE.replace("AggregateStarted", "TrainStarted"),
        "waits for AggregateStarted",
        "repair what its last lines say",
    ),
    "waits once": (
        replaced(
            ONCE, ('while True:\n    WaitEvent("AggregateStarted")\n', 'WaitEvent("AggregateStarted")\nwhile True:\n')
        ),
        "waits for AggregateStarted",
        "at the top of the loop",
    ),
    "does not wait": (
        replaced(ONCE, ('    WaitEvent("AggregateStarted")\n', ""), ("    aggregate()\n", "    time.sleep(0.1)\n")),
        "waits for AggregateStarted",
        "at the top of the loop",
    ),
    "forgets AggregateFinished": (replaced(ONCE, ('    SetEvent("AggregateFinished")\n', "")), FINISHED, "SetEvent("),
    "sets TrainFinished": (ONCE.replace("AggregateFinished", "TrainFinished"), FINISHED, "SetEvent('AggregateFin"),
    "sets Error": (replaced(ONCE, ("    aggregate()\n", '    aggregate()\n    SetEvent("Error")\n')), FINISHED, ""),
    "AggregateFinished before the model": (
        BODY + '\nwhile True:\n    WaitEvent("AggregateStarted")\n    SetEvent("AggregateFinished")\n    aggregate()\n',
        FINISHED,
        "the last step",
    ),
    "AggregateFinished before the model is whole": (
        replaced(ONCE, (", file)\n", ', file)\n        SetEvent("AggregateFinished")\n        file.write(b"more")\n')),
        FINISHED,
        "the last step",
    ),
    "ends after a round": (ONCE + "    break\n", "goes on to the next round", "or leave out --init-once"),
    "dies after a round": (ONCE + "    sys.exit(3)\n", "goes on to the next round", "repair what its last lines say"),
    "dies in the second round": (
        replaced(ONCE, ("    aggregate()\n", "    aggregate()\n    n = globals().get('n', 0) + 1\n    1 / (2 - n)\n")),
        FINISHED,
        "repair what its last lines say",
    ),
    "keeps the paths": (
        replaced(
            ONCE, ("\ndef aggregate", "\nimport functools\nGetPaths = functools.cache(GetPaths)\n\ndef aggregate")
        ),
        FINISHED,
        "call GetPaths after each WaitEvent",
    ),
    "keeps the models": (
        replaced(
            ONCE,
            ("    models = [", "    global models\n    models = globals().get('models') or ["),
        ),
        "follows every local model",
        "in each round",
    ),
    "dies at the end": (
        replaced(ONCE, ("while True", 'for _ in range(int(os.environ["TOTAL_ROUNDS"]))')) + "sys.exit(3)\n",
        "ends",
        "repair what its last lines say",
    ),
    "polls, and never hears of the end": (
        replaced(
            ONCE, ("    WaitEvent(", "    from flavor.cook.utils import IsSetEvent\n    while not IsSetEvent(")
        ).replace('IsSetEvent("AggregateStarted")', 'IsSetEvent("AggregateStarted"): time.sleep(0.05)'),
        "ends",
        "loop over WaitEvent",
    ),
    "does not end": (
        replaced(
            ONCE,
            (
                '    WaitEvent("AggregateStarted")\n',
                '    try:\n        WaitEvent("AggregateStarted")\n    except SystemExit:\n        time.sleep(600)\n',
            ),
        ),
        "ends",
        "do not catch SystemExit",
    ),
}


@pytest.mark.parametrize("name", EVENTS)
def test_wrong_use_of_events_fails_the_check_for_it_and_no_other(check, name, monkeypatch):
    """Each would take ten minutes if the time limit alone told."""
    script, wanted, hint = EVENTS[name]
    if name in ("does not end", "polls, and never hears of the end"):
        monkeypatch.setattr("flavor.check.aggregator_kept.END_S", 1.0)
    (failed,) = check(script, once=True).failed
    assert failed.check.name == wanted, failed
    assert hint in failed.hint
    if name == "waits for TrainStarted":
        assert failed.detail.endswith("call WaitEvent('AggregateStarted')")


def test_a_death_between_rounds_is_told_while_the_trainer_trains(check):
    dying = replaced(ONCE, ("    aggregate()\n", "    aggregate()\n    threading.Timer(0.5, os._exit, [4]).start()\n"))
    busy = changed(("    train(model)\n", "    train(model) if epoch < 2 else time.sleep(600)\n"))
    (failed,) = check(dying, busy, once=True).failed
    assert failed.check.name == "goes on to the next round"
    assert failed.detail.startswith("the aggregator ended with exit code 4 after AggregateFinished of round 1")


@pytest.mark.parametrize(
    ("script", "hint"),
    [(ONCE, "or pass --init-once"), (ANEW + 'SetEvent("AggregateFinished")\n', "has no events")],
    ids=["loops", "sets an event"],
)
def test_events_in_one_that_is_started_anew(check, script, hint):
    (failed,) = check(script).failed
    assert failed.check.name == EXITS
    assert hint in failed.hint


def test_a_loop_without_events_is_told_about_init_once(check):
    (failed,) = check(BODY + "\nwhile True:\n    aggregate()\n    time.sleep(0.1)\n", timeout_s=8).failed
    assert failed.check.name == EXITS
    assert "pass --init-once" in failed.hint


@pytest.mark.parametrize("once", [False, True], ids=["anew", "once"])
def test_noise_in_the_result_is_said(check, once):
    noisy = BODY.replace(SAVE, "    made['b1'] += np.random.normal(size=12).astype('f4') * 1e-4\n" + SAVE)
    outcome = check(noisy + (LOOP if once else "\naggregate()\n"), once=once)
    assert not outcome.failed, [r.detail for r in outcome.failed]
    assert "two runs on the same models differ by" in outcome.of("follows every local model").detail


def test_a_trainer_that_ignores_the_global_model_fails_its_own_check(check):
    (failed,) = check(ANEW, WRONG["ignores the global model"][0]).failed
    assert failed.check.name == "trains from the global model"


def test_a_global_model_that_the_trainer_cannot_use(check):
    trainer = changed(("    train(model)\n", "    assert epoch < 2, 'it is not to my taste'\n    train(model)\n"))
    failed = check(ANEW, trainer).failed
    assert [result.check.name for result in failed] == ["sets TrainFinished", "is accepted by the trainer"]


def test_a_trainer_that_dies_before_there_is_a_global_model(check):
    (failed,) = check(ANEW, WRONG["dies in round one"][0]).failed
    assert failed.check.name == "sets TrainFinished"


def test_models_cross_the_wire_in_both_directions(check):
    """The aggregator sees the state_dict alone; the trainer gets the format that it saves, whatever was written.

    And what it saved beside the state_dict.
    """
    trainer = changed(('{"state_dict": model}', '{"state_dict": model, "epoch": epoch}'))
    trainer = trainer.replace(
        '["state_dict"])',
        '["state_dict"])\n            file.seek(0); found = pickle.load(file)\n'
        '            assert sorted(found) == ["epoch", "state_dict"] and found["epoch"] in (epoch - 1, 2)',
    )
    script = replaced(
        ANOTHER_FORMAT,
        (
            'return pickle.load(file)["state_dict"]',
            'found = pickle.load(file); assert list(found) == ["state_dict"]; return found["state_dict"]',
        ),
    )
    outcome = check(script, trainer)
    assert outcome.names(Status.PASSED) == [item.name for item in ANEW_CHECKS], outcome.aggregator.results
    assert not outcome.failed, [r.detail for r in outcome.failed]
    assert outcome.of("is a checkpoint that can be read").detail == "npz; the trainer is given it as pickle"


def test_a_model_of_integers_is_not_called_deaf(check):
    counts = changed(
        (
            "    save()\n    SaveInfoJson",
            "    model = {'seen': np.arange(3) + epoch}\n    save()\n    SaveInfoJson",
        ),
        ("    load()\n", "    model = dict(start)\n"),
        ("\ndef train(", "\nstart = dict(model)\n\ndef train("),
    )
    outcome = check(ANEW, counts)
    assert outcome.of("follows every local model").status is Status.UNCLEAR
    assert "no tensor of floating-point" in outcome.of("follows every local model").detail


def test_the_environment_is_that_of_flavor_agg(check, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("MY_TOKEN", "wanted")
    monkeypatch.setenv("MY_SETTING", "of the image")
    script = BODY + textwrap.dedent('''
        assert "AWS_SECRET_ACCESS_KEY" not in os.environ and os.environ["MY_TOKEN"] == "wanted"
        assert os.environ["MY_SETTING"] == "of the image"
        assert {k for k in os.environ if k.startswith("FLAVOR")} == {"FLAVOR_ROLE", "FLAVOR_RUN"} | EXTRA
        assert os.environ["FLAVOR_ROLE"] == "aggregator" and os.environ["TOTAL_ROUNDS"] == "2"
        assert os.path.isdir(os.environ["OUTPUT_PATH"]) and os.path.isdir(os.environ["LOG_PATH"])
    ''')  # fmt: skip
    assert not check("EXTRA = set()\n" + script + "aggregate()\n", passed=["MY_TOKEN"]).failed
    extra = 'EXTRA = {"FLAVOR_CLIENT", "FLAVOR_REDIS_URL"}\n'
    assert not check(extra + script + LOOP, once=True, passed=["MY_TOKEN"]).failed


# -- opaque checkpoints

OPAQUE_TRAINER = textwrap.dedent('''
    import os, random
    from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

    cells = {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")}
    SetEvent("TrainInitDone")
    for epoch in range(int(os.environ["TOTAL_ROUNDS"])):
        WaitEvent("TrainStarted")
        forest = [f"tree {epoch} {tree} {random.random()}" for tree in range(9)]
        if epoch:
            assert open(os.environ["GLOBAL_MODEL_PATH"]).read().startswith("tree ")
        with open(os.environ["LOCAL_MODEL_PATH"], "w") as file:
            print(*forest, sep="\\n", file=file)
        SaveInfoJson({"metadata": {"epoch": epoch, "datasetSize": 3, "importance": 1.0}, "metrics": cells})
        SetEvent("TrainFinished")
''')  # fmt: skip
SAVE_FORESTS = '    with open(GetPaths("globalModel")[0], "w") as file:\n        file.writelines(made)\n'
FORESTS = textwrap.dedent('''
    import collections, os, random, sys
    from flavor.cook.utils import GetPaths, SetEvent, WaitEvent

    def aggregate():
        forests = [open(path).readlines() for path in GetPaths("localModels")]
        made = sorted(tree for forest in forests for tree in forest)
''') + SAVE_FORESTS  # fmt: skip
FORESTS_CHANGED = {
    "all": ("", True),
    "the union": ("    made = sorted(set(made))\n", True),
    "the majority": (
        "    made = sorted(tree for tree, count in collections.Counter(made).items() if count > 1)\n",
        True,
    ),
    "the first alone": ("    made = forests[0]\n", False),
    "not the second": ("    made = sorted(forests[0] + forests[2])\n", False),
    "none": ("    made = ['tree none']\n", False),
}


@pytest.mark.parametrize(
    ("name", "once"), [*((name, False) for name in FORESTS_CHANGED), ("all", True), ("not the second", True)]
)
def test_opaque_checkpoints(check, name, once):
    change, follows = FORESTS_CHANGED[name]
    script = replaced(FORESTS, (SAVE_FORESTS, change + SAVE_FORESTS)) + (LOOP if once else "\naggregate()\n")
    outcome = check(script, OPAQUE_TRAINER, once=once, opaque=True)
    assert [result.check.name for result in outcome.failed] == ([] if follows else ["follows every local model"])
    assert outcome.names(Status.SKIPPED)[:4] == [item.name for item in CONTENT]
    assert "opaque" in outcome.of("all values are finite").detail
    if follows:
        checks = ONCE_CHECKS if once else ANEW_CHECKS
        assert outcome.names(Status.PASSED) == [item.name for item in checks if item not in CONTENT]


@pytest.mark.parametrize(
    ("trainer", "script", "reason"),
    [
        (replaced(OPAQUE_TRAINER, ("{epoch} {tree} {random.random()}", "{tree}")), FORESTS, "of two rounds are the"),
        (OPAQUE_TRAINER, replaced(FORESTS, ("sorted(", "random.random() and list(")), None),
        (
            OPAQUE_TRAINER,
            replaced(FORESTS, (SAVE_FORESTS, "    made += [f'tree {random.random()}']\n" + SAVE_FORESTS)),
            "two runs on the same files differ",
        ),
        (
            OPAQUE_TRAINER,
            replaced(
                FORESTS, (SAVE_FORESTS, "    assert len({tree.split()[1] for tree in made}) == 1\n" + SAVE_FORESTS)
            ),
            "takes no file of the round before beside files of this round",
        ),
    ],
    ids=["the same files", "noise that does not show", "noise", "one round alone"],
)
def test_what_cannot_be_told_of_opaque_files(check, trainer, script, reason):
    outcome = check(script + "\naggregate()\n", trainer, opaque=True)
    assert not outcome.failed, [r.detail for r in outcome.failed]
    found = outcome.of("follows every local model")
    assert found.status is (Status.UNCLEAR if reason else Status.PASSED)
    assert (reason or "") in found.detail


def test_an_empty_opaque_model_fails(check):
    (failed,) = check(
        replaced(FORESTS, ("        file.writelines(made)", "        pass")) + "\naggregate()\n",
        OPAQUE_TRAINER,
        opaque=True,
    ).failed
    assert failed.check.name == "writes the global model"
    assert "is empty" in failed.detail


def test_an_empty_opaque_local_model_fails(check):
    (failed,) = check(
        FORESTS + "\naggregate()\n", replaced(OPAQUE_TRAINER, ("print(*forest", "print(end='', *[]")), opaque=True
    ).failed
    assert failed.check.name == "saves a checkpoint"


# -- the examples as they are documented: torch


TORCH_TRAINER = textwrap.dedent('''
    import os, torch
    from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

    torch.manual_seed(0)
    x = torch.randn(128, 8)
    y = (x[:, 0] * x[:, 1] > 0).long()
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    cells = {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")}
    SetEvent("TrainInitDone")
    for epoch in range(int(os.environ["TOTAL_ROUNDS"])):
        WaitEvent("TrainStarted")
        if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):
            net.load_state_dict(torch.load(os.environ["GLOBAL_MODEL_PATH"])["state_dict"])
        for _ in range(50):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
        torch.save({"state_dict": net.state_dict()}, os.environ["LOCAL_MODEL_PATH"])
        SaveInfoJson({"metadata": {"epoch": epoch, "datasetSize": len(y), "importance": 1.0}, "metrics": cells})
        SetEvent("TrainFinished")
''')  # fmt: skip
EXAMPLE = """
import json
import torch
from flavor.cook.utils import GetPaths, SetEvent, WaitEvent

class FedAvg(object):

    def aggregate(self, factors, localModelPaths):
        models = [torch.load(path)["state_dict"] for path in localModelPaths]
        globalModel = {key: sum(f * m[key] for f, m in zip(factors, models)) for key in models[0]}
        return globalModel

    def __call__(self):

        # Get Path
        localModelPaths = GetPaths("localModels")
        localInfoPaths = GetPaths("localInfos")
        globalModelPath = GetPaths("globalModel")[0]
        globalInfoPath = GetPaths("globalInfo")[0]

        # Caluculate aggregation factors
        with open(globalInfoPath, "r") as openfile:
            datasetSize = json.load(openfile)["metadata"]["datasetSize"]
        factors = [d / sum(datasetSize) for d in datasetSize]

        # Aggregate weights
        globalModel = self.aggregate(factors, localModelPaths)

        # Save model
        torch.save({"state_dict": globalModel}, globalModelPath)
"""
EVERY_ROUND = """
def main():
    aggregator = FedAvg()
    aggregator()

main()
"""
ONLY_ONCE = """
def main():
    aggregator = FedAvg()
    while True:
        WaitEvent("AggregateStarted")
        aggregator()
        SetEvent("AggregateFinished")

main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("once", [False, True], ids=["initialize every round", "initialize only once"])
def test_the_documented_examples(check, once):
    pytest.importorskip("torch")
    outcome = check(EXAMPLE + (ONLY_ONCE if once else EVERY_ROUND), TORCH_TRAINER, once=once)
    checks = ONCE_CHECKS if once else ANEW_CHECKS
    assert outcome.names(Status.PASSED) == [item.name for item in checks], outcome.failed
    assert not outcome.failed, [r.detail for r in outcome.failed]


# -- the command


def test_every_check_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "checks.md").read_text()
    rows = [
        f"| {item.name} | {item.verifies} |"
        for item in (*TRAINER_CHECKS, *EVALUATOR_CHECKS, *ONCE_CHECKS, *ANEW_CHECKS)
    ]
    assert [row for row in rows if row not in text] == []
    assert text.count("\n| ") == len(dict.fromkeys(rows)) + 3 + 6  # three headers; the table of results


def check_agg(*arguments):
    return STARTER.run([sys.executable, "-P", "-m", "flavor.cli.check_agg", *arguments], timeout_s=100)


@pytest.fixture
def commands(tmp_path, clean):  # noqa: F811
    """Write both scripts; the options that name them."""

    def write(aggregator, trainer=GOOD):
        (tmp_path / "main.py").write_text(trainer)
        (tmp_path / "aggregate.py").write_text(aggregator)
        words = [shlex.join([sys.executable, str(tmp_path / name)]) for name in ("aggregate.py", "main.py")]
        return ["-m", words[0], "-cm", words[1]]

    return write


def test_the_command_with_json(commands):
    ran = check_agg(*commands(ONCE), "--init-once", "--json")
    report = json.loads(ran.stdout)
    assert {item["status"] for item in report["checks"]} == {"passed"}, report
    assert {item["section"] for item in report["checks"]} == {"trainer", "aggregator"}
    assert (ran.returncode, ran.stderr, report["workspace"]) == (0, "", None)


def test_the_command_on_a_terminal(commands):
    ran = check_agg(*commands(ONCE, OPAQUE_TRAINER), "--checkpoint", "opaque", "-y", "--env", "TMPDIR")
    assert ran.returncode == 1
    assert "FAILED" in ran.stdout
    assert "has no events" in ran.stdout or "UnpicklingError" in ran.stdout
    assert "The files and logs are kept in" in ran.stdout


def test_a_shell_script_as_aggregator(tmp_path, clean, in_path):  # noqa: F811
    (tmp_path / "main.py").write_text(OPAQUE_TRAINER)
    (tmp_path / "aggregate.sh").write_text(
        textwrap.dedent("""
            set -e
            paths() { tr -d '[]",' < "$OUTPUT_PATH/$1.json"; }
            while flavor event wait AggregateStarted; do
                cat $(paths localModels) > "$(paths globalModel)"
                flavor event set AggregateFinished
            done
        """)
    )
    words = ["-m", f"sh {tmp_path}/aggregate.sh", "-cm", shlex.join([sys.executable, str(tmp_path / "main.py")])]
    ran = check_agg(*words, "--init-once", "--checkpoint", "opaque", "--json", "-r", "2")
    assert ran.returncode == 0, ran.stdout


def test_check_fl_takes_opaque_checkpoints(tmp_path, clean):  # noqa: F811
    (tmp_path / "main.py").write_text(OPAQUE_TRAINER)
    words = ["--checkpoint", "opaque", "--json", "-m", shlex.join([sys.executable, str(tmp_path / "main.py")])]
    ran = STARTER.run([sys.executable, "-P", "-m", "flavor.cli.check_fl", *words])
    statuses = [item["status"] for item in json.loads(ran.stdout)["checks"]]
    assert (ran.returncode, statuses.count("skipped"), statuses.count("failed")) == (0, 8, 0)


def test_check_fl_has_a_second_round_of_opaque_checkpoints_with_an_aggregator(commands):
    """A script whose local and global files differ is right; one that hands the global file back trains nothing."""
    own = commands(FORESTS + "\naggregate()\n", OPAQUE_TRAINER)
    words = ["-am", own[1], "-m", own[3], "--ignore-ckpt", "--json"]
    command = [sys.executable, "-P", "-m", "flavor.cli.check_fl", *words]
    ran = STARTER.run(command)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    given = '    if epoch:\n        forest = open(os.environ["GLOBAL_MODEL_PATH"]).read().splitlines()\n'
    saves = '    with open(os.environ["LOCAL_MODEL_PATH"], "w")'
    commands(FORESTS + "\naggregate()\n", replaced(OPAQUE_TRAINER, (saves, given + saves)))
    ran = STARTER.run(command)
    failed = [item for item in json.loads(ran.stdout)["checks"] if item["status"] == "failed"]
    assert [item["name"] for item in failed] == ["changes the model"]
    assert failed[0]["detail"].endswith("byte for byte")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-m", "no-such-program", "-cm", "true"], "no-such-program"),
        (["-m", "true", "-cm", "no-such-program"], "no-such-program"),
        (["-m", "true", "-cm", "true", "--env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE"),
        (["-m", "true", "-cm", "true", "--env", "A=B"], "the name alone"),
        (["-m", "true"], "-cm"),
    ],
)
def test_wrong_use_is_exit_code_2(words, told, clean):  # noqa: F811
    ran = check_agg(*words)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert told in ran.stderr
