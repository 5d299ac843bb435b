"""What people get wrong: one line that says what to do, the right exit code, and nothing lost."""

from __future__ import annotations

import json
import pickle
import signal
import sys

import numpy as np
import pytest
from warm import COLD

from flavor.bus.keys import RUNS
from flavor.config import RunConfig
from flavor.ledger.archive import Archive
from flavor.ledger.manifest import RunRecord
from flavor.records.states import RunState
from flavor.store.open import open_store

SECRET = "s3cr3t-pass"


def refused(process, code, *told):
    """The process has ended with `code`, and the last line on stderr says all of `told`."""
    assert process.wait() == code, process.stderr
    assert process.stdout == ""
    lines = [line for line in process.stderr.splitlines() if line.strip()]
    assert "Traceback" not in process.stderr
    for text in told:
        assert text in lines[-1], lines
    return lines


# -- options of flavor run: nothing is started, nothing is made


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--edges", 2, "--rounds", 0], ["--rounds", "greater than or equal to 1", "given: 0"]),
        (["--edges", 2, "--fraction", 2], ["--fraction", "less than or equal to 1"]),
        (["--edges", 2, "--fraction", "nan"], ["--fraction"]),
        (["--edges", 2, "--round-timeout-s", "inf"], ["--round-timeout-s"]),
        (["--edges", 2, "--round-timeout-s", "1e300"], ["--round-timeout-s"]),
        (["--edges", 2, "--quorum", 3], ["quorum 3 is more than min_clients 2"]),
        (["--edges", 2, "--min-clients", 3], ["--min-clients 3", "2 clients"]),
        (["--edges", 2, "--min-clients", 0], ["--min-clients"]),
        ([], ["--edges", "--input-glob"]),
        (["--edges", 3, "--input-glob", "site*"], ["--edges 3", "matches 2 folders"]),
        (["--input-glob", "nothing*"], ["matches no folder"]),
        (["--input-glob", "site*", "--input", "."], ["exclude each other"]),
        (["--input-glob", "[?]*"], ["'?!'", "cannot be used"]),
        (["--edges", 2, "--run", "two words"], ["run 'two words' cannot be used", "letters, digits"]),
        (["--edges", 2, "--run", "../up"], ["run '../up' cannot be used"]),
        (
            ["--edges", 2, "--redis-url", f"http://user:{SECRET}@127.0.0.1:1"],
            ["'http://127.0.0.1:1'", "expected redis://"],
        ),
        (["--edges", 2, "--redis-url", f"user:{SECRET}@127.0.0.1:1"], ["expected redis://"]),
        (
            ["--edges", 2, "--redis-url", f"redis://user:{SECRET}/x@127.0.0.1:1"],
            ["127.0.0.1:1", "percent-encoded"],
        ),
        (
            ["--edges", 2, "--redis-url", f"redis://user:{SECRET}#x@127.0.0.1:1"],
            ["127.0.0.1:1", "percent-encoded"],
        ),
        (["--edges", 2, "--store", "a-file"], ["store", "a-file", "name a folder"]),
        (["--edges", 2, "--store", "ftp://bucket/x"], ["store 'ftp://' cannot be used"]),
        (["--edges", 2, "--init-model", "a-file"], ["--init-model", "not a checkpoint"]),
        (["--edges", 2, "--init-model", "no-dict.pkl"], ["--init-model", "state_dict"]),
        (["--edges", 2, "--init-model", "missing.pkl"], ["--init-model", "does not exist"]),
        (["--edges", 2, "--devices", "0;1"], ["--devices", "'0;1' is no GPU", "0+1,2+3"]),
        (["--edges", 2, "--out", "used"], ["--out", "results of a run", "--resume"]),
        (["--edges", 2, "--out", "mine"], ["--out", "mine is not empty: it holds metrics.csv, which would"]),
        (["--edges", 2, "--aggregator", "median-of-means-of-x"], ["--aggregator"]),
        (["--edges", 2, "--aggregator", "median", "--weights", "importance"], ["--weights importance", "median does"]),
        (
            ["--edges", 2, "--aggregator", "norm_clip:c=1/median", "--weights", "product"],
            ["--weights product", "does not weigh"],
        ),
        *(
            (["--edges", 2, "--aggregator-main", "true", *option], [option[0], "an aggregator of your own", "leave"])
            for option in (
                ["--keep", "*.labels"],
                ["--equal", "*.labels"],
                ["--weights", "equal"],
                ["--server-step", "momentum"],
            )
        ),
    ],
)
def test_options_of_flavor_run(bench, options, told):
    for name in ("site1", "site2", "?!", "used/logs"):
        (bench.work / name).mkdir(parents=True)
    (bench.work / "used" / "logs" / "edge-1.log").write_text("precious")
    (bench.work / "used" / "federation.json").touch()
    (bench.work / "mine").mkdir()
    (bench.work / "mine" / "metrics.csv").touch()
    (bench.work / "a-file").write_text("hello")
    (bench.work / "no-dict.pkl").write_bytes(pickle.dumps({"weights": np.zeros(3)}))
    before = sorted(bench.folder.rglob("*"))
    process = bench.done("flavor", "run", "-m", bench.trainer(), *options)
    refused(process, 2, *told)
    assert SECRET not in process.stderr
    assert sorted(bench.folder.rglob("*")) == before
    assert (bench.work / "used" / "logs" / "edge-1.log").read_text() == "precious"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("no-such-program --flag", ["no program 'no-such-program' can be executed", "check the spelling"]),
        ("python 'main.py", ["-m", "No closing quotation"]),
        ("", ["-m is empty"]),
    ],
)
@pytest.mark.parametrize("program", [["flavor", "run", "--edges", 1], ["flavor-fl", "--run", "r"]])
def test_commands_that_cannot_run(bench, program, command, told):
    refused(bench.done(*program, "-m", command), 2, *told)
    refused(
        bench.done(*program, "-m", "true", "-p", command or " "),
        2,
        *[text.replace("-m", "-p") for text in told],
    )


# -- the other commands


def test_names_and_missing_settings(bench):
    refused(bench.done("flavor-fl", "-m", "true", "--run", "a b"), 2, "run 'a b' cannot be used")
    refused(
        bench.done("flavor-fl", "-m", "true", "--run", "a", "--client", "a:b"),
        2,
        "client 'a:b' cannot be used",
    )
    refused(
        bench.done("flavor", "serve", "--run", "a b", "--rounds", 1, "--store", bench.store),
        2,
        "run 'a b' cannot be used",
    )
    refused(bench.done("flavor", "serve", "--run", "a", "--rounds", 1), 2, "no --store is given", "FLAVOR_STORE")
    refused(
        bench.done("flavor", "status", env={"FLAVOR_REDIS_URL": None}),
        2,
        "no --redis-url is given",
        "FLAVOR_REDIS_URL",
    )
    refused(bench.done("flavor-agg"), 2, "no --store is given")
    (bench.work / "file").write_text("x")
    refused(bench.done("flavor-agg", "--store", "file"), 2, "name a folder")
    refused(
        bench.done("flavor-agg", "--store", "none"), 2, f"there is no folder '{bench.work / 'none'}'", "coordinator"
    )
    assert not (bench.work / "none").exists()


def test_runs_that_are_not_there_or_over(bench):
    for words in (["status"], ["log"], ["log", "--follow"], ["stop"], ["rm"]):
        refused(
            bench.done("flavor", words[0], bench.run, *words[1:]),
            1,
            f"there is no run '{bench.run}'",
            "flavor status",
        )
    refused(
        bench.done("flavor-fl", "-m", "true", "--run", bench.run, "--join-timeout-s", 0.2),
        4,
        "did not appear within 0.2 s",
    )
    bench.serve().until("waiting")
    assert bench.done("flavor", "stop", bench.run).wait() == 0
    late = bench.edge("edge-1", bench.trainer(), "--join-timeout-s", 0.2)
    assert late.wait() == 8, late.stderr
    waiting, over = late.stderr.splitlines()
    assert f"waiting for run '{bench.run}': it is stopped" in waiting
    assert f"run '{bench.run}' is over (stopped" in over
    assert "it did not go on within 0.2 s: start this again once its operator resumed it" in over
    stopped = bench.serve()
    assert (stopped.wait(), "is over (stopped" in stopped.stderr) == (8, True), "systemd starts it no more"
    assert f"flavor resume {bench.run}" in stopped.stderr
    before = bench.runs.read()
    (bench.work / "file").write_text("")
    refused(bench.done("flavor", "resume", bench.run, "--out", "file/results"), 2, "--out file/results: ")
    assert bench.runs.read() == before, "refused before the run goes on, without a coordinator"
    process = bench.done("flavor", "run", "-m", bench.trainer(), "--edges", 1, "--run", bench.run, "--out", "fresh")
    refused(process, 1, "on this Redis already", "--run")
    assert bench.runs.read() == before
    assert not (bench.work / "fresh").exists()


@pytest.mark.parametrize(
    "url", [f"redis://user:{SECRET}@127.0.0.1:1", f"redis://user:{SECRET}@127.0.0.1:1/0?socket_timeout=1"]
)
def test_unreachable_redis_is_counted_down_and_said_in_one_line(bench, url):
    commands = [
        ["flavor-fl", "-m", "true", "--run", "r", "--patience-s", 0.6],
        ["flavor", "serve", "--run", "r", "--rounds", 1, "--store", bench.store, "--patience-s", 0.6],
        ["flavor-agg", "--store", bench.store, "--patience-s", 0.6],
    ]
    processes = [bench.start(*words, env={"FLAVOR_REDIS_URL": url}) for words in commands]
    edge = bench.start("flavor-fl", "-m", "true", "--run", "r", env={"FLAVOR_REDIS_URL": url})
    for process in processes:
        lines = refused(process, 3, "Error: Redis at redis://127.0.0.1:1", "check that it runs")
        assert any("does not answer; trying for" in line for line in lines[:-1])
        assert SECRET not in process.stderr
    edge.until("trying for 1 d more: connection refused: check that it runs, and the port")
    edge.send(signal.SIGTERM)
    assert edge.wait(10) == 143, "a wait for hours ends at once"
    assert SECRET not in edge.stderr


def test_password_stands_in_no_process_list_log_or_error(bench):
    """A whole run with a user of its own, whose password is then looked for everywhere.

    The run is started cold, so that it and its processes begin as a user's do.
    """
    bench.redis.acl_setuser(
        "tester", enabled=True, passwords=[f"+{SECRET}"], keys="*", channels="*", commands=["+@all"]
    )
    url = bench.url.replace("unix://", f"unix://tester:{SECRET}@")
    process = bench.start(
        "flavor",
        "run",
        "-m",
        bench.trainer("--hold"),
        *("--edges", 1, "--rounds", 2, "--run", bench.run, "--out", "out"),
        env={"FLAVOR_REDIS_URL": url, COLD: "1"},
    )
    bench.held("edge-1")
    assert len(bench.survivors()) >= 5
    assert SECRET not in "".join(bench.survivors().values())
    bench.release("edge-1")
    assert process.wait() == 0, process.stderr
    wrong = bench.done("flavor", "status", "--redis-url", url.replace(SECRET, "wrong-" + SECRET))
    refused(wrong, 3, "check the user and password")
    written = [path.read_bytes() for path in bench.work.rglob("*") if path.is_file()]
    assert len(written) > 10
    assert not any(SECRET.encode() in text for text in [*written, (process.stderr + wrong.stderr).encode()])
    bench.redis.acl_deluser("tester")


# -- a trainer's events and information


def trainer_env(bench, **more):
    return {
        "FLAVOR_RUN": bench.run,
        "FLAVOR_CLIENT": "c",
        "LOCAL_MODEL_PATH": str(bench.work / "local" / "model"),
        "GLOBAL_MODEL_PATH": str(bench.work / "global" / "model"),
        **more,
    }


def test_events_from_the_command_line(bench):
    env = trainer_env(bench)
    refused(
        bench.done("flavor", "event", "set", "TrainFinnished", env=env),
        2,
        "unknown event 'TrainFinnished'",
        "TrainFinished",
    )
    refused(bench.done("flavor", "event", "set", "TrainFinished"), 2, "FLAVOR_RUN is not set", "flavor-fl -m")
    refused(
        bench.done("flavor", "event", "wait", "TrainStarted", "--timeout-s", 0.1, env=env),
        4,
        "did not come within 0.1 s",
    )
    lost = trainer_env(bench, FLAVOR_REDIS_URL=f"redis://user:{SECRET}@127.0.0.1:1")
    process = bench.start("flavor", "event", "set", "TrainFinished", env=lost)
    process.until("Redis at redis://127.0.0.1:1 does not answer; trying for")
    process.end()
    assert SECRET not in process.stderr


def test_info_from_the_command_line_keeps_the_earlier_file(bench):
    env = trainer_env(bench)
    good = {
        "metadata": {"epoch": 1, "datasetSize": 5, "importance": 1},
        "metrics": dict.fromkeys([f"basic/confusion_{c}" for c in ("tp", "fp", "fn", "tn")], -1),
    }
    file = bench.work / "in.json"
    file.write_text(json.dumps(good))
    assert bench.done("flavor", "info", "save", file, env=env).wait() == 0
    saved = bench.work / "local" / "info.json"
    before = saved.read_bytes()
    for text, told in [
        ('{"metadata": {"epoch"', "not complete JSON"),
        ("[" * 200_000, "not complete JSON"),
        (json.dumps({"metadata": good["metadata"]}), "metrics is missing"),
        (
            json.dumps({**good, "metadata": {"epoch": 1.5, "datasetSize": 5, "importance": 1}}),
            "metadata.epoch must be an int",
        ),
        (json.dumps({**good, "metrics": {**good["metrics"], "loss": 1e301}}), "'loss'"),
    ]:
        file.write_text(text)
        refused(bench.done("flavor", "info", "save", file, env=env), 2, told)
        assert saved.read_bytes() == before


# -- what a trainer hands in


SPOILED = {
    "no-checkpoint": "not written: save the checkpoint to $LOCAL_MODEL_PATH",
    "npz-suffix": "np.savez appends .npz",
    "no-state-dict": "state_dict",
    "nan": "tensor 'w' has NaN or infinite values",
    "shape": "tensor 'w' has shape (7, 2); the global model has (3, 2)",
    "missing-tensor": "tensor 'b' is missing; the global model has it",
    "dtype": "tensor 'b' is float64; the global model has float32",
    "object-array": "'b'",
    "hostile": "'b'",
    "garbage": "need a run with `--checkpoint opaque` (flavor serve)",
    "no-info": "info.json: not written: call SaveInfoJson",
    "half-info": "info.json: not complete JSON",
    "info-fields": "metadata.datasetSize is missing",
}


@pytest.fixture(scope="module")
def spoiled(shared_bench):
    """One run, in whose rounds from the second on client 2 hands in one bad update after the other."""
    process = shared_bench.done(
        *("flavor", "run", "-m", shared_bench.trainer("--fail", ",".join(SPOILED), "--only", "edge-2")),
        *("--edges", 2, "--rounds", len(SPOILED) + 2, "--quorum", 1, "--run", shared_bench.run),
        *("--out", "out", "--json", "--keep-rounds", 0, "--quarantine-after", 0),
    )
    assert process.wait() == 0, process.stderr
    return shared_bench, json.loads(process.stdout)


@pytest.mark.parametrize("how", SPOILED)
def test_update_is_refused_with_its_reason_and_left_out(spoiled, how):
    bench, result = spoiled
    round_ = 2 + list(SPOILED).index(how)
    [refusal] = [entry for entry in bench.log() if entry["event"] == "update.refused" and entry["round"] == str(round_)]
    assert refusal["client"] == "edge-2"
    of_edge = ('"its checkpoint cannot be used"', '"its info.json cannot be used"')  # its own words stay at the site
    assert SPOILED[how] in refusal["reason"] or refusal["reason"] in of_edge
    assert len(refusal["reason"]) < 500
    assert result["rounds"][round_ - 1]["clients"] == ["edge-1"]
    lines = (bench.work / "out" / "logs" / "edge-2.log").read_text().splitlines()
    [told] = [line for line in lines if f"flavor: round {round_}: the update" in line]
    assert SPOILED[how] in told


def test_a_client_whose_updates_were_refused_goes_on_and_nothing_of_its_ran(spoiled):
    bench, result = spoiled
    assert result["rounds"][0]["clients"] == result["rounds"][-1]["clients"] == ["edge-1", "edge-2"]
    assert not (bench.work / "out" / "clients" / "edge-2" / "output" / "owned").exists()
    for log in (bench.work / "out" / "logs").iterdir():
        assert "Traceback" not in log.read_text()


def test_refused_update_fails_the_run_that_needs_it(bench):
    process = bench.done(
        *("flavor", "run", "-m", bench.trainer("--fail", "nan", "--only", "edge-2")),
        *("--edges", 2, "--rounds", 3, "--run", bench.run, "--out", "out"),
    )
    assert process.wait() == 1
    assert "Traceback" not in process.stderr
    told = "failed: round 2: 2 updates are needed and 1 can come; edge-2: tensor 'w' has NaN"
    assert told in process.stderr
    assert (bench.work / "out" / "global" / "round-0001.safetensors").exists()


def test_first_round_updates_must_agree_with_each_other(bench):
    process = bench.done(
        "flavor",
        "run",
        "-m",
        bench.trainer("--fail", "shape", "--at", 1, "--only", "edge-2"),
        *("--edges", 2, "--rounds", 1, "--run", bench.run, "--out", "out"),
    )
    assert process.wait() == 1
    assert "edge-2: tensor 'w' has shape (7, 2); the model of the other sites has (3, 2)" in process.stderr


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("bad-event", "unknown event 'TrainFinnished': use one of TrainInitDone, TrainStarted"),
        ("info-nan", "metrics['loss'] must be a number, not 'nan'"),
    ],
)
def test_misuse_in_a_trainer_names_itself(bench, how, told):
    process = bench.done(
        "flavor",
        "run",
        "-m",
        bench.trainer("--fail", how, "--at", 1),
        *("--edges", 1, "--rounds", 1, "--run", bench.run, "--out", "out"),
    )
    assert process.wait() == 1
    assert told not in bench.logged("client.lost")["reason"]
    assert told in bench.runs.clients(["edge-1"])["edge-1"][0].report
    assert told in process.stderr
    if how == "info-nan":
        assert "earlier info: False" in (bench.work / "out" / "logs" / "edge-1.log").read_text()


def test_without_any_examples_all_weigh_alike(bench):
    process = bench.done(
        "flavor",
        "run",
        "-m",
        bench.trainer("--fail", "no-examples", "--at", 1),
        *("--edges", 2, "--rounds", 1, "--run", bench.run, "--out", "out"),
    )
    assert process.wait() == 0
    assert "Traceback" not in process.stderr


def test_input_folder_that_is_not_there(bench):
    bench.serve().until("waiting")
    refused(
        bench.edge("edge-1", bench.trainer(), env={"INPUT_PATH": "/nowhere/at/all"}),
        2,
        "input folder /nowhere/at/all does not exist",
    )
    refused(bench.edge("edge-1", f"{sys.executable} x", "--input", "/nowhere"), 2, "--input", "does not exist")


def test_rm_removes_what_redis_has_left_of_a_run_that_it_has_lost(bench):
    """Somebody has deleted its record, or an eviction has; then nothing of it is left, and then not even a trace."""
    bench.runs.create(rounds=1, config={})
    bench.redis.delete(bench.runs.keys.state)
    assert bench.redis.exists(bench.runs.keys.log)
    done = bench.done("flavor", "rm", bench.run)
    assert (done.wait(), done.stderr) == (
        0,
        f"Redis had lost run {bench.run}; what was left of it is forgotten; its objects stay in the store\n",
    )
    assert not bench.redis.keys(f"{bench.runs.keys.prefix.replace('{', '[{]')}*")
    assert bench.run not in bench.redis.zrange(RUNS, 0, -1)
    refused(bench.done("flavor", "rm", bench.run), 1, "nothing is left of one: what shows it as lost forgets it now")


def test_rm_removes_no_objects_from_a_store_that_is_not_the_runs(bench):
    """Not even the run is forgotten then: its name would be taken, and its objects left without a word."""
    run_id = "a" * 32
    bench.runs.create(rounds=1, config=RunConfig(rounds=1, store="s").to_mapping(), run_id=run_id)
    bench.runs.end(RunState.STOPPED, "enough")
    right, other = open_store(str(bench.store), create=True), open_store(str(bench.folder / "other"), create=True)
    before = bench.runs.read()
    words = ["flavor", "rm", bench.run, "--objects", "--store"]
    refused(bench.done(*words, bench.folder / "other"), 2, "run.json is not there: nothing was removed", "--objects")
    for store, id_ in ((right, run_id), (other, "b" * 32)):
        record = RunRecord(run=bench.run, run_id=id_, rounds=1, config=before.config, initial=None)
        Archive(store, bench.run).begin(record)
    refused(bench.done(*words, bench.folder / "other"), 2, "run.json is of another run of this name")
    assert bench.runs.read() == before
    assert other.exists(f"runs/{bench.run}/run.json")
    assert bench.done(*words, bench.store).wait() == 0
    assert bench.runs.find() is None
    assert not right.exists(f"runs/{bench.run}/run.json")
