"""Whoever can write to `rq:*` chooses what stands in a job, in registries and on channels. The worker runs its own
two functions all the same, lives on, and says what it dropped."""

from __future__ import annotations

import functools
import json
import pickle
import signal
import tracemalloc
import uuid
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue, Worker
from rq.command import send_kill_horse_command, send_shutdown_command
from rq.group import Group
from rq.job import Dependency, Job
from rq.registry import StartedJobRegistry
from rq.repeat import Repeat
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer

from flavor.bus.dropped_jobs import dropped_lately
from flavor.bus.keys import DROPPED
from flavor.view.observer import Lines
from workers.context import WorkerContext, set_context
from workers.jobs import ALLOWED
from workers.worker import make_worker

INSPECT = "workers.jobs.inspect"
GOOD = [INSPECT, None, ["r", 1, []], {}]


@pytest.fixture
def bus(server: str) -> Iterator[Redis]:
    connection = Redis.from_url(server, protocol=2)
    before = set(connection.keys("rq:*"))
    connection.delete(DROPPED)
    yield connection
    connection.delete(DROPPED, *(set(connection.keys("rq:*")) - before))
    connection.close()


class Bench:
    """A queue that is written to by hand, and a worker on it."""

    def __init__(self, bus: Redis, tmp_path: Path, name: str) -> None:
        self.bus, self.name, self.marker = bus, name, tmp_path / "ran"
        self.ran: list[Any] = []
        self.told: list[str] = []
        self.queue = Queue(name, connection=bus, serializer=JSONSerializer)

    def put(self, identity: bytes = b"crafted", **fields: Any) -> None:
        """A job's hash as anybody may write it, and its id in the queue."""
        fields = {"data": json.dumps(GOOD), "created_at": "2026-01-01T00:00:00.000000Z", **fields}
        self.bus.hset(b"rq:job:" + identity, mapping={k: v for k, v in fields.items() if v is not None})
        self.bus.rpush(self.queue.key, identity)

    def drain(self) -> None:
        """Work until the queue is empty. What breaks the worker leaves the job behind this one undone."""
        self.queue.enqueue_call(INSPECT, args=("r", 2, []), result_ttl=0)
        worker = make_worker(self.bus, self.name, observer=Lines(self.told.append))
        tracemalloc.start()
        worker.work(burst=True, logging_level="CRITICAL")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 32 * 2**20, "it read more than a job has"
        assert ("r", 2, []) in self.ran, "the job behind it was not done: the worker ended"
        assert not self.marker.exists(), "it ran"
        assert self.bus.llen(self.queue.intermediate_queue_key) == 0

    def dropped(self) -> list[dict[bytes, bytes]]:
        found = dropped_lately(self.bus)
        assert len(found) == len(self.told)
        return found


@pytest.fixture
def bench(bus: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    here = Bench(bus, tmp_path, f"q-{uuid.uuid4().hex[:8]}")
    for name in ALLOWED:
        monkeypatch.setitem(ALLOWED, name, lambda *args: here.ran.append(args))
    set_context(WorkerContext(bus, "", None))  # type: ignore[arg-type]
    yield here
    set_context(None)


class Gadget:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.marker,)


@functools.cache
def bomb() -> bytes:
    """200 MB, packed once: this takes half a second."""
    return zlib.compress(b" " * 200_000_000)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


FOREIGN: dict[str, Callable[[Path], Any]] = {
    "another function": lambda m: json.dumps(["os.mkdir", None, [str(m)], {}]),
    "a function of ours that is no job": lambda m: json.dumps(["workers.jobs.fits", None, [str(m), 1, 1], {}]),
    "a method of an instance": lambda m: json.dumps([INSPECT, {"a": 1}, ["r", 1, []], {}]),
    "a name that is no text": lambda m: json.dumps([["os.mkdir"], None, [str(m)], {}]),
    "arguments of another shape": lambda m: json.dumps([INSPECT, None, ["r", 1], {}]),
    "arguments that are no list": lambda m: json.dumps([INSPECT, None, {"a": 1}, {}]),
    "named arguments": lambda m: json.dumps([INSPECT, None, ["r", 1, []], {"clients": ["x"]}]),
    "a run that is no name": lambda m: json.dumps([INSPECT, None, ["../x", 1, []], {}]),
    "a round that is no number": lambda m: json.dumps([INSPECT, None, ["r", "1; rm", []], {}]),
    "a client that is no name": lambda m: json.dumps([INSPECT, None, ["r", 1, ["a", "*"]], {}]),
    "no job at all": lambda m: "nonsense",
    "too few parts": lambda m: "[1]",
    "depth": lambda m: nested(100_000),
    "a pickle": lambda m: pickle.dumps((Gadget(m), None, (), {})),
    "a packed pickle": lambda m: zlib.compress(pickle.dumps((Gadget(m), None, (), {}))),
    "a zlib bomb": lambda m: bomb(),
    "a bomb in a bomb": lambda m: zlib.compress(bomb()),
    "megabytes": lambda m: b" " * 4_000_000,  # the embedded server takes no more in one value
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_job_is_dropped_and_reported(bench: Bench, what: str) -> None:
    bench.put(data=FOREIGN[what](bench.marker))
    bench.drain()
    assert bench.ran == [("r", 2, [])]
    (told,) = bench.told
    assert "not this project's and was dropped" in told
    assert "'crafted'" in told
    assert "\n" not in told
    assert len(told) < 500
    (entry,) = bench.dropped()
    assert entry[b"job"] == b"'crafted'"
    assert 0 < bench.bus.ttl("rq:job:crafted") <= 86_400, "kept for a look"


BOMB = b"packed when it is used"
FIELDS: dict[str, dict[str, Any]] = {
    "callbacks": {f"{kind}_callback_name": "os.abort" for kind in ("success", "failure", "stopped")},
    "a webhook": {"webhooks": '[{"url": "http://127.0.0.1:9/x", "statuses": ["finished", "failed"]}]'},
    "another serializer": {"serializer": "pickle", "result": pickle.dumps(Gadget(Path("/nowhere/x")))},
    "meta as a pickle": {"meta": pickle.dumps(Gadget(Path("/nowhere/x")))},
    "a status that there is not": {"status": "nonsense"},
    "a date that is none": {"created_at": "yesterday", "enqueued_at": b"\xff\xfe", "last_heartbeat": ""},
    "numbers that are none": dict.fromkeys(
        ("result_ttl", "failure_ttl", "ttl", "retries_left", "number_of_retries", "repeats_left", "enqueue_at_front"),
        "x",
    ),
    "a timeout that is none": {"timeout": "soon"},
    "a negative timeout": {"timeout": "-1"},
    "an endless timeout": {"timeout": "9" * 12},
    "dependencies": {"dependency_ids": '["other"]', "dependency_id": "other", "allow_dependency_failures": "x"},
    "a group": {"group_id": "g"},
    "a repeat": {"repeats_left": "5", "repeat_intervals": "[0]"},
    "retries": {"retries_left": "5", "retry_intervals": "{", "enqueue_at_front_on_retry": "x"},
    "a rate limit": {"rate_limit_key": "k", "rate_limit_concurrency": "0"},
    "a trace that is a bomb": {"exc_info": BOMB},
    "an origin that is no text": {"origin": b"\xff\xfe", "worker_name": b"\xff", "description": b"\xff"},
    "a megabyte of anything": {"note": b"x" * 1_000_000},
}


@pytest.mark.parametrize("what", FIELDS)
def test_what_else_stands_in_a_job_is_not_read(bench: Bench, what: str) -> None:
    """The job itself is one of ours, which anybody who can write there may ask for: it is harmless."""
    bench.put(**{name: bomb() if it is BOMB else it for name, it in FIELDS[what].items()})
    bench.drain()
    assert bench.ran == [("r", 1, []), ("r", 2, [])]
    assert bench.told == []


@pytest.mark.parametrize("identity", [b"\xff\xfe", b"", b"a:b:c", b"x" * 10_000, b"crafted\r\nDEL x", b"../../x"])
def test_an_odd_id_ends_nobody(bench: Bench, identity: bytes) -> None:
    bench.bus.rpush(bench.queue.key, identity)
    bench.drain()
    assert bench.ran == [("r", 2, [])]


@pytest.mark.parametrize("kind", ["string", "list"])
def test_a_job_that_is_no_hash_is_dropped(bench: Bench, kind: str) -> None:
    bench.bus.set("rq:job:odd", "x") if kind == "string" else bench.bus.rpush("rq:job:odd", "x")
    bench.bus.rpush(bench.queue.key, "odd")
    bench.drain()
    assert len(bench.dropped()) == 1


def test_what_waits_in_registries_is_not_touched(bench: Bench) -> None:
    """RQ's upkeep reads jobs from its registries, retries them, calls their callbacks, enqueues their dependents."""
    bad = json.dumps(["os.mkdir", None, [str(bench.marker)], {}])
    fields = {"data": bad, "status": "started", "failure_callback_name": "os.abort", "origin": bench.name}
    fields |= {"retries_left": "3", "created_at": "2026-01-01T00:00:00.000000Z"}
    for number, name in enumerate(("wip", "deferred", "scheduled", "ready", "canceled", "finished")):
        bench.bus.hset(f"rq:job:w{number}", mapping=fields)
        bench.bus.zadd(f"rq:{name}:{bench.name}", {f"w{number}": 1.0, f"w{number}:execution": 1.0, b"\xff": 1.0})
    bench.bus.sadd("rq:job:w0:dependents", "w1")
    bench.bus.sadd("rq:groups", "rq:group:g", b"\xff")
    bench.bus.sadd("rq:group:g", "w0")
    bench.bus.sadd(f"rq:workers:{bench.name}", b"\xff\xfe", "rq:worker:gone")
    bench.bus.rpush(f"rq:queue:{bench.name}:intermediate", b"\xff", "w0")
    bench.bus.zadd("rq:scheduler:jobs", {"w0": 1})
    worker = make_worker(bench.bus, bench.name, observer=Lines(bench.told.append))
    worker.run_maintenance_tasks()
    bench.bus.ltrim(f"rq:queue:{bench.name}:intermediate", 1, 0)
    bench.drain()
    assert bench.ran == [("r", 2, [])]
    assert bench.bus.hget("rq:job:w0", "status") == b"started"
    assert all("upkeep" in line for line in bench.told)


def test_what_a_dead_worker_took_is_forgotten_after_a_minute(bench: Bench) -> None:
    intermediate = bench.queue.intermediate_queue_key
    bench.put(b"taken")
    bench.bus.lmove(bench.queue.key, intermediate)
    worker = make_worker(bench.bus, bench.name)
    worker.run_maintenance_tasks()
    worker.run_maintenance_tasks()
    assert bench.bus.llen(intermediate) == 1, "it may be at work on it"
    bench.bus.expire(f"{intermediate}:first_seen:taken", 86_400 - 61)
    worker.run_maintenance_tasks()
    assert bench.bus.llen(intermediate) == 0
    assert 0 < bench.bus.ttl("rq:job:taken") <= 86_400
    assert bench.bus.keys(f"{intermediate}:first_seen:*") == []


def test_dependents_groups_and_repeats_made_by_rq_itself_run_nothing(bench: Bench) -> None:
    first = bench.queue.enqueue_call(INSPECT, args=("r", 1, []), repeat=Repeat(times=3))
    bench.queue.enqueue_call("os.mkdir", args=(str(bench.marker),), depends_on=Dependency(first, allow_failure=True))
    group = Group.create(connection=bench.bus)
    group.enqueue_many(bench.queue, [Queue.prepare_data("os.mkdir", args=(str(bench.marker),))])
    bench.queue.enqueue_at(datetime(2026, 1, 1, tzinfo=UTC), "os.mkdir", str(bench.marker))
    assert RQScheduler([bench.queue], connection=bench.bus)
    bench.drain()
    assert bench.ran == [("r", 1, []), ("r", 2, [])]
    assert len(bench.dropped()) == 1, "that of the group"
    assert StartedJobRegistry(queue=bench.queue).count == 0


def test_commands_on_its_channel_are_not_heard(bench: Bench) -> None:
    worker = make_worker(bench.bus, bench.name)
    worker.bootstrap("CRITICAL")
    try:
        assert bench.bus.pubsub_numsub(f"rq:pubsub:{worker.name}")[0][1] == 0
        send_shutdown_command(bench.bus, worker.name)
        send_kill_horse_command(bench.bus, worker.name)
        bench.bus.publish(f"rq:pubsub:{worker.name}", b"\xff{")
    finally:
        worker.teardown()
    assert Worker.count(queue=bench.queue) == 0


def test_a_running_aggregator_reports_lives_on_and_ends_by_signal(bench_run: Any) -> None:
    """The whole program: output, `flavor status`, exit code."""
    bench, queue = bench_run
    worker = bench.aggregator()
    worker.until("listens")
    bench.eventually("the worker is registered", lambda: Worker.count(queue=queue))
    name = Worker.all(connection=queue.connection)[0].name
    for odd in ("os.system", "builtins.eval"):
        job = Job.create(odd, args=("touch owned",), connection=queue.connection, serializer=JSONSerializer)
        queue.enqueue_job(job)
    worker.until("asks for 'builtins.eval', which no aggregator runs")
    send_shutdown_command(queue.connection, name)
    status = bench.done("flavor", "status")
    assert status.wait() == 0
    assert "aggregators dropped 2 foreign jobs within a week" in status.stderr
    assert "builtins.eval" in status.stderr
    assert json.loads(bench.done("flavor", "status", "--json").stdout) == []
    assert worker.running
    assert "Traceback" not in worker.stderr
    queue.connection.set(f"rq:queue:{bench.run}", "no list any more")
    queue.connection.client_kill_filter(_type="normal", skipme=True)  # so that it asks again
    assert worker.wait() == 3
    assert "cannot be worked on any more" in worker.stderr
    queue.connection.delete(f"rq:queue:{bench.run}")
    other = bench.aggregator()
    bench.eventually("it has begun", lambda: "idle" in [w.get_state() for w in Worker.all(connection=queue.connection)])
    other.send(signal.SIGTERM)
    assert other.wait() == 0


def test_an_aggregator_whose_password_is_changed_says_so_and_ends(bench_run: Any) -> None:
    bench, queue = bench_run
    admin = queue.connection
    admin.execute_command("ACL", "SETUSER", "agg", "on", ">one", "~*", "&*", "+@all")
    worker = bench.aggregator(env={"FLAVOR_REDIS_URL": bench.url.replace("unix://", "unix://agg:one@")})
    worker.until("listens")
    bench.eventually("the worker is registered", lambda: Worker.count(queue=queue))
    admin.execute_command("ACL", "SETUSER", "agg", "resetpass", ">two")
    admin.client_kill_filter(_type="normal", skipme=True)
    assert worker.wait() == 3
    assert "Traceback" not in worker.stderr
    last = worker.stderr.splitlines()[-1]
    assert "Error: Redis at " in last
    assert "check the user and password in the URL" in last


@pytest.fixture
def bench_run(bench_at: Any) -> Iterator[Any]:
    from flavor.bus.embedded import embedded_server

    with embedded_server() as url:
        place = bench_at(url)
        connection = Redis.from_url(url, protocol=2)
        yield place, Queue(place.run, connection=connection, serializer=JSONSerializer)
        connection.close()
