"""A user's aggregator: started anew or once, what it may leave, how it fails, who keeps it."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pages import on_path
from safetensors.numpy import load_file

from flavor.bus.keys import RunKeys
from flavor.bus.lease import LeaseKeeper
from flavor.errors import AggregatorFailed, BusUnavailable
from flavor.programs.aggregator import UserAggregator
from flavor.programs.aggregator_folder import AggregatorFolder
from flavor.records.states import RoundState, RunState
from flavor.store.open import open_store
from flavor.store.paths import update_prefix
from flavor.view.observer import Silent
from tests.infos import put_info
from tests.polled import START_PAUSE_S
from workers.resident import Resident
from workers.residents import Residents

TOY = Path(__file__).with_name("toy_aggregator.py")
STEP = (10 * 1 + 20 * 2) / 30
"""What a round of the clients 1 and 2 of the toy trainer adds to every weight: their weighted mean."""
DOC = Path(__file__).parents[2] / "docs" / "aggregators.md"
SECRET = "hunter2-never-shown"


def toy(*flags: object) -> str:
    return " ".join([sys.executable, str(TOY), *map(str, flags)])


class Federation:
    """Edges, a coordinator and workers with an aggregator of their own."""

    def __init__(self, bench, own, *flags, once=False, workers=1, clients=2, serve=(), rounds=3, trainer=(), env=None):
        self.bench = bench
        self.coordinator = bench.serve(*serve, rounds=rounds, clients=clients)
        words = ["-m", own, *(["--init-once"] if once else []), *flags]
        self.workers = [
            bench.start(
                "flavor-agg",
                *("--queue", bench.run, "--store", bench.store, "--workspace", bench.folder / f"agg-{number}", *words),
                env=env,
            )
            for number in range(workers)
        ]
        for worker in self.workers:
            worker.until("listens")
        self.edges = [bench.edge(f"c{number}", bench.trainer(*trainer)) for number in range(1, clients + 1)]

    def finished(self) -> np.ndarray:
        """The final weights of a run that ended well."""
        assert self.coordinator.wait() == 0, self.coordinator.stderr
        for edge in self.edges:
            assert edge.wait() == 0, edge.stderr
        with (self.bench.folder / "c1" / "global" / "model.ckpt").open("rb") as file:
            return pickle.load(file)["state_dict"]["w"]

    def count(self, name: str, worker: int = 0) -> int:
        path = self.bench.folder / f"agg-{worker}" / self.bench.run / "output" / name
        return len(path.read_text()) if path.exists() else 0

    def failures(self) -> list[str]:
        return [entry["reason"] for entry in self.bench.log() if entry["event"] == "round.attempt_failed"]


def kept(bench) -> list[str]:
    """The aggregators' processes that live."""
    return [words for words in bench.survivors().values() if "toy_aggregator" in words and "flavor.cli" not in words]


def aggregated_three_rounds(run: Federation, starts: int) -> None:
    np.testing.assert_allclose(run.finished(), 3 * STEP, rtol=1e-6)
    assert (run.count("starts"), run.count("rounds")) == (starts, 3)
    assert run.failures() == []
    left = sorted(path.name for path in (run.bench.folder / "agg-0" / run.bench.run).iterdir())
    assert left == ["logs", "output"]  # the rounds' own folders are gone


def test_it_does_not_run_where_the_run_asks_for_what_it_would_not_do(bench):
    run = Federation(bench, toy(), serve=["--keep", "*.labels", "--aggregation-attempts", 1], rounds=1)
    assert run.coordinator.wait() == 1
    (failure,) = run.failures()
    assert "--keep is for the rules here: an aggregator of your own keeps tensors itself: leave it out" in failure
    assert run.count("starts") == 0


def test_compressed_updates_are_whole_models_again(bench):
    """Each of three clients has a format of its own; what each sends on top of a global model is the next one, once."""
    show = bench.work / "copy.py"
    show.write_text(
        "import os, pathlib, shutil\nfrom flavor.cook.utils import GetPaths\n"
        "rounds = pathlib.Path(os.environ['OUTPUT_PATH'], 'rounds')\n"
        "rounds.write_text(rounds.read_text() + 'x' if rounds.exists() else 'x')\n"
        "number = min(max(0, len(rounds.read_text()) - 2), 2)\n"
        "shutil.copy(GetPaths('localModels')[number], GetPaths('globalModel')[0])\n"
    )
    formats = ["--format", "c1:pickle,c2:npz,c3:safetensors"]
    own = f"{sys.executable} {show}"
    run = Federation(bench, own, serve=["--compress", "bf16"], trainer=formats, rounds=4, clients=3)
    assert run.coordinator.wait() == 0, run.coordinator.stderr
    assert run.failures() == []
    made = bench.runs.read().global_model
    np.testing.assert_allclose(load_file(bench.store / made.model.path)["w"], 7.0)  # client 1, and then each of them


@pytest.mark.parametrize("once", [False, True])
def test_the_documented_examples(bench, once):
    """Both programs of docs/aggregators.md, as printed, with a torch trainer, against the closed form."""
    blocks = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    program = bench.work / "aggregate.py"
    program.write_text(blocks[0] + "\n\n" + blocks[2 if once else 1] + "\n\nmain()\n")
    trainer = bench.work / "train.py"
    trainer.write_text(TORCH_TRAINER)
    words = ["--run", bench.run, "--out", bench.folder / "out", "--edges", 2, "--rounds", 2]
    own = ["-am", f"{sys.executable} {program}", *(["--init-once"] if once else [])]
    words = ["run", "-m", f"{sys.executable} {trainer}", *words, *own, "--json"]
    process = bench.done("flavor", *words, timeout_s=90, libraries=["torch._dynamo"])
    assert process.wait() == 0, process.stderr + process.stdout
    import torch

    found = torch.load(json.loads(process.stdout)["global_model"], weights_only=True)["state_dict"]
    torch.testing.assert_close(found["w"], torch.full((2, 3), 2 * STEP))
    assert found["bn.num_batches_tracked"].equal(torch.tensor(4)), "5 / 3 in each round, rounded"


TORCH_TRAINER = """
import os
import torch
from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

me = int(os.environ["FLAVOR_CLIENT"][-1])
confusion = dict.fromkeys(("basic/confusion_tp", "basic/confusion_fp", "basic/confusion_fn", "basic/confusion_tn"), -1)
SetEvent("TrainInitDone")
state = {"w": torch.zeros(2, 3), "bn.num_batches_tracked": torch.tensor(0)}
for epoch in range(int(os.environ["TOTAL_ROUNDS"])):
    WaitEvent("TrainStarted")
    if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):
        state = torch.load(os.environ["GLOBAL_MODEL_PATH"])["state_dict"]
    torch.save({"state_dict": {name: each + me for name, each in state.items()}}, os.environ["LOCAL_MODEL_PATH"])
    SaveInfoJson({"metadata": {"epoch": epoch, "datasetSize": 10 * me, "importance": 1.0}, "metrics": confusion})
    SetEvent("TrainFinished")
"""


FAILURES = {
    "exit3": ["exit code 3", "cannot average these"],
    "flood": ["exit code 1", "the last words"],
    "nothing": ["was not written", "saved it, I think"],
    "empty": ["globalModel", "is empty"],
    "nan": ["cannot be used", "NaN"],
    "shape": ["cannot be used", "shape"],
    "missing": ["cannot be used", "'other' is not in the local models"],
    "garbage": ["cannot be used", "not a checkpoint"],
    "info": ["globalInfo", "neither a number"],
    "hang": ["still running after 10 s (--aggregation-timeout-s)", "thinking"],
}


@pytest.mark.parametrize("once", [False, True])
def test_a_failed_attempt_says_why_and_is_repeated(bench, once):
    """All in the second round, whose last attempt works, and writes a flood that disturbs nobody.

    The limit is for every attempt, also for one whose process starts slowly.
    """
    own = toy("--fail", ",".join([*FAILURES, "flood-and-work"]), *(["--once"] if once else []))
    limits = ["--aggregation-attempts", len(FAILURES) + 1, "--aggregation-timeout-s", 10]
    run = Federation(bench, own, once=once, rounds=2, serve=limits)
    np.testing.assert_allclose(run.finished(), 2 * STEP, rtol=1e-6)
    assert len(run.failures()) == len(FAILURES)
    for reason, told in zip(run.failures(), FAILURES.values(), strict=True):
        for text in told:
            assert text in reason
    assert run.count("rounds") == 2 + len(FAILURES)
    # What failed is not trusted with the next attempt.
    assert run.count("starts") == (1 if once else 2) + len(FAILURES)
    restarts = [entry["reason"] for entry in bench.log() if entry["event"] == "aggregator.restarted"]
    assert len(restarts) == (len(FAILURES) if once else 0)


def test_attempts_are_counted_and_then_the_run_fails(bench):
    run = Federation(bench, toy("--fail", "exit3", "--at", 0), serve=["--aggregation-attempts", 2])
    assert run.coordinator.wait() == 1
    assert "attempt 2 of 2" in run.coordinator.stderr
    assert "cannot average these" in run.coordinator.stderr
    assert run.count("rounds") == 2


SHELL = """
set -e
echo start >> "$OUTPUT_PATH/starts"
while flavor event wait AggregateStarted; do
    cp "$(head -n 1 "$OUTPUT_PATH/localModels")" "$(cat "$OUTPUT_PATH/globalModel")"
    echo round >> "$OUTPUT_PATH/rounds"
    flavor event set DONE
    test -e "$OUTPUT_PATH/asked" || ! flavor event is-set AggregateStarted || echo again >> "$OUTPUT_PATH/rounds"
    echo asked >> "$OUTPUT_PATH/asked"
done
"""


@pytest.mark.parametrize("done", ["AggregateFinished", "ProcessFinished"])
def test_a_loop_of_a_process_for_each_event_gets_each_round_once(bench, done):
    """`flavor event wait` is a process that remembers nothing: what is behind it is what is recorded."""
    (bench.work / "aggregate.sh").write_text(SHELL.replace("DONE", done))
    command, programs = f"sh {bench.work}/aggregate.sh", on_path(bench.folder / "programs")
    run = Federation(bench, command, once=True, rounds=3, trainer=["--hold", "--at", 2], env=programs)
    output = bench.folder / "agg-0" / bench.run / "output"
    for client in ("c1", "c2"):
        bench.held(client)
    bench.eventually("it asks for the next round", (output / "asked").exists)
    bench.release("c1", "c2")
    np.testing.assert_allclose(run.finished(), 3.0)  # client 1, three times
    assert [(output / name).read_text().count("\n") for name in ("starts", "rounds")] == [1, 3]
    assert run.failures() == []
    assert [entry for entry in bench.log() if entry["event"] == "aggregator.restarted"] == []


def test_events_of_one_that_is_started_anew(bench):
    """ProcessFinished is what its end says, too; the other events are refused with the words of check-agg."""
    program = bench.work / "aggregate.py"
    program.write_text(
        "import pathlib, runpy, os\nfrom flavor.cook.utils import SetEvent\n"
        f"runpy.run_path({str(TOY)!r}, run_name='__main__')\n"
        "again = pathlib.Path(os.environ['OUTPUT_PATH'], 'rounds').read_text() != 'x'\n"
        "SetEvent('ProcessFinished' if again else 'AggregateFinished')\n"
    )
    run = Federation(bench, f"{sys.executable} {program}", rounds=2)
    np.testing.assert_allclose(run.finished(), 2 * STEP, rtol=1e-6)
    (reason,) = run.failures()
    assert "SetEvent('AggregateFinished'): an aggregator that is started anew in each round has no events" in reason
    assert "--init-once" in reason
    assert "flavor-fl" not in reason


# -- who keeps the process


def test_a_dead_process_is_started_again(bench):
    run = Federation(bench, toy("--once", "--fail", "die-after", "--at", 1), once=True)
    np.testing.assert_allclose(run.finished(), 3 * STEP, rtol=1e-6)
    assert (run.count("starts"), run.count("rounds")) == (2, 3)
    assert run.failures() == []
    (said,) = [entry for entry in bench.log() if entry["event"] == "aggregator.restarted"]
    assert said["round"] == "2"
    assert "is started again: the aggregator ended after round 1 (exit code 0)" in said["reason"]
    assert "what it kept in memory is gone" in run.workers[0].stderr


def test_one_of_several_workers_keeps_the_process_and_another_takes_over_when_it_is_killed(bench):
    run = Federation(
        *(bench, toy("--once")),
        once=True,
        workers=3,
        rounds=12,
        serve=["--aggregation-lease-s", 1],
        trainer=["--hold", "--at", 10],
    )
    for client in ("c1", "c2"):
        bench.held(client)
    keeper = next(worker for worker in range(3) if run.count("starts", worker))
    others = [worker for worker in range(3) if worker != keeper]
    assert (run.count("starts", keeper), run.count("rounds", keeper)) == (1, 9)
    assert [run.count(name, worker) for name in ("starts", "rounds") for worker in others] == [0, 0, 0, 0]
    run.workers[keeper].send(signal.SIGKILL)
    run.workers[keeper].wait()
    bench.release("c1", "c2")
    np.testing.assert_allclose(run.finished(), 12 * STEP, rtol=1e-5)
    assert sorted(run.count("starts", worker) for worker in others) == [0, 1]
    assert sorted(run.count("rounds", worker) for worker in others) == [0, 3]
    assert (run.count("starts", keeper), run.count("rounds", keeper)) == (1, 9)
    assert kept(bench) == []


def test_the_process_ends_with_its_run_and_with_its_worker(bench):
    run = Federation(bench, toy("--once"), once=True, serve=["--aggregation-lease-s", 0.5])
    aggregated_three_rounds(run, starts=1)
    bench.eventually("the process ends with the run", lambda: not kept(bench))
    bench.eventually("its place is free", lambda: not bench.redis.exists(bench.runs.keys.aggregator))
    run.workers[0].send(signal.SIGTERM)
    assert run.workers[0].wait() == 0
    assert list(bench.redis.scan_iter(f"rq:queue:{bench.run}@*")) == []


def test_a_worker_that_is_stopped_ends_its_process(bench):
    run = Federation(bench, toy("--once"), once=True, trainer=["--hold", "--at", 2])
    bench.held("c1")
    assert run.count("starts") == 1
    run.workers[0].send(signal.SIGTERM)
    assert run.workers[0].wait() == 0
    assert kept(bench) == []
    bench.release("c1", "c2")


SLOW_TO_END = """
import signal
from flavor.cook.utils import SetEvent, WaitEvent

WaitEvent("AggregateStarted")
SetEvent("AggregateFinished")
signal.pause()
"""


class IdleKeeper(LeaseKeeper):
    """One whose thread is not there, so that none outlives its test either."""

    def start(self) -> None:
        pass


@pytest.fixture
def residents(bench, monkeypatch):
    """Those of a worker whose lease keepers do nothing by themselves: the tests do it for them."""
    monkeypatch.setattr("workers.residents.LeaseKeeper", IdleKeeper)
    monkeypatch.setenv("PYTHONPATH", bench.env["PYTHONPATH"])
    program = bench.work / "slow_to_end.py"
    program.write_text(SLOW_TO_END)
    aggregator = UserAggregator((sys.executable, str(program)), bench.folder / "agg")
    found = Residents(aggregator, "home", run=lambda run: bench.runs, observer=Silent())
    yield found
    found.close()


def job(bench):
    return SimpleNamespace(run=bench.run, round=1)


def test_a_job_whose_process_is_lost_on_the_way_fails_its_attempt(bench, residents):
    residents.elsewhere(bench.run, 1, 60.0)
    with residents.folder(bench.run) as folder:
        loses = threading.Thread(target=residents._lost, args=[bench.run])
        loses.start()
        bench.eventually("it is lost", lambda: bench.run not in residents._kept)
        with pytest.raises(AggregatorFailed, match="no longer keeps"):
            residents(job(bench), folder)
        residents.discard(bench.run)
        os.fstat(folder.lock)  # the job has its folder to its end
    loses.join(20)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(folder.lock)
    with pytest.raises(AggregatorFailed, match="no longer keeps"), residents.folder(bench.run):
        pass


def test_a_job_that_reaches_a_process_as_it_is_closed_fails_its_attempt(bench, residents):
    residents.elsewhere(bench.run, 1, 60.0)
    on_the_way = residents.folder(bench.run)
    residents._lost(bench.run)
    with pytest.raises(AggregatorFailed, match="no longer keeps"), on_the_way:
        pass


def test_the_end_of_a_worker_waits_for_a_keeper_that_ends_a_process(bench, residents, monkeypatch):
    monkeypatch.setattr("workers.resident._END_S", 2.0)
    residents.elsewhere(bench.run, 1, 60.0)
    with residents.folder(bench.run) as folder:
        residents(job(bench), folder)
    state, bus = RunKeys(bench.run).state, residents._bus.redis
    keeper = threading.Thread(target=residents._look, args=[bench.run])  # the run is not there
    keeper.start()
    bench.eventually("it is told to end", lambda: bus.hget(state, "state") == RunState.STOPPED)
    residents.close()
    assert not bench.redis.exists(bench.runs.keys.aggregator)
    keeper.join(20)
    assert not keeper.is_alive()


def test_a_folder_is_left_once_when_two_threads_end_its_process(bench, residents, monkeypatch):
    end, leave, left = Resident.end, AggregatorFolder.close, []
    ended, again = threading.Event(), threading.Event()

    def end_and_stand_still(resident, state, reason):
        found = end(resident, state, reason)
        if ended.is_set():
            again.set()
        else:
            ended.set()
            again.wait(1.0)  # for another thread that does the same; none should
        return found

    def close(folder):
        left.append(folder.lock)
        if len(left) == 1:
            leave(folder)

    monkeypatch.setattr(Resident, "end", end_and_stand_still)
    monkeypatch.setattr(AggregatorFolder, "close", close)
    residents.elsewhere(bench.run, 1, 60.0)
    with residents.folder(bench.run):
        pass
    keeper = threading.Thread(target=residents._look, args=[bench.run])
    keeper.start()
    assert ended.wait(20)
    residents.close()
    keeper.join(20)
    assert len(left) == 1


def test_a_run_is_kept_anew_only_after_its_end(bench, residents, monkeypatch):
    ended, go = threading.Event(), threading.Event()
    end = Resident.end

    def slowly(resident, state, reason):
        ended.set()
        go.wait(20)
        return end(resident, state, reason)

    monkeypatch.setattr(Resident, "end", slowly)
    residents.elsewhere(bench.run, 1, 60.0)
    keeper = threading.Thread(target=residents._look, args=[bench.run])
    keeper.start()
    assert ended.wait(20)
    threading.Timer(0.3, go.set).start()
    assert residents.elsewhere(bench.run, 1, 60.0) is None
    assert go.is_set()
    keeper.join(20)
    assert bench.redis.get(bench.runs.keys.aggregator) == "home"


def test_a_worker_without_a_server_of_its_own_keeps_no_lease(bench, residents, monkeypatch):
    def broken():
        raise BusUnavailable("no server")

    monkeypatch.setattr("workers.residents.PrivateBus", broken)
    with pytest.raises(BusUnavailable):
        residents.elsewhere(bench.run, 1, 60.0)
    assert not bench.redis.exists(bench.runs.keys.aggregator)


# -- what it sees


def test_it_aggregates_every_round_and_sees_nothing_of_the_workers_own(bench):
    show = bench.work / "show.py"
    show.write_text(
        "import json, os, pathlib, runpy\n"
        "pathlib.Path(os.environ['OUTPUT_PATH'], 'seen.json').write_text(json.dumps(dict(os.environ)))\n"
        f"runpy.run_path({str(TOY)!r}, run_name='__main__')\n"
    )
    env = {"FLAVOR_TOKEN": SECRET, "TEST_DB_PASSWORD": SECRET, "TEST_SETTING": "7"}
    run = Federation(bench, f"{sys.executable} {show}", "--env", "TEST_SETTING", env=env)
    aggregated_three_rounds(run, starts=3)
    text = (bench.folder / "agg-0" / bench.run / "output" / "seen.json").read_text()
    seen = json.loads(text)
    assert seen["TEST_SETTING"] == "7"
    assert SECRET not in text
    assert bench.url not in text
    assert {name for name in seen if name.startswith("FLAVOR_")} == {"FLAVOR_ROLE", "FLAVOR_RUN"}


def test_its_image_and_its_folders_are_its_own(bench):
    """As in the Dockerfile of the guide: ENV of the image, its folders, and files with a path a line."""
    env = {"OUTPUT_PATH": str(bench.folder / "out put"), "LOG_PATH": str(bench.folder / "log"), "TEST_FACTOR": "2"}
    show = bench.work / "aggregate.sh"
    show.write_text(
        'set -e\ntest "$TEST_FACTOR" = 2\ntest ! -e "$OUTPUT_PATH/globalInfos"\n'
        'echo "$LOG_PATH" > "$OUTPUT_PATH/seen"\n'
        'test "$(wc -l < "$OUTPUT_PATH/localModels")" = 2\n'
        'while read -r path; do test -s "$path"; last=$path; done < "$OUTPUT_PATH/localModels"\n'
        'cp "$last" "$(cat "$OUTPUT_PATH/globalModel")"\n'
    )
    run = Federation(bench, f"sh {show}", rounds=2, env=env)
    np.testing.assert_allclose(run.finished(), 4.0)  # client 2, twice
    assert (bench.folder / "out put" / "seen").read_text() == env["LOG_PATH"] + "\n"
    assert (bench.folder / "log" / "aggregator.log").exists()
    second = bench.done("flavor-agg", "--queue", "other", "--store", bench.store, "-m", f"sh {show}", env=env)
    assert second.wait() == 2
    assert "OUTPUT_PATH" in second.stderr
    assert "another flavor-agg" in second.stderr


# -- runs and workers that do not go together


def test_a_run_with_a_rule_is_not_aggregated_by_a_command(bench):
    run = Federation(bench, toy(), serve=["--aggregator", "median", "--aggregation-attempts", 1])
    assert run.coordinator.wait() == 1
    assert "--aggregator median" in run.coordinator.stderr
    assert "-m" in run.coordinator.stderr
    assert run.count("starts") == 0


def test_a_run_that_began_with_the_rules_is_not_switched_to_a_command(bench):
    """As a worker that is started again with -m would; the operator reads why the run waits, and the way back."""
    coordinator = bench.serve(rounds=2)
    plain = bench.aggregator()
    edges = [bench.edge(f"c{number}", bench.trainer("--hold", "--at", 2)) for number in (1, 2)]
    for client in ("c1", "c2"):
        bench.held(client)
    plain.send(signal.SIGTERM)
    plain.wait()
    words = ["--queue", bench.run, "--store", bench.store, "--workspace", bench.folder / "agg-0", "-m", toy()]
    other = bench.start("flavor-agg", *words)
    bench.release("c1", "c2")
    other.until("round 1 of run")
    assert "was aggregated by a worker without -m, and this worker has an aggregator of its own (-m)" in other.stderr
    told = "was aggregated by a worker without -m"
    bench.eventually("the operator is told", lambda: told in status(bench), pause_s=START_PAUSE_S)
    bench.aggregator()
    assert coordinator.wait() == 0, coordinator.stderr
    assert [edge.wait() for edge in edges] == [0, 0]
    assert not [entry for entry in bench.log() if entry["event"] == "round.attempt_failed"]
    assert not list((bench.folder / "agg-0").glob("*/output/starts"))


def status(bench) -> str:
    return bench.done("flavor", "status", bench.run, "--json").stdout


@pytest.mark.parametrize(
    ("options", "consent"), [(["--aggregator", "command"], []), (["--checkpoint", "opaque"], ["--opaque"])]
)
def test_a_run_that_needs_a_command_says_so_without_one(bench, options, consent):
    coordinator = bench.serve(*options, "--aggregation-attempts", 1)
    bench.aggregator()
    for client in ("c1", "c2"):
        bench.edge(client, bench.trainer(), *consent)
    assert coordinator.wait() == 1
    assert "flavor-agg -m" in coordinator.stderr


@pytest.mark.parametrize(
    ("program", "words", "told"),
    [
        ("flavor-agg", ["--init-once"], ["--init-once", "-m CMD"]),
        ("flavor-agg", ["-m", "no-such-program x"], ["no-such-program"]),
        ("flavor-agg", ["-m", "'"], ["-m", "quotation"]),
        ("flavor", ["run", "-m", "true", "--edges", 1, "--checkpoint", "opaque"], ["--aggregator-main"]),
        ("flavor", ["run", "-m", "true", "--edges", 1, "--aggregator", "command"], ["--aggregator-main"]),
        ("flavor", ["run", "-m", "true", "--edges", 1, "--init-once"], ["--init-once", "--aggregator-main"]),
        (
            "flavor",
            ["run", "-m", "true", "--edges", 1, "-am", "true", "--aggregator", "median"],
            ["--aggregator-main", "--aggregator median"],
        ),
        ("flavor", ["run", "-m", "true", "--edges", 1, "-am", "true", "--server-step", "adam"], ["--server-step"]),
        ("flavor", ["run", "-m", "true", "--edges", 1, "-am", "gone"], ["--aggregator-main", "gone"]),
        (
            "flavor",
            ["run", "-m", "true", "--edges", 1, "--checkpoint", "opaque", "--aggregator", "median"],
            ["'median'", "opaque", "of your own"],
        ),
        (
            "flavor",
            ["run", "-m", "true", "--edges", 1, "--aggregator", "command", "--server-step", "adam"],
            ["--server-step"],
        ),
    ],
)
def test_options_that_do_not_go_together(bench, program, words, told):
    process = bench.done(program, *words, *(["--store", bench.store] if program == "flavor-agg" else []))
    assert process.wait() == 2, process.stderr
    last = process.stderr.strip().splitlines()[-1]
    for text in told:
        assert text in last


# -- opaque checkpoints

OPAQUE_TRAINER = """
import os, pathlib
from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

confusion = dict.fromkeys(("basic/confusion_tp", "basic/confusion_fp", "basic/confusion_fn", "basic/confusion_tn"), -1)
SetEvent("TrainInitDone")
for epoch in range(int(os.environ["TOTAL_ROUNDS"])):
    WaitEvent("TrainStarted")
    path = pathlib.Path(os.environ["GLOBAL_MODEL_PATH"])
    so_far = path.read_bytes() if path.exists() else b""
    own = os.environ["FLAVOR_CLIENT"].encode() + bytes([0, 255, 10])
    pathlib.Path(os.environ["LOCAL_MODEL_PATH"]).write_bytes(so_far + own)
    SaveInfoJson({"metadata": {"epoch": epoch, "datasetSize": 1, "importance": 1.0}, "metrics": confusion})
    SetEvent("TrainFinished")
"""
OPAQUE_AGGREGATOR = """
from flavor.cook.utils import GetPaths

parts = [open(path, "rb").read() for path in GetPaths("localModels")]
open(GetPaths("globalModel")[0], "wb").write(b"|".join(parts))
"""


@pytest.mark.parametrize("started", [b"", b"\\x00pre-trained"])
def test_opaque_checkpoints_are_carried_untouched(bench, started):
    (bench.work / "train.py").write_text(OPAQUE_TRAINER)
    (bench.work / "aggregate.py").write_text(OPAQUE_AGGREGATOR)
    words = ["--run", bench.run, "--out", bench.folder / "out", "--edges", 2, "--rounds", 2, "--checkpoint", "opaque"]
    if started:
        (bench.work / "start").write_bytes(started)
        words += ["--init-model", bench.work / "start"]
    process = bench.done(
        *("flavor", "run", "-m", f"{sys.executable} train.py", "-am", f"{sys.executable} aggregate.py", "--json"),
        *words,
    )
    assert process.wait() == 0, process.stderr + process.stdout
    result = json.loads(process.stdout)

    def joined(before: bytes) -> bytes:
        return b"|".join(before + f"edge-{number}".encode() + bytes([0, 255, 10]) for number in (1, 2))

    first, second = joined(started), joined(joined(started))
    assert Path(result["global_model"]).read_bytes() == second
    assert (bench.folder / "out" / "global" / "round-0001.ckpt").read_bytes() == first
    for client in ("edge-1", "edge-2"):
        assert (bench.folder / "out" / "clients" / client / "global" / "model.ckpt").read_bytes() == second


def test_a_client_that_names_another_format_is_refused(bench):
    """The format is what every edge would write the global model in: a client may not make one up."""
    coordinator = bench.serve("--quorum", 1, rounds=1, clients=1)
    bench.aggregator()
    edge = bench.edge("c1", bench.trainer("--hold", "--at", 1))
    bench.held("c1")
    key, prefix, store = (
        bench.runs.keys.client("c1").update(1),
        update_prefix(bench.run, 1, "c1"),
        open_store(str(bench.store)),
    )
    with bench.redis.pipeline(transaction=True) as step:  # what a hostile edge would write
        step.hset(key, mapping={"path": f"{prefix}update-x", "format": "exe", **put_info(store, prefix, INFO)})
        step.publish(key, "1")
        step.execute()
    assert "checkpoint format 'exe'" in bench.logged("update.refused")["reason"]
    edge.end()
    coordinator.end()
    view = bench.runs.read_round(1)
    assert view.state is not RoundState.CLOSED


INFO = {
    "metadata": {"epoch": 1, "datasetSize": 1, "importance": 1.0},
    "metrics": dict.fromkeys(
        ("basic/confusion_tp", "basic/confusion_fp", "basic/confusion_fn", "basic/confusion_tn"), -1
    ),
}
