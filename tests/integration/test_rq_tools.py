"""RQ's own tools on flavor's Redis: `rq info` as a process, and rq-dashboard by its test client."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from redis import Redis
from rq.cli import main as rq_command

from flavor.bus.acl import enroll_worker, worker_user
from flavor.bus.connection import connect
from flavor.bus.jobs import RqJobQueue
from flavor.bus.queues import read_queues
from workers.context import WorkerContext, set_context
from workers.fault import GivenBack
from workers.worker import OwnWorker, make_worker


def rq_info(url: str, *, as_process: bool = False) -> list[str]:
    """The lines of `rq info`."""
    words = ["info", "--raw", "--serializer", "json", "--url", url]
    if as_process:
        done = subprocess.run([sys.executable, "-m", "rq.cli", *words], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()
    found = CliRunner().invoke(rq_command, words)
    assert found.exit_code == 0, found.exception
    return found.stdout.splitlines()


@pytest.fixture(scope="module")
def dashboard(url: str) -> Callable[..., Any]:
    """Asks rq-dashboard, which reads this server with --json, for one of its pages."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from rq.serializers import JSONSerializer
        from rq_dashboard.cli import make_flask_app
        from rq_dashboard.web import config, setup_rq_connection
    app = make_flask_app(None, None, None, "")
    app.config["RQ_DASHBOARD_REDIS_URL"] = (url,)
    config.serializer = JSONSerializer
    setup_rq_connection(app)
    client = app.test_client()

    def page(path: str, *, post: bool = False) -> Any:
        answer = client.post(path) if post else client.get(path, follow_redirects=True)
        assert answer.status_code == 200, (path, answer.status_code)
        return answer.get_json() if path.endswith(".json") or post else answer.text

    return page


@pytest.fixture
def bus(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    connection = Redis.from_url(url, protocol=2)
    connection.flushall()
    set_context(WorkerContext(connect(url), url, None))  # type: ignore[arg-type]
    yield connection
    set_context(None)
    connection.close()


def ask(url: str, *rounds: int) -> list[str]:
    queue = RqJobQueue(url, "q", timeout_s=3600)
    return [queue.inspect("r", round_, ["a"], attempt=1) for round_ in rounds]


def work(bus: Redis, monkeypatch: pytest.MonkeyPatch, does: Callable[[int], bool]) -> OwnWorker:
    """Let a worker do what is in the queue; `does` is called with the round of each job."""
    wrong: list[AssertionError] = []

    def inspect(_context: object, _run: str, round_: int, _clients: object) -> bool:
        try:
            return does(round_)
        except AssertionError as error:  # the worker would record it as a failed job
            wrong.append(error)
            return True

    monkeypatch.setattr("workers.jobs.inspect_updates", inspect)
    worker = make_worker(bus, "q")
    worker.work(burst=True, logging_level="CRITICAL")
    if wrong:
        raise wrong[0]
    return worker


def queues(dashboard: Callable[..., Any]) -> dict[str, int]:
    [queue] = dashboard("/0/data/queues.json")["queues"]
    kinds = ("started", "failed", "finished", "deferred", "scheduled", "canceled")
    return {"queued": queue["count"]} | {
        kind: count for kind in kinds if (count := queue[f"{kind}_job_registry_count"])
    }


def jobs(dashboard: Callable[..., Any], registry: str) -> list[str]:
    return [job["description"] for job in dashboard(f"/0/data/jobs/q/{registry}/8/asc/1.json")["jobs"]]


def test_what_is_in_hand_waits_or_has_failed(
    bus: Redis, url: str, dashboard: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ask(url, 1, 2, 3)
    assert rq_info(url) == ["queue q 3, 0 executing, 0 finished, 0 failed"]
    assert queues(dashboard) == {"queued": 3}
    seen = []

    def look(round_: int) -> bool:
        if round_ == 2:
            raise ValueError("a fault of the program")
        done = 0 if round_ == 1 else 1
        queue, worker = rq_info(url, as_process=round_ == 1)
        waiting = 3 - round_
        assert queue == f"queue q {waiting}, 1 executing, 0 finished, {done} failed"
        assert re.fullmatch(
            rf"worker [0-9a-f]+ \(\S+ unknown \d+\) busy q\. jobs: {done} finished, {done} failed", worker
        )
        assert queues(dashboard) == {"queued": waiting, "started": 1} | ({"failed": 1} if done else {})
        assert jobs(dashboard, "started") == [f"workers.jobs.inspect('r', {round_}, ['a'])"]
        job = dashboard(f"/0/data/job/{names[round_ - 1]}.json")
        assert (job["status"], job["origin"]) == ("started", "q")
        assert job["enqueued_at"] <= job["started_at"]
        [worker] = dashboard("/0/data/workers.json")["workers"]
        assert (worker["state"], worker["queues"]) == ("busy", ["q"])
        assert (worker["successful_job_count"], worker["failed_job_count"]) == (done, done)
        [known] = read_queues(connect(url), url, {"q": ["r"]})["workers"]
        assert (known["state"], known["job"], known["done"], known["failed"]) == ("busy", job["id"], done, done)
        for page in ("queues", "workers", "jobs", f"job/{names[round_ - 1]}"):
            assert "RQ" in dashboard(f"/0/view/{page}")
        seen.append(round_)
        return True

    work(bus, monkeypatch, look)
    assert seen == [1, 3]
    assert rq_info(url) == ["queue q 0, 0 executing, 0 finished, 1 failed"]
    assert queues(dashboard) == {"queued": 0, "failed": 1}
    failed = dashboard(f"/0/data/job/{names[1]}.json")
    assert failed["status"] == "failed"
    assert "ValueError: a fault of the program" in failed["exc_info"]
    assert failed["created_at"] <= failed["started_at"] <= failed["ended_at"]
    assert set(bus.keys("rq:job:*")) == {f"rq:job:{names[1]}".encode()}, "jobs that are done leave nothing"
    assert 0 < bus.ttl(f"rq:job:{names[1]}") <= 86_400
    assert 0 < bus.ttl(f"rq:results:{names[1]}") <= 86_400
    assert dashboard("/requeue/q", post=True) == {"status": "OK", "count": 1}
    assert rq_info(url) == ["queue q 1, 0 executing, 0 finished, 0 failed"]
    again: list[int] = []
    work(bus, monkeypatch, lambda round_: not again.append(round_))
    assert again == [2]
    assert rq_info(url) == ["queue q 0, 0 executing, 0 finished, 0 failed"]


def test_a_worker_between_two_jobs_is_idle_and_keeps_its_count(
    bus: Redis, url: str, dashboard: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(url, 1)
    monkeypatch.setattr(OwnWorker, "teardown", lambda _: None)  # it stays
    worker = work(bus, monkeypatch, lambda _: True)
    for _ in range(2):
        assert rq_info(url)[1].endswith(" idle q. jobs: 1 finished, 0 failed")
        [shown] = dashboard("/0/data/workers.json")["workers"]
        assert (shown["state"], shown["current_job"]) == ("idle", "idle")
        [known] = read_queues(connect(url), url, {"q": ["r"]})["workers"]
        assert (known["state"], known["job"], known["done"]) == ("idle", "", 1)
        bus.delete(worker.key)  # the server has forgotten it
        worker.heartbeat(30)


def test_a_job_that_is_given_back_waits_again(
    bus: Redis, url: str, dashboard: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    [name] = ask(url, 1)

    def fault(_: int) -> bool:
        raise GivenBack("no mount", run="r")

    work(bus, monkeypatch, fault)
    assert rq_info(url) == ["queue q 1, 0 executing, 0 finished, 0 failed"]
    assert dashboard(f"/0/data/job/{name}.json")["status"] == "queued"


@pytest.mark.parametrize("by", ["rq info", "another aggregator"])
def test_a_job_whose_worker_was_killed_has_failed(
    bus: Redis, url: str, dashboard: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    [name] = ask(url, 1)

    def killed(_: int) -> bool:
        raise SystemExit  # no clause of the worker's runs but `finally`

    with pytest.raises(SystemExit):
        work(bus, monkeypatch, killed)
    assert queues(dashboard) == {"queued": 0, "started": 1}
    bus.zadd("rq:wip:q", {bus.zrange("rq:wip:q", 0, 0)[0]: time.time() - 1})  # its last sign of life is old
    if by == "another aggregator":
        work(bus, monkeypatch, lambda _: True)
        assert queues(dashboard) == {"queued": 0, "failed": 1}
        assert jobs(dashboard, "failed") == ["workers.jobs.inspect('r', 1, ['a'])"]
    assert rq_info(url) == ["queue q 0, 0 executing, 0 finished, 1 failed"]
    assert dashboard(f"/0/data/job/{name}.json")["status"] == "failed"
    assert 0 < bus.ttl(f"rq:job:{name}") <= 86_400


def test_a_long_job_counts_as_started_while_its_worker_lives(
    bus: Redis, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(url, 1)
    monkeypatch.setattr("workers.worker._BEAT_S", 0.01)

    def long(_: int) -> bool:
        [entry] = bus.zrange("rq:wip:q", 0, 0)
        bus.zadd("rq:wip:q", {entry: time.time() + 1})
        deadline = time.monotonic() + 30
        while (bus.zscore("rq:wip:q", entry) or 0) < time.time() + 60:
            assert time.monotonic() < deadline, "no sign of life"
        return True

    work(bus, monkeypatch, long)
    assert bus.zcard("rq:wip:q") == 0


def test_the_user_of_an_aggregator_may_use_rq_info(bus: Redis, url: str) -> None:
    ask(url, 1)
    secret, _ = enroll_worker(connect(url), "agg-1", where=url)
    with_user = url.replace("://", f"://{quote(worker_user('agg-1'), safe='')}:{secret}@", 1)
    with pytest.raises(AssertionError):
        rq_info(with_user.replace(secret, "wrong"))
    assert rq_info(with_user) == ["queue q 1, 0 executing, 0 finished, 0 failed"]


def test_what_rq_suspend_holds_is_said(bus: Redis, url: str) -> None:
    ask(url, 1)
    queue = RqJobQueue(url, "q", timeout_s=60)
    worker = make_worker(bus, "q")
    worker.register_birth()
    assert queue.workers() == 1
    assert CliRunner().invoke(rq_command, ["suspend", "--url", url]).exit_code == 0
    assert queue.workers() == 0
    assert queue.absence() == "`rq suspend` holds every aggregator: let them go on with `rq resume --url URL`"
    assert CliRunner().invoke(rq_command, ["resume", "--url", url]).exit_code == 0
    assert queue.workers() == 1


def test_a_heartbeat_under_way_does_not_bring_an_ended_worker_back(
    bus: Redis, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread of heartbeats misses the worker's record, and would register it again."""
    beating, ended = threading.Event(), threading.Event()
    is_known, end = OwnWorker._is_known, OwnWorker.teardown

    def asked(worker: OwnWorker) -> bool:
        if threading.current_thread().name != "heartbeat":
            return is_known(worker)
        beating.set()
        ended.wait(0.3)  # the worker must not end so long
        return False

    def teardown(worker: OwnWorker) -> None:
        end(worker)
        ended.set()

    monkeypatch.setattr("workers.worker._BEAT_S", 0.01)
    monkeypatch.setattr(OwnWorker, "_is_known", asked)
    monkeypatch.setattr(OwnWorker, "teardown", teardown)
    ask(url, 1)
    work(bus, monkeypatch, lambda _: beating.wait(5.0))
    for thread in threading.enumerate():
        if thread.name == "heartbeat":
            thread.join(5.0)
    assert rq_info(url) == ["queue q 0, 0 executing, 0 finished, 0 failed"]
