"""Rows 17 to 19, 21 and 22: aggregators that die in whole or in part, do the same work twice, or take too long.

Jobs run in the worker's own process; what RQ calls a horse is here a user's command, the child of a worker.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from pathlib import Path

from federation import TAKEN_OVER

from flavor.bus.jobs import RqJobQueue

TOY = Path(__file__).parents[1] / "integration" / "toy_aggregator.py"
SILENT = "its aggregator stopped without a word"


def aggregator(faulty, command: str):
    """A worker with this command, which the test will find among its survivors."""
    return faulty.bench.aggregator("-m", command, "--env", "FLAVOR_TEST_TAG")


def toy(*flags: object) -> str:
    return shlex.join([sys.executable, str(TOY), *map(str, flags)])


def commands(bench) -> list[int]:
    """The processes of users' aggregators that run."""
    return [
        pid for pid, command in bench.survivors().items() if "toy_aggregator" in command and "flavor.cli" not in command
    ]


def killed(process) -> None:
    process.send(signal.SIGKILL)
    process.wait()


def jobs(faulty) -> RqJobQueue:
    return RqJobQueue(faulty.bench.url, faulty.bench.run, timeout_s=60)


def started(faulty, *flags: object, gate, workers: int = 1):
    """A run whose aggregator is a command that holds at the gate in round 2; `workers` aggregators."""
    coordinator = faulty.serve(*TAKEN_OVER)
    first = [aggregator(faulty, toy("--fail", "hold", "--gate", gate.path, *flags)) for _ in range(workers)]
    edges = faulty.edges()
    gate.reached()
    return coordinator, first, edges


def test_what_a_killed_workers_command_writes_later_is_in_nobodys_way(faulty):
    """Row 17: a shell between worker and aggregator, so that the aggregator outlives both; it saves a round later."""
    bench, gates = faulty.bench, (faulty.gate("first"), faulty.gate("second"))
    coordinator = faulty.serve(*TAKEN_OVER)
    held = toy("--fail", "hold", "--gate", gates[0].path)
    first = aggregator(faulty, f"sh -c {shlex.quote(f'{held}; true')}")
    edges = faulty.edges()
    gates[0].reached()
    killed(first)
    bench.eventually("worker and shell are gone", lambda: len(commands(bench)) == 1)
    [orphan] = commands(bench)
    aggregator(faulty, toy("--fail", "hold-saved", "--gate", gates[1].path))
    gates[1].reached()  # in round 3, whose model is saved and not taken yet
    gates[0].open()
    bench.eventually("the orphan is done", lambda: orphan not in commands(bench))
    gates[1].open()
    faulty.finish(coordinator, edges)
    bench.logged("round.aggregating", round=2, reason=f"attempt 2 of 3, because: {SILENT}")


def test_a_command_that_is_killed_is_tried_again(faulty):
    """Row 18: SIGKILL, as the kernel's when memory is short; the attempt fails visibly, and the next one works."""
    gate = faulty.gate("gate")
    coordinator, _, edges = started(faulty, gate=gate)
    [command] = commands(faulty.bench)
    os.kill(command, signal.SIGKILL)
    reason = faulty.bench.logged("round.attempt_failed", round=2)["reason"]
    assert "the aggregator ended (killed by SIGKILL (out of memory?))" in reason
    faulty.finish(coordinator, edges)
    assert faulty.bench.runs.read_round(2).attempt == 2


def test_a_worker_and_its_command_killed_are_followed_by_another_worker(faulty):
    """Row 19: both at once; the round's lease runs out, and an idle worker makes the next attempt."""
    gate = faulty.gate("gate")
    coordinator, [first], edges = started(faulty, gate=gate)
    second = aggregator(faulty, toy())
    second.until("listens on queue")
    first.send(signal.SIGSTOP)  # so that it says nothing of its command's end
    [command] = commands(faulty.bench)
    os.kill(command, signal.SIGKILL)
    killed(first)
    assert not commands(faulty.bench)
    faulty.bench.logged("round.aggregating", round=2, reason=f"attempt 2 of 3, because: {SILENT}")
    faulty.finish(coordinator, edges)
    assert faulty.bench.runs.read_round(2).attempt == 2
    assert "round 2: 2 updates" in second.stderr


def test_of_two_jobs_for_a_round_one_wins(faulty):
    """Row 21: while a worker holds the round, a second one is given the same job twice more."""
    gate, bench = faulty.gate("gate"), faulty.bench
    coordinator, _, edges = started(faulty, gate=gate)
    second = aggregator(faulty, toy())
    second.until("listens on queue")
    queue = f"rq:queue:{bench.run}"
    for _ in range(2):
        jobs(faulty).aggregate(bench.run, 2, attempt=1)
        bench.eventually("it is taken", lambda: not bench.redis.llen(queue))
    gate.open()
    faulty.finish(coordinator, edges)
    assert "round 2" not in second.stderr


def test_the_same_job_for_many_workers_at_once_is_done_once(faulty):
    """Row 21: every aggregation of a run is enqueued three more times, for three workers."""
    coordinator = faulty.serve()
    workers = [faulty.bench.aggregator() for _ in range(3)]
    over = threading.Event()

    def double() -> None:
        newest, doubled = "0", jobs(faulty)
        while not over.is_set():
            for _, batch in faulty.bench.redis.xread({faulty.bench.runs.keys.log: newest}, block=200):
                newest = batch[-1][0]
                for _, entry in batch:
                    if entry["event"] == "round.aggregating":
                        for _ in range(3):
                            doubled.aggregate(faulty.bench.run, int(entry["round"]), attempt=1)

    doubling = threading.Thread(target=double)
    doubling.start()
    try:
        edges = faulty.edges()
        faulty.finish(coordinator, edges)
    finally:
        over.set()
        doubling.join()
    said = "".join(worker.stderr for worker in workers)
    for number in range(1, faulty.rounds + 1):
        assert said.count(f"round {number}: 2 updates") == 1
    assert "round.attempt_failed" not in {entry["event"] for entry in faulty.bench.log()}


def test_an_aggregation_that_takes_too_long_is_stopped_and_tried_again(faulty):
    """Row 22: the job's time is up; that is said, and tried again as configured: here once more, which works."""
    gate = faulty.gate("gate")
    coordinator = faulty.serve("--aggregation-timeout-s", 5, "--aggregation-attempts", 2)
    aggregator(faulty, toy("--fail", "hold", "--gate", gate.path))
    edges = faulty.edges()
    gate.reached()
    reason = faulty.bench.logged("round.attempt_failed", round=2)["reason"]
    assert "still running after 5 s (--aggregation-timeout-s) and is stopped" in reason
    faulty.finish(coordinator, edges)
    assert faulty.bench.runs.read_round(2).attempt == 2


def test_an_aggregation_that_always_takes_too_long_fails_the_run(faulty):
    """Row 22: and when no attempt is left, the run fails, and says why."""
    coordinator = faulty.serve("--aggregation-timeout-s", 1, "--aggregation-attempts", 2)
    aggregator(faulty, toy("--fail", "hang", "--at", 0))
    edges = faulty.edges()
    assert coordinator.wait() == 1
    assert "round 1: attempt 2 of 2: the aggregator was still running after 1 s" in coordinator.stderr
    for edge in edges.values():
        assert edge.wait() == 1
    faulty.history().check(rounds=0)
    assert not commands(faulty.bench)


def test_updates_wait_for_an_aggregator_however_many_were_killed(faulty):
    """Row 17: the only worker is killed, and stands in RQ's registry; no site answers for what nobody has looked at."""
    bench = faulty.bench
    queue = RqJobQueue(bench.url, bench.run, timeout_s=60)
    first = bench.aggregator()
    bench.eventually("it is registered", lambda: queue.workers() == 1)
    killed(first)
    bench.eventually(
        "its child is gone, too", lambda: not any("flavor.cli.agg" in c for c in bench.survivors().values())
    )
    coordinator = faulty.serve("--aggregation-lease-s", 0.3)
    edges = faulty.edges()
    bench.eventually("both have handed in", lambda: len(bench.runs.updates(1, faulty.clients)) == len(faulty.clients))
    handed_in_ms = bench.runs.now_ms()
    bench.eventually("many leases have passed", lambda: bench.runs.now_ms() > handed_in_ms + 3000)
    assert queue.workers() == 1, "the test comes too late: the killed worker is forgotten"
    for key in bench.redis.smembers(f"rq:workers:{bench.run}"):
        bench.redis.delete(key)  # its time is up
    bench.logged("round.waiting", round=1, saying="no aggregator listens")
    bench.aggregator()
    faulty.finish(coordinator, edges)
    assert not [entry for entry in bench.log() if entry["event"].startswith("update.refused")]
