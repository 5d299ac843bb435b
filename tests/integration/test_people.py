"""What people see of a run: its folder while it goes on and afterwards, its status, and how it goes on."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import signal
import sys

import pytest

from flavor.results.folder import ResultFolder
from flavor.results.rounds import RoundResult

STEP = (10 * 1 + 20 * 2) / 30
"""What a round of the clients 1 and 2 adds to every weight: their weighted mean."""
LOCAL = {"FLAVOR_REDIS_URL": None}


@pytest.fixture
def out(bench):
    return bench.folder / "out"


def local(bench, out, *flags, rounds=3, plotted=False):
    """`flavor run` with a server of its own."""
    words = ["-m", bench.trainer(*flags), "--run", bench.run, "--out", out, "--rounds", rounds, "--edges", 2]
    return bench.start("flavor", "run", *words, env=LOCAL, plotted=plotted)


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def weights(path):
    with path.open("rb") as file:
        return pickle.load(file)["state_dict"]["b"]


def test_an_interrupted_run_leaves_its_results_and_goes_on(bench, out):
    gate = bench.folder / "gate"
    os.mkfifo(gate)
    first = local(bench, out, "--hold", "--gate", gate, "--at", 2, "--only", "edge-1", plotted=True)
    first.until("all 2 sites read the same folder ($INPUT_PATH): ")
    first.until("round 1/3")
    assert [row["round"] for row in rows(out / "metrics.csv")] == ["1"], "written as the round closed"
    running = bench.done("flavor", "status", out, env=LOCAL)
    assert f"{bench.run}  running  round 2 of 3  open for" in running.stdout, running.stderr
    assert f"global model: {out}/store/runs/{bench.run}/global/0001-" in running.stdout
    assert "round 1: accuracy 1.167 (best: 1.167, reported in round 1, the first)" in running.stdout
    first.send(signal.SIGINT)
    assert first.wait() == 130
    assert f"go on with it: flavor run --resume {out}" in first.stderr
    assert (out / "metrics.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "global" / "round-0001.safetensors").exists()
    assert weights(out / "global_model.pkl") == pytest.approx([STEP] * 4)
    stopped = bench.done("flavor", "status", out, env=LOCAL)
    assert f"{bench.run}  stopped  round 2 of 3" in stopped.stdout, stopped.stderr

    wrong = bench.done("flavor", "run", "--resume", out, "--seed", 3, env=LOCAL)
    assert (wrong.wait(), "--seed: with --resume it stays as it was" in wrong.stderr) == (2, True), wrong.stderr
    again = bench.start("flavor", "run", "--resume", out, "--rounds", 4, "--json", env=LOCAL)
    with gate.open("w"):  # the trainer of edge-1 stands there again
        pass
    assert again.wait() == 0, again.stderr
    assert [each["round"] for each in json.loads(again.stdout)["rounds"]] == [1, 2, 3, 4]
    assert [row["round"] for row in rows(out / "metrics.csv")] == ["1", "2", "3", "4"]
    assert weights(out / "global_model.pkl") == pytest.approx([4 * STEP] * 4, rel=1e-5)

    (bench.folder / "other").mkdir()
    other_store = {**LOCAL, "FLAVOR_STORE": str(bench.folder / "other")}  # the folder's own store comes before it
    for command in ("status", "log", "verify", "credits"):
        looked = bench.done("flavor", command, out, env=other_store)
        assert looked.wait() == 0, looked.stderr
    table = bench.work / "exported.csv"
    exported = bench.done("flavor", "export", out, "--to", "csv", table, env=other_store)
    assert (exported.wait(), len(rows(table))) == (0, 4), exported.stderr
    named = bench.done("flavor", "verify", out, "--store", bench.folder / "other", env=LOCAL)
    assert f"there is no run {bench.run!r} in the store" in named.stderr, "--store comes before all"
    got = bench.done("flavor", "get", out, "--round", 2, "-o", bench.work / "two.pkl", env=other_store)
    assert got.wait() == 0, got.stderr
    assert weights(bench.work / "two.pkl") == pytest.approx([2 * STEP] * 4)
    raw = bench.work / "two.safetensors"
    other = bench.done("flavor", "get", out, "--round", 2, "-o", raw, env=LOCAL)
    assert (other.wait(), raw.exists()) == (2, False), "a pickle in a file that is named as another format"
    assert "pass --format safetensors or --format pickle" in other.stderr
    assert bench.done("flavor", "get", out, "--round", 2, "--format", "safetensors", "-o", raw, env=LOCAL).wait() == 0
    (model,) = (out / "store").glob("runs/*/global/0002-model-*")
    assert raw.read_bytes() == model.read_bytes()
    assert not raw.samefile(model), "the store's own object would be the user's to write to"
    for name in ("two.pt", "two.PTH", "two.ckpt"):
        misleading = bench.done("flavor", "get", out, "--round", 2, "-o", bench.work / name, env=LOCAL)
        assert misleading.wait() == 0
        assert misleading.stderr.startswith(f"{name} has the format pickle, in which the training scripts save: torch")
    torch = bench.work / "torch.pt"
    meant = bench.done("flavor", "get", out, "--round", 2, "--format", "torch", "-o", torch, env=LOCAL)
    assert (meant.wait(), meant.stderr, meant.stdout) == (0, "", f"{torch}\n")
    model.chmod(0o644)
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    changed = bench.done("flavor", "get", out, "--round", 2, "-o", bench.work / "changed.pkl", env=LOCAL)
    assert (changed.wait(), "SHA-256" in changed.stderr) == (1, True), changed.stderr
    nothing = bench.done("flavor", "get", out, "--round", 9, env=LOCAL)
    assert (nothing.wait(), "rounds 1 to 4 are closed" in nothing.stderr) == (1, True), nothing.stderr
    over = bench.done("flavor", "run", "--resume", out, env=LOCAL)
    assert over.wait() == 1
    assert "--rounds NUMBER, with more than 4, lets it go on" in over.stderr


@pytest.mark.parametrize("data", ["kept", "lost"])
def test_a_killed_run_goes_on_from_what_lies_there(bench, out, data):
    """Of what its server kept, or, when that is lost, of the store alone."""
    gate = bench.folder / "gate"
    os.mkfifo(gate)
    first = local(bench, out, "--hold", "--gate", gate, "--at", 2, "--only", "edge-1")
    first.until("round 1/3")
    first.send(signal.SIGKILL)
    first.wait()
    bench.eventually("everything is gone", lambda: not bench.survivors())
    looked = bench.done("flavor", "status", out, env=LOCAL).stdout
    assert f"`flavor run` does not run it any more: go on with it: flavor run --resume {out}" in looked
    assert "flavor serve" not in looked
    if data == "lost":
        shutil.rmtree(out / "redis")
    again = bench.start("flavor", "run", "--resume", out, env=LOCAL)
    with gate.open("w"):
        pass
    assert again.wait(60) == 0, again.stderr
    assert weights(out / "global_model.pkl") == pytest.approx([3 * STEP] * 4, rel=1e-5)


def test_metrics_are_kept_of_each_site(bench, out):
    done = local(bench, out, rounds=2)
    assert done.wait() == 0, done.stderr
    found = rows(out / "metrics-sites.csv")
    assert [(row["round"], row["site"], row["examples"]) for row in found] == [
        (str(number), f"edge-{site}", str(10 * site)) for number in (1, 2) for site in (1, 2)
    ]
    assert [float(row["accuracy"]) for row in found] == pytest.approx([1.1, 1.2, 2.1, 2.2])
    of_site = json.loads((out / "info" / "round-0002" / "edge-2.json").read_text(encoding="utf-8"))
    assert of_site["metrics"]["accuracy"] == pytest.approx(2.2)
    assert [line for line in done.stderr.splitlines() if line.startswith("round 2/2")], "each round once"
    assert [line.split(":")[0].split("  ")[0] for line in done.stderr.splitlines() if "accuracy 2.167" in line] == [
        *("round 2/2", "best round"),
    ]
    shown = bench.done("flavor", "status", out, env=LOCAL).stdout
    assert f"{bench.run}  finished  round 2 of 2  took" in shown
    assert shown.split("SITE")[1].split() == [
        *("STATE", "LAST", "SEEN", "EXAMPLES", "UPLOADED", "ACCURACY"),
        *("edge-1", "done", "-", "10", "168", "B", "2.1"),
        *("edge-2", "done", "-", "20", "168", "B", "2.2"),
    ]


def test_what_is_no_result_folder_is_told(bench):
    (bench.work / "other").mkdir()
    for command in (["status", "./other"], ["log", "./other"], ["verify", "./other"], ["run", "--resume", "other"]):
        wrong = bench.done("flavor", *command, env=LOCAL)
        assert (wrong.wait(), "is no result folder of `flavor run`" in wrong.stderr) == (2, True), wrong.stderr


def test_a_coordinator_leaves_the_same_results(bench, out):
    coordinator = bench.serve("--out", out, rounds=2, plotted=True)
    bench.aggregator()
    edges = [bench.edge(name, bench.trainer()) for name in ("edge-1", "edge-2")]
    assert [process.wait() for process in (coordinator, *edges)] == [0, 0, 0], coordinator.stderr
    assert f"results: {out}" in coordinator.stderr
    assert len(rows(out / "metrics-sites.csv")) == 4
    assert [row["round"] for row in rows(out / "metrics.csv")] == ["1", "2"]
    assert (out / "metrics.png").exists()
    assert weights(out / "global_model.pkl") == pytest.approx([2 * STEP] * 4)
    assert weights(bench.work / got(bench)) == pytest.approx([2 * STEP] * 4)
    shown = bench.done("flavor", "status").stdout
    assert [bench.run, "finished", "2", "of", "2"] in [line.split()[:5] for line in shown.splitlines()]


def test_a_coordinator_never_mixes_two_runs_in_a_folder(bench, out):
    """The second run's summary named the first one's models and metrics, without a word."""
    first = bench.serve("--out", out, rounds=1, clients=1)
    bench.aggregator()
    edge = bench.edge("edge-1", bench.trainer())
    assert [process.wait() for process in (first, edge)] == [0, 0], first.stderr
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert bench.serve("--out", out, rounds=1, clients=1).wait() == 0, "the run's own folder"
    words = ["--store", bench.store, "--rounds", 1, "--min-clients", 1, "--out", out]
    other = bench.done("flavor", "serve", "--run", f"{bench.run}-2", *words)
    assert (other.wait(), other.stderr.count("\n")) == (2, 1), other.stderr
    assert f"--out {out} holds the results of run {bench.run!r}: name another folder" in other.stderr
    assert bench.done("flavor", "rm", bench.run, "--objects", "--store", bench.store).wait() == 0
    again = bench.done("flavor", "serve", "--run", bench.run, *words)
    assert (again.wait(), "holds the results of an earlier run" in again.stderr) == (2, True), again.stderr
    assert bench.runs.find() is None
    mine = local(bench, out)
    assert (mine.wait(), "holds the results of run" in mine.stderr) == (2, True), mine.stderr
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == kept


def got(bench):
    done = bench.done("flavor", "get", bench.run)
    assert done.wait() == 0, done.stderr
    return done.stdout.strip()


GREETER = """
import os, pickle, numpy as np
from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent
SetEvent("TrainInitDone")
for epoch in range(int(os.environ["TOTAL_ROUNDS"])):
    WaitEvent("TrainStarted")
    with open(os.environ["LOCAL_MODEL_PATH"], "wb") as file:
        pickle.dump({"state_dict": {"w": np.zeros(3, np.float32)}}, file)
    metrics = {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")}
    auc = float("nan") if os.environ["FLAVOR_CLIENT"] == "edge-1" else 0.75
    SaveInfoJson({
        "metadata": {"epoch": epoch, "datasetSize": 10, "importance": 1.0},
        "metrics": {**metrics, "Gr\\u00fc\\u00dfe": 0.5, "auc": auc},
    })
    SetEvent("TrainFinished")
"""


def test_a_failed_run_whose_results_cannot_be_written_says_how_it_ended_and_goes_on(bench, out):
    table = out / "metrics.csv"
    words = ["-m", bench.trainer("--fail", "exit3", "--at", 2), "-p", f"sh -c 'rm -f {table}; mkdir {table}'"]
    words += ["--run", bench.run, "--out", out, "--rounds", 2, "--edges", 1]
    failed = bench.done("flavor", "run", *words, env=LOCAL)  # as a full disk, the folder takes no table
    assert failed.wait() == 1
    assert f"not all results could be written into {out}: " in failed.stderr
    for told in ("failed: round 2: ", f"everything:    {out}", f"go on with it: flavor run --resume {out}"):
        assert told in failed.stderr


def test_what_a_site_and_its_run_say_of_a_failure_stands_there_once(bench, out):
    failed = local(bench, out, "--fail", "exit3", "--at", 0, "--only", "edge-2")
    assert failed.wait() == 1
    told = [line for line in failed.stderr.splitlines() if line.startswith("edge-2: ")]
    assert len(told) == 1, failed.stderr
    assert "cannot read the data set" in told[0]
    assert told[0].endswith(f"; its log: {out}/logs/edge-2.log")
    assert told[0].startswith(
        'edge-2: "its trainer ended before TrainInitDone (exit code 3)": cannot read the data set'
    )


def test_a_failed_run_goes_on_with_the_options_that_its_end_names(bench, out):
    failed = local(bench, out, "--fail", "exit3", "--at", 0, "--only", "edge-2", rounds=1)
    assert failed.wait() == 1
    options = failed.stderr.rpartition("or at once with ")[2].partition(", without edge-2, if the other site does not")[
        0
    ]
    assert options == "--min-clients 1", failed.stderr
    again = bench.done("flavor", "run", "--resume", out, *options.split(), env=LOCAL)
    assert again.wait() == 0, again.stderr


def test_no_options_are_named_where_all_sites_failed_and_a_mended_command_goes_on(bench, out):
    words = ["-m", f"{sys.executable} no-such.py", "--out", out, "--rounds", 1, "--edges", 1, "--devices", "1"]
    shown = {**LOCAL, "CUDA_VISIBLE_DEVICES": "4,5"}
    failed = bench.done("flavor", "run", *words, env=shown)
    assert failed.wait() == 1
    assert "or at once" not in failed.stderr
    assert '-m "COMMAND" names another script' in failed.stderr
    hidden = bench.done("flavor", "run", "--resume", out, env={**LOCAL, "CUDA_VISIBLE_DEVICES": "4"})
    assert (hidden.wait(), "there is no device 1: CUDA_VISIBLE_DEVICES=4 shows 1 device" in hidden.stderr) == (2, True)
    again = bench.done("flavor", "run", "--resume", out, "-m", bench.trainer(), env=shown)
    assert again.wait() == 0, again.stderr
    assert "GPUs: edge-1 on device 1" in again.stderr
    late = bench.done("flavor", "run", "--resume", out, "-m", bench.trainer(), "--rounds", 2, env=LOCAL)
    assert (late.wait(), "--main: a round has closed with the command" in late.stderr) == (2, True), late.stderr


def test_a_script_that_leaves_no_round_is_told_how_it_goes_on(bench, out):
    script = bench.work / "once.py"
    script.write_text("from flavor.cook.utils import SetEvent\nSetEvent('TrainInitDone')\n")
    words = ["-m", f"{sys.executable} {script}", "--out", out, "--rounds", 1, "--edges", 1]
    failed = bench.done("flavor", "run", *words, env=LOCAL)
    assert failed.wait() == 1
    assert "then in each round WaitEvent('TrainStarted'), training, SetEvent('TrainFinished')" in failed.stderr


def test_the_name_of_a_local_run_leads_to_its_folder(bench):
    (bench.work / "flavor-runs" / "xray").mkdir(parents=True)
    for words, told in [
        (["get", "xray"], "name its result folder, flavor-runs/xray, or pass one"),
        (["status", "flavor-runs"], "flavor-runs is no result folder of `flavor run` (flavor-runs/NAME)"),
    ]:
        refused = bench.done("flavor", *words, env=LOCAL)
        assert (refused.wait(), told in refused.stderr) == (2, True), refused.stderr


def test_a_finished_run_says_what_frees_its_name(bench):
    coordinator = bench.serve(rounds=1, clients=1)
    bench.aggregator()
    bench.edge("c1", bench.trainer())
    assert coordinator.wait() == 0, coordinator.stderr
    again = bench.serve(rounds=2, clients=1)
    assert (again.wait(), f"`flavor rm {bench.run} --objects`" in again.stderr) == (2, True), again.stderr
    assert bench.done("flavor", "rm", bench.run).wait() == 0
    left = bench.serve(rounds=2, clients=1)
    assert (left.wait(), f"`flavor rm {bench.run} --objects` removes what" in left.stderr) == (1, True), left.stderr
    assert bench.done("flavor", "rm", bench.run, "--objects", "--store", bench.store).wait() == 0
    bench.serve(rounds=2, clients=1).until("is open for clients")


def test_a_folder_that_has_no_plot_says_why(tmp_path):
    folder = ResultFolder(tmp_path, print)
    assert folder.lacks_plot() == "", "of no round there is none"
    folder.rounds.append(RoundResult(1, 0.1, ["a"], 1, 1, {}))
    assert "pip install '.[plot]'" in folder.lacks_plot()
    (tmp_path / "metrics.png").touch()
    assert folder.lacks_plot() == ""


def test_letters_that_a_terminal_lacks_and_values_that_are_missing_end_nothing(bench, out):
    script = bench.work / "greeter.py"
    script.write_text(GREETER, encoding="utf-8")
    ascii_only = {**LOCAL, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = ["-m", f"{sys.executable} {script}", "--out", out, "--rounds", 1, "--edges", 2]
    done = bench.done("flavor", "run", *words, env=ascii_only)
    assert done.wait() == 0, done.stderr
    assert "Gr??e 0.5" in done.stderr
    assert rows(out / "metrics.csv")[0]["Grüße"] == "0.5"
    assert [row["auc"] for row in rows(out / "metrics-sites.csv")] == ["", "0.75"]
    shown = bench.done("flavor", "status", out, "--metric", "auc", env=ascii_only)
    assert shown.wait() == 0, shown.stderr
    assert "auc 0.75 of 1 of 2 sites (best: 0.75 of 1 of 2 sites, reported in round 1, the first" in shown.stdout
    assert ", Gr" in shown.stdout
    sites = [line.split() for line in shown.stdout.splitlines() if line.startswith("edge-")]
    assert [(words[1], words[-1]) for words in sites] == [("done", "-"), ("done", "0.75")]
