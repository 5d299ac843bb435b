"""Whole federations: real server, real processes, real signals."""

from __future__ import annotations

import csv
import json
import os
import pickle
import signal
import stat
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from warm import COLD

from flavor.local.plan import Layout
from flavor.local.record import own_server
from flavor.records.states import RunState
from flavor.stamp import without_stamp

STEP = (10 * 1 + 20 * 2) / 30
"""What a round of the clients 1 and 2 adds to every weight: their weighted mean."""


def federate(bench, *options, trainer=(), edges=2, rounds=3, **more):
    """`flavor run` of the toy trainer, to its end."""
    words = ["--run", bench.run, "--out", bench.folder / "out", "--rounds", rounds]
    words += ["--edges", edges] if edges else []
    return bench.done("flavor", "run", "-m", bench.trainer(*trainer), *words, *options, **more)


def logs(bench):
    return {file.stem: file.read_text() for file in (bench.folder / "out" / "logs").iterdir()}


def final_model(path):
    if path.suffix == ".npz":
        with np.load(path) as file:
            return {name: file[name] for name in file}
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return load_file(path)
    with path.open("rb") as file:
        return pickle.load(file)["state_dict"]


def committed(bench):
    return [int(entry["round"]) for entry in bench.log() if entry["event"] == "round.closed"]


def no_traceback(*texts):
    for text in texts:
        assert "Traceback" not in text, text


# -- a run as it should be, looked at from many sides


@pytest.fixture(scope="module")
def finished(shared_bench):
    """A run of two clients and three rounds: its process, its bench and its result folder."""
    process = federate(
        shared_bench,
        "--json",
        "-p",
        f"{sys.executable} -c \"print('prepared')\"",
        trainer=["--twice", "--say", "hello"],
        plotted=True,
    )
    assert process.wait() == 0, process.stderr
    return process, shared_bench, shared_bench.folder / "out"


def test_json_is_one_object_and_nothing_else(finished):
    process, bench, out = finished
    result = json.loads(process.stdout)
    assert (result["run"], result["state"], result["out"]) == (bench.run, "finished", str(out))
    assert result["global_model"] == str(out / "global_model.pkl")
    assert [r["round"] for r in result["rounds"]] == [1, 2, 3]
    for r in result["rounds"]:
        assert r["seconds"] > 0
        assert r["clients"] == ["edge-1", "edge-2"]
        assert r["metrics"]["accuracy"] == pytest.approx(0.15 + r["round"])
    assert process.stderr == ""


def test_global_model_is_the_closed_form_in_the_trainers_format(finished):
    _, _, out = finished
    model = final_model(out / "global_model.pkl")
    assert list(model) == ["w", "b"]
    assert {name: (array.dtype, array.shape) for name, array in model.items()} == {
        "w": (np.dtype(np.float32), (3, 2)),
        "b": (np.dtype(np.float32), (4,)),
    }
    for array in model.values():
        np.testing.assert_allclose(array, 3 * STEP, rtol=1e-6)


def test_each_trainer_started_from_the_global_model_of_the_round_before(finished):
    _, _, out = finished
    for client in ("edge-1", "edge-2"):
        lines = (out / "logs" / f"{client}.log").read_text().splitlines()
        starts = [line for line in lines if "starts from" in line]
        assert starts == [f"[{client}] round {r} starts from {(r - 1) * STEP:.4f}" for r in (1, 2, 3)]


def test_merged_info_is_as_documented(finished):
    _, _, out = finished
    info = json.loads((out / "info" / "round-0002.json").read_text())
    assert info["metadata"] == {
        "epoch": 102,
        "datasetSize": [30],
        "importance": [2.0],
        "sites": 2,
        "metricSites": {"rare": 1},
    }
    metrics = info["metrics"]
    assert [metrics[f"basic/confusion_{cell}"] for cell in ("tp", "fp", "fn", "tn")] == [[3]] * 4
    assert metrics["accuracy"] == pytest.approx((2.1 + 2.2) / 2)
    assert metrics["accuracy (weighted)"] == pytest.approx((10 * 2.1 + 20 * 2.2) / 30)
    assert metrics["rare"] == metrics["rare (weighted)"] == 5.0  # only client 1 reports it


def test_result_folder_is_complete(finished):
    _, _, out = finished
    from safetensors.numpy import load_file

    for r in (1, 2, 3):
        np.testing.assert_allclose(load_file(out / "global" / f"round-{r:04d}.safetensors")["b"], r * STEP, rtol=1e-6)
    assert {file.name for file in out.iterdir()} == {
        ".flavor-results.json",
        "clients",
        "federation.json",
        "global",
        "global_model.pkl",
        "info",
        "logs",
        "metrics-sites.csv",
        "metrics.csv",
        "metrics.png",
        "store",
        "summary.json",
    }
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert [row["round"] for row in rows] == ["1", "2", "3"]
    assert [float(row["accuracy"]) for row in rows] == pytest.approx([1.15, 2.15, 3.15])
    assert (out / "metrics.png").read_bytes().startswith(b"\x89PNG")
    assert {file.name for file in (out / "logs").iterdir()} == {
        f"{name}.log" for name in ("coordinator", "aggregator", "edge-1", "edge-2")
    }


def test_the_result_folder_is_its_users_alone(finished, tmp_path):
    """Keys, models and logs lie there: nobody else comes in; where it was there before, not to what is secret."""
    _, _, out = finished
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    for name in ("logs", "clients/edge-1/local", "clients/edge-1/global", "clients/edge-1/logs"):
        assert stat.S_IMODE((out / name).stat().st_mode) == 0o700, name
    for name in ("federation.json", *(path.relative_to(out) for path in out.rglob("*.key"))):
        assert stat.S_IMODE((out / name).stat().st_mode) == 0o600, name
    (tmp_path / "before").mkdir(mode=0o755)
    Layout(tmp_path / "before").prepare()
    assert stat.S_IMODE((tmp_path / "before").stat().st_mode) == 0o755
    with own_server(tmp_path / "before" / "redis"):
        closed = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "before").iterdir()}
    assert closed == {"logs": 0o700, "redis": 0o700}


def test_output_of_trainers_is_prefixed_on_the_terminal_and_plain_in_log_path(finished):
    process, bench, out = finished
    no_traceback(process.stderr, *logs(bench).values())
    for client in ("edge-1", "edge-2"):
        assert "Error" not in logs(bench)[client]
        terminal = (out / "logs" / f"{client}.log").read_text()
        assert terminal.count(f"[{client}] hello\n") == 2  # stdout and stderr
        plain = (out / "clients" / client / "logs" / "trainer.log").read_text().splitlines()
        assert plain.count("hello") == 2
        assert "round 3 starts from" in "\n".join(plain)


def test_preprocess_runs_before_the_trainer(finished):
    _, bench, out = finished
    for client in ("edge-1", "edge-2"):
        terminal = logs(bench)[client]
        assert terminal.index("prepared") < terminal.index("hello")
        assert (out / "clients" / client / "logs" / "preprocess.log").read_text() == "prepared\n"


def test_every_round_committed_once_and_events_set_twice_changed_nothing(finished):
    _, bench, _ = finished
    assert committed(bench) == [1, 2, 3]
    accepted = [(e["round"], e["client"]) for e in bench.log() if e["event"] == "update.accepted"]
    assert sorted(accepted) == [(str(r), f"edge-{i}") for r in (1, 2, 3) for i in (1, 2)]


def test_status_log_and_rm_of_a_finished_run(finished):
    _, bench, _ = finished
    status = bench.done("flavor", "status", bench.run, "--json")
    assert status.wait() == 0
    found = json.loads(status.stdout)
    assert (found["state"], found["round"], found["round_state"]) == ("finished", 3, "closed")
    assert {client["this_round"] for client in found["clients"].values()} == {"accepted"}
    everything = bench.done("flavor", "status", "--json")
    assert bench.run in [run["run"] for run in json.loads(everything.stdout)]
    people = bench.done("flavor", "status", bench.run).stdout
    assert "finished" in people
    assert "edge-2" in people
    entries = [json.loads(line) for line in bench.done("flavor", "log", bench.run, "--json").stdout.splitlines()]
    assert entries[0]["event"] == "run.created"
    assert entries[-1]["event"] == "run.finished"
    follow = bench.done("flavor", "log", "--follow", bench.run, timeout_s=10)
    assert follow.wait() == 0
    assert len(follow.stdout.splitlines()) == len(entries)
    stop = bench.done("flavor", "stop", bench.run)
    assert stop.wait() == 0
    assert "finished already" in stop.stderr
    other = bench.redis.set(f"flavor:{{{bench.run}x}}:run", "another run's")
    assert other
    assert bench.done("flavor", "rm", bench.run).wait() == 0
    assert list(bench.redis.scan_iter(match=f"flavor:{{{bench.run}}}:*")) == []
    assert bench.redis.delete(f"flavor:{{{bench.run}x}}:run") == 1
    assert bench.done("flavor", "status", bench.run).wait() == 1


# -- how many rounds a trainer wants


@pytest.mark.parametrize(
    ("wanted", "closed"),
    [("endless", 3), ("2", 2), ("edge-1:2", 2), ("edge-2:1", 1), ("7", 3)],  # as many as the run has: `finished`
)
def test_trainers_of_any_number_of_rounds_end_cleanly(bench, wanted, closed):
    process = federate(bench, "--json", trainer=["--rounds", wanted])
    assert process.wait() == (0 if closed == 3 else 7), process.stderr
    result = json.loads(process.stdout)
    assert result["state"] == "finished"
    assert len(result["rounds"]) == closed
    no_traceback(process.stderr, *logs(bench).values())
    for client in ("edge-1", "edge-2"):
        assert "Error" not in logs(bench)[client]
    np.testing.assert_allclose(final_model(Path(result["global_model"]))["w"], closed * STEP, rtol=1e-6)


def test_the_others_go_on_without_one_that_leaves_early_when_the_quorum_allows(bench):
    process = federate(bench, "--json", "--quorum", 1, trainer=["--rounds", "edge-1:1"])
    assert process.wait() == 0, process.stderr
    assert [r["clients"] for r in json.loads(process.stdout)["rounds"]] == [
        ["edge-1", "edge-2"],
        ["edge-2"],
        ["edge-2"],
    ]


# -- options


@pytest.mark.parametrize("format_", ["npz", "safetensors"])
def test_formats(bench, format_):
    process = federate(bench, "--json", trainer=["--format", format_], rounds=2)
    assert process.wait() == 0, process.stderr
    path = Path(json.loads(process.stdout)["global_model"])
    assert path.suffix == f".{format_}"
    np.testing.assert_allclose(final_model(path)["w"], 2 * STEP, rtol=1e-6)


def test_init_model_embedded_server_and_keep_rounds(bench):
    start = bench.folder / "start.pkl"
    with start.open("wb") as file:
        pickle.dump({"state_dict": {"w": np.full((3, 2), 100, np.float32), "b": np.full(4, 100, np.float32)}}, file)
    store = bench.folder / "kept"
    process = federate(
        bench,
        "--json",
        "--init-model",
        start,
        "--keep-rounds",
        1,
        "--store",
        store,
        rounds=4,
        env={"FLAVOR_REDIS_URL": None},
    )
    assert process.wait() == 0, process.stderr
    np.testing.assert_allclose(final_model(bench.folder / "out" / "global_model.pkl")["b"], 100 + 4 * STEP, rtol=1e-6)
    assert "round 1 starts from 100.0000" in logs(bench)["edge-1"]
    run = store / "runs" / bench.run
    kept = [file.name for folder in ("clients/*", "accepted") for file in run.glob(f"{folder}/*")]
    assert {name[:4] for name in kept if "-update-" in name} == {"0003", "0004"}
    assert {name[:4] for name in kept if "-info-" in name} == {"0001", "0002", "0003", "0004"}, "for who writes results"
    assert {file.name[:4] for file in (run / "global").iterdir()} == {"0000", "0001", "0002", "0003", "0004"}
    assert bench.survivors() == {}


def test_a_run_that_is_there_takes_no_other_weights(bench):
    """`flavor serve --init-model B` went on with a run that had begun from A, without a word."""
    a, b = (bench.folder / f"{name}.pkl" for name in "ab")
    for path, value in ((a, 1), (b, 2)):
        path.write_bytes(pickle.dumps({"state_dict": {"w": np.full(2, value, np.float32)}}))

    def serves(*options):
        """A coordinator takes the run over, and is ended by a signal."""
        before = bench.redis.get(bench.runs.keys.coordinator)
        process = bench.serve(*options, rounds=1)
        bench.eventually("it serves", lambda: bench.redis.get(bench.runs.keys.coordinator) not in (None, before))
        process.send(signal.SIGTERM)
        assert process.wait() == 143, process.stderr

    serves("--init-model", a)
    other = bench.serve("--init-model", b, rounds=1)
    assert other.wait() == 2, other.stderr
    began = f"Error: run {bench.run!r} is there already and began from another model (SHA-256 "
    assert began in other.stderr
    assert "leave --init-model out to go on with the run, or choose another name" in other.stderr
    serves("--init-model", a)
    serves()


def test_input_glob_and_fraction(bench):
    for name in ("site-1", "site-2", "site-3"):
        (bench.work / "sites" / name).mkdir(parents=True)
    process = federate(
        bench,
        "--json",
        "--input-glob",
        "sites/*/",
        "--fraction",
        0.5,
        "--min-clients",
        3,
        "--quorum",
        1,
        "--seed",
        5,
        edges=None,
    )
    assert process.wait() == 0, process.stderr
    result = json.loads(process.stdout)
    for r in result["rounds"]:
        assert len(r["clients"]) == 2
        assert set(r["clients"]) < {"site-1", "site-2", "site-3"}
    expected = np.float64(0)
    for r in result["rounds"]:
        numbers = [int(client[-1]) for client in r["clients"]]
        expected += sum(10 * i * i for i in numbers) / sum(10 * i for i in numbers)
    np.testing.assert_allclose(final_model(Path(result["global_model"]))["w"], expected, rtol=1e-6)


def test_modules_beside_the_trainer_are_never_ours(bench):
    """The folder of a user's script may hold a workers.py; the console scripts must not see it."""
    for name in ("workers", "aggregators", "flavor"):
        (bench.work / f"{name}.py").write_text(f"open('imported-{name}', 'w'); raise SystemExit('{name} of the user')")
    process = federate(bench, rounds=1)
    assert process.wait() == 0, process.stderr + str(logs(bench))
    assert list(bench.work.glob("imported-*")) == []


# -- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_no_process(bench, number):
    process = bench.start(
        "flavor",
        "run",
        "-m",
        bench.trainer("--rounds", "endless", "--hold"),
        "--edges",
        2,
        "--run",
        bench.run,
        "--out",
        bench.folder / "out",
    )
    bench.held("edge-1")
    assert len(bench.survivors()) >= 7  # run, coordinator, aggregator, two edges, two trainers
    process.send(number)
    assert process.wait(10) == 128 + number
    assert process.stderr.strip().splitlines()[-1] == {2: "flavor: interrupted", 15: "flavor: terminated"}[number]
    assert bench.survivors() == {}
    view = bench.runs.read()
    assert (view.state, view.reason) == (RunState.STOPPED, "interrupted")
    no_traceback(process.stderr, *logs(bench).values())


def test_killed_run_leaves_no_process_and_no_server(bench):
    """With the embedded server, because that one has to go too."""
    holding = f"sh -c 'echo trainer-is-here; exec {sys.executable} -c \"import signal; signal.pause()\"'"
    process = bench.start(
        "flavor",
        "run",
        "-m",
        holding,
        "--edges",
        2,
        "--out",
        bench.folder / "out",
        env={"FLAVOR_REDIS_URL": None},
    )
    edge_log = bench.folder / "out" / "logs" / "edge-2.log"
    bench.eventually("the trainer", lambda: edge_log.exists() and "trainer-is-here" in edge_log.read_text())
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    server = next(Path("/proc", pid) for pid in children if b"valkey" in Path("/proc", pid, "cmdline").read_bytes())
    process.send(signal.SIGKILL)
    process.wait()
    bench.eventually("no process left", lambda: not bench.survivors() and not server.exists(), timeout_s=3)


def test_ctrl_c_of_a_whole_terminal_with_an_embedded_server_ends_quickly(bench):
    """A terminal sends SIGINT to the whole foreground group; the server must outlive it to say goodbye."""
    process = bench.start(
        "flavor",
        "run",
        "-m",
        bench.trainer("--fail", "hang", "--at", 1),
        "--edges",
        2,
        "--out",
        bench.folder / "out",
        env={"FLAVOR_REDIS_URL": None},
    )
    edge_log = bench.folder / "out" / "logs" / "edge-1.log"
    bench.eventually("the trainer", lambda: edge_log.exists() and "round 1 starts" in edge_log.read_text())
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(10) == 130
    assert bench.survivors() == {}
    assert "does not answer" not in "".join(logs(bench).values())


# -- trainers that fail


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("exit3", "its trainer ended in round 2, before TrainFinished (exit code 3)"),
        ("sigkill", "its trainer ended in round 2, before TrainFinished (killed by SIGKILL (out of memory?))"),
        ("flood", "its trainer ended in round 2, before TrainFinished (exit code 1)"),
        ("error-event", "its trainer set the event Error"),
    ],
)
def test_trainer_that_fails_in_a_round_fails_the_run_with_its_reason(bench, how, told):
    """Of the ways to fail, those that are noticed in ways of their own; all: `test_trainers_that_fail_in_every_way`."""
    process = bench.start(
        "flavor",
        "run",
        "-m",
        bench.trainer("--fail", how, "--hold", "--only", "edge-2"),
        *("--edges", 2, "--rounds", 3, "--run", bench.run, "--out", bench.folder / "out", "--json"),
    )
    bench.held("edge-2")
    released = time.monotonic()
    bench.release("edge-2")
    lost = bench.logged("client.lost", client="edge-2")
    assert time.monotonic() - released < 10.0  # of itself, not when its lease of 15 s has run out
    assert lost["reason"] == f'"{told}"'
    assert process.wait(15) == 1
    result = json.loads(process.stdout)
    assert result["state"] == "failed"
    assert told in result["reason"]
    assert len(result["rounds"]) == 1
    if how == "exit3":  # the words of the script are the operator's to read here, and in no reason
        assert "cannot read the data set" not in result["reason"]
        assert "cannot read the data set" in bench.runs.clients(["edge-2"])["edge-2"][0].report
    no_traceback(process.stderr, *logs(bench).values())
    assert "has failed" in logs(bench)["edge-1"]
    assert bench.survivors() == {}


def test_run_goes_on_without_a_failed_trainer_when_the_quorum_allows(bench):
    process = federate(bench, "--json", "--quorum", 1, trainer=["--fail", "exit3", "--only", "edge-2"])
    assert process.wait() == 0, process.stderr
    result = json.loads(process.stdout)
    assert [r["clients"] for r in result["rounds"]] == [["edge-1", "edge-2"], ["edge-1"], ["edge-1"]]
    np.testing.assert_allclose(final_model(Path(result["global_model"]))["w"], STEP + 2, rtol=1e-6)


def test_run_starts_without_a_trainer_that_failed_before_it_when_min_clients_allows(bench):
    process = federate(bench, "--json", "--min-clients", 1, trainer=["--fail", "exit3", "--at", 0, "--only", "edge-2"])
    assert process.wait() == 0, process.stderr
    assert {tuple(r["clients"]) for r in json.loads(process.stdout)["rounds"]} == {("edge-1",)}


@pytest.mark.parametrize("how", ["exit0", "exit3"])
def test_trainer_that_ends_before_it_is_ready_fails_the_run(bench, how):
    process = federate(bench, trainer=["--fail", how, "--at", 0, "--only", "edge-2"])
    assert process.wait() == 1
    assert f"its trainer ended before TrainInitDone (exit code {how[-1]})" in process.stderr
    no_traceback(process.stderr, *logs(bench).values())
    assert bench.survivors() == {}


def test_failed_preprocess_fails_the_run(bench):
    process = federate(bench, "-p", f"{sys.executable} -c 'import sys; sys.exit(\"no data here\")'")
    assert process.wait() == 1
    assert "its preprocess command ended (exit code 1)" in process.stderr
    assert "no data here" in process.stderr


def test_grandchildren_of_a_trainer_that_has_ended_are_ended_too(bench):
    script = bench.work / "leaves.sh"
    script.write_text(f"sleep 1000 >/dev/null 2>&1 &\nexec {bench.trainer()}\n")
    process = bench.done(
        "flavor", "run", "-m", f"sh {script}", "--edges", 1, "--rounds", 1, "--out", bench.folder / "out"
    )
    assert process.wait() == 0, process.stderr
    assert bench.survivors() == {}


# -- processes that fail, with the separate commands


def start_separately(bench, *options, trainer=(), rounds=3, beat_s=1.5):
    coordinator = bench.serve("--heartbeat-timeout-s", beat_s, *options, rounds=rounds)
    aggregator = bench.aggregator()
    command = bench.trainer(*trainer)
    edges = {client: bench.edge(client, command) for client in ("edge-1", "edge-2")}
    return coordinator, aggregator, edges


def test_coordinator_killed_and_started_again_carries_on(bench):
    coordinator, aggregator, edges = start_separately(bench, trainer=["--hold", "--only", "edge-2"])
    bench.held("edge-2")
    coordinator.send(signal.SIGKILL)
    coordinator.wait()
    bench.release("edge-2")  # it hands in while nobody coordinates
    again = bench.serve("--heartbeat-timeout-s", 1.5)
    assert again.wait() == 0, again.stderr
    assert "goes on from round 2" in again.stderr
    assert [edge.wait() for edge in edges.values()] == [0, 0]
    assert committed(bench) == [1, 2, 3]
    aggregator.send(signal.SIGTERM)
    assert aggregator.wait() == 0
    no_traceback(again.stderr, aggregator.stderr, *(edge.stderr for edge in edges.values()))


def test_second_coordinator_is_refused(bench):
    first = bench.serve("--heartbeat-timeout-s", 1)
    first.until("waiting: 0 of")
    second = bench.serve("--heartbeat-timeout-s", 1)
    assert second.wait() == 1
    assert "is already running as process" in second.stderr.splitlines()[-1]
    assert first.running
    other = bench.serve("--heartbeat-timeout-s", 1, rounds=9)
    assert other.wait() == 2
    assert (
        without_stamp(other.stderr.splitlines()[-1])
        == f"Error: run '{bench.run}' is there already with other settings: rounds is 3, not 9; "
        f"`flavor serve` with the same options goes on with it; `flavor stop {bench.run}`, then "
        f"`flavor resume {bench.run} --rounds 9` changes that, or choose another name"
    )


def kill(bench, edge, name):
    """Kill an edge, and let its lease be over, which is long, so that no other's runs out on a busy machine."""
    edge.send(signal.SIGKILL)
    edge.wait()
    bench.redis.pexpire(bench.runs.keys.client(name).lease, 1)


def test_edge_killed_and_started_again_joins_the_current_round(bench):
    wait = ("--on-quorum-lost", "wait")
    coordinator, _, edges = start_separately(bench, *wait, trainer=["--hold", "--only", "edge-2"], beat_s=20)
    bench.held("edge-2")
    kill(bench, edges["edge-2"], "edge-2")
    again = bench.edge("edge-2", bench.trainer())
    assert coordinator.wait() == 0, coordinator.stderr
    assert again.wait() == 0, again.stderr
    assert edges["edge-1"].wait() == 0
    assert f"round 2 starts from {STEP:.4f}" in again.stdout
    assert "round 1" not in again.stdout
    assert committed(bench) == [1, 2, 3]
    model = bench.store / bench.runs.read().global_model.model.path
    np.testing.assert_allclose(final_model(model)["w"], 3 * STEP, rtol=1e-6)


def test_edge_killed_for_good_is_missed_by_its_heartbeat(bench):
    coordinator, _, edges = start_separately(bench, trainer=["--hold", "--only", "edge-2"], beat_s=20)
    bench.held("edge-2")
    kill(bench, edges["edge-2"], "edge-2")
    assert coordinator.wait() == 1
    assert "edge-2: its heartbeat stopped" in coordinator.stderr.splitlines()[-1]
    assert edges["edge-1"].wait() == 1
    assert "has failed" in edges["edge-1"].stderr.splitlines()[-1]


def test_second_edge_of_the_same_name_is_refused(bench):
    coordinator, _, edges = start_separately(bench, trainer=["--hold", "--only", "edge-2"], beat_s=1)
    bench.held("edge-2")
    second = bench.edge("edge-2", bench.trainer())
    assert second.wait() == 1
    assert "Error: client 'edge-2' is already running as process" in second.stderr.splitlines()[-1]
    no_traceback(second.stderr)
    bench.release("edge-2")
    assert coordinator.wait() == 0
    assert edges["edge-2"].wait() == 0


def test_aggregator_killed_and_another_started(bench):
    coordinator, aggregator, edges = start_separately(bench, trainer=["--hold", "--only", "edge-2"])
    bench.held("edge-2")
    bench.logged("update.accepted", round=2, client="edge-1")
    aggregator.send(signal.SIGKILL)
    aggregator.wait()
    bench.release("edge-2")
    bench.logged("round.closed", round=1)
    bench.aggregator()
    assert coordinator.wait() == 0, coordinator.stderr
    assert [edge.wait() for edge in edges.values()] == [0, 0]
    assert committed(bench) == [1, 2, 3]


def test_coordinator_says_that_there_is_no_aggregator(bench):
    coordinator = bench.serve()
    for client in ("edge-1", "edge-2"):
        bench.edge(client, bench.trainer())
    coordinator.until(f"no aggregator listens on queue '{bench.run}': start one with `flavor-agg", timeout_s=15)
    bench.aggregator()
    assert coordinator.wait() == 0, coordinator.stderr


def test_stop_ends_everything(bench):
    coordinator, aggregator, edges = start_separately(
        bench, trainer=["--hold", "--rounds", "endless", "--only", "edge-2"]
    )
    bench.held("edge-2")
    follow = bench.start("flavor", "log", "--follow", bench.run)
    follow.until("round 2", stream="stdout")
    waiting = json.loads(bench.done("flavor", "status", bench.run, "--json").stdout)
    assert (waiting["state"], waiting["round"], waiting["round_state"]) == ("running", 2, "open")
    assert waiting["clients"]["edge-2"]["this_round"] == "pending"
    refused = bench.done("flavor", "rm", bench.run)
    assert refused.wait() == 2
    stop = bench.done("flavor", "stop", bench.run, "--reason", "enough of this")
    assert stop.wait() == 0
    assert stop.stderr == f"run {bench.run} is stopped after round 1 of 3\n"
    for process in (coordinator, *edges.values()):
        assert process.wait(10) == 8
        last = without_stamp(process.stderr.splitlines()[-1])
        assert last.startswith(f"flavor: run '{bench.run}' is stopped: enough of this")
        no_traceback(process.stderr)
    assert follow.wait() == 0
    assert "enough of this" in follow.stdout.splitlines()[-1]
    assert aggregator.running  # it serves other runs too
    aggregator.send(signal.SIGTERM)
    assert aggregator.wait() == 0
    assert bench.survivors() == {}


def test_edges_may_come_before_the_coordinator(bench):
    edges = [bench.edge(f"edge-{i}", bench.trainer()) for i in (1, 2)]
    edges[0].until("waiting for run")
    bench.aggregator()
    coordinator = bench.serve(rounds=1)
    assert coordinator.wait() == 0
    assert [edge.wait() for edge in edges] == [0, 0]


def test_output_streams_line_by_line_while_the_trainer_runs(bench):
    bench.serve()
    script = bench.work / "slow.py"
    script.write_text("import signal, sys\nprint('first')\nprint('second', file=sys.stderr)\nsignal.pause()\n")
    edge = bench.edge("edge-1", f"{sys.executable} {script}")
    edge.until("[edge-1] first\n", stream="stdout")
    edge.until("[edge-1] second\n", stream="stdout")
    assert sorted((bench.folder / "edge-1" / "logs" / "trainer.log").read_text().splitlines()) == [
        "first",
        "second",
    ]
    edge.send(signal.SIGTERM)
    assert edge.wait() == 143
    assert without_stamp(edge.stderr.splitlines()[-1]) == "flavor: terminated"


def test_aggregator_lost_with_a_job_in_hand_is_replaced_after_its_lease(bench):
    coordinator, aggregator, edges = start_separately(
        bench, "--aggregation-lease-s", 1, trainer=["--hold", "--only", "edge-2"], rounds=2
    )
    bench.held("edge-2")
    bench.logged("update.accepted", round=2, client="edge-1")
    aggregator.send(signal.SIGSTOP)  # it still holds its place in the queue, so the next job goes to it
    bench.release("edge-2")
    bench.eventually("the update", lambda: bench.runs.updates(2, ["edge-2"]))
    bench.aggregator()
    assert coordinator.wait() == 0, coordinator.stderr
    aggregator.send(signal.SIGCONT)  # it does the old job now, and changes nothing
    aggregator.send(signal.SIGTERM)
    assert aggregator.wait() == 0
    no_traceback(aggregator.stderr)
    assert [edge.wait() for edge in edges.values()] == [0, 0]
    assert committed(bench) == [1, 2]
    assert [e["client"] for e in bench.log() if e["event"] == "update.accepted" and e["round"] == "2"] == [
        "edge-1",
        "edge-2",
    ]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def own_process(bench, process, module):
    """The process of a local run that has this module, and not its second process, such as an aggregator's."""
    found = {pid for pid, command in bench.survivors().items() if module in command}
    (pid,) = [pid for pid in found if parent(parent(pid)) == process.pid]
    return pid


@pytest.fixture(scope="module")
def survived(bench_class, server, tmp_path_factory):
    """A local run, with the fork server that users have, whose aggregator and then whose coordinator were killed."""
    bench = bench_class(server, tmp_path_factory.mktemp("survived"))
    script = bench.work / "threads.sh"
    script.write_text('echo "threads ${OMP_NUM_THREADS:-all} devices $CUDA_VISIBLE_DEVICES" >&2\nexec "$@"\n')
    words = ["run", "-m", f"sh {script} {bench.trainer('--hold')}", "--edges", 2, "--rounds", 3, "--run", bench.run]
    words += ["--out", bench.folder / "out", "--heartbeat-timeout-s", 1, "--devices", "1,0+2"]
    process = bench.start("flavor", *words, env={COLD: "1", "OMP_NUM_THREADS": None, "CUDA_VISIBLE_DEVICES": "3,5,7"})
    try:
        for client in ("edge-1", "edge-2"):
            bench.held(client)
        for number, module in enumerate(["flavor.cli.flavor_agg", "flavor.cli.serve_local"], start=1):
            os.kill(own_process(bench, process, module), signal.SIGKILL)
            bench.eventually(
                "it is started again", lambda told=number: process.stderr.count("killed by SIGKILL") == told
            )
        bench.release("edge-1", "edge-2")
        process.wait()
        yield process, bench
    finally:
        bench.close()


def test_a_local_run_survives_its_own_processes(survived):
    process, bench = survived
    assert process.wait() == 0, process.stderr
    assert bench.runs.read().state is RunState.FINISHED
    assert [entry["round"] for entry in bench.log() if entry["event"] == "round.closed"] == ["1", "2", "3"]
    assert bench.survivors() == {}


def test_the_scripts_of_the_sites_share_the_cores_and_the_gpus(survived):
    process, bench = survived
    (line,) = [line for line in process.stderr.splitlines() if "OMP_NUM_THREADS" in line]
    each = line.split("computes with ")[1].split()[0]
    assert "GPUs: edge-1 on device 1; edge-2 on devices 0 and 2\n" in process.stderr
    for client, devices in (("edge-1", "5"), ("edge-2", "3,7")):
        log = (bench.folder / "out" / "clients" / client / "logs" / "trainer.log").read_text()
        assert f"threads {each} devices {devices}\n" in log


def test_many_small_rounds_add_up(bench):
    """Whatever is handed out a round late, or counted twice, shows in the sum."""
    done = federate(bench, "--json", rounds=30)
    assert done.wait() == 0
    for array in final_model(Path(json.loads(done.stdout)["global_model"])).values():
        np.testing.assert_allclose(array, 30 * STEP, rtol=1e-5)


@pytest.mark.parametrize("how", ["unread", "unread-then-read"])
def test_a_site_that_trains_on_from_its_own_model_is_named(bench, how):
    """Round 1 starts from no model; from round 2 on, the second site does not look at the global one in time."""
    process = federate(bench, trainer=["--fail", how, "--only", "edge-2"], rounds=2)
    assert process.wait() == 0, process.stderr
    (entry,) = [entry for entry in bench.log() if entry["event"] == "round.note"]
    assert entry["round"] == "2"
    assert entry["reason"].startswith("warning: edge-2 did not read the global model ($GLOBAL_MODEL_PATH)")
    assert entry["reason"] in process.stderr + process.stdout
    assert "round 2: the trainer did not read the global model" in logs(bench)["edge-2"]
    assert "did not read" not in logs(bench)["edge-1"]


def test_a_result_folder_that_takes_nothing_ends_no_run(bench):
    process = federate(bench, "-p", f"touch {bench.folder / 'out' / 'info'}", rounds=2)
    assert process.wait() != 0
    assert committed(bench) == [1, 2]
    assert bench.runs.read().state is RunState.FINISHED
    said = [line for line in process.stderr.splitlines() if "cannot be written into" in line]
    assert len(said) == 1
    no_traceback(process.stderr)
