"""A run with a coordinator of its own, in a thread of the test, which is its clients and its aggregator."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator import attempts, context
from flavor.coordinator.loop import Coordinator
from flavor.ledger.canonical import sha256
from flavor.protocol import SPEAKS
from flavor.records.objects import ObjectRef
from flavor.records.round import RoundView
from flavor.store.local import LocalStore
from flavor.view.observer import Lines, Observer
from tests.polled import eventually
from tests.recorded import accepted, global_model

LONG_S = 60.0


def reached(reach: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `reach` called at the failpoints of an attempt's beginning and of the run's end."""
    monkeypatch.setattr(attempts, "reach", reach)
    monkeypatch.setattr(context, "reach", reach)


class NoJobs:
    """A queue that nobody listens on: the test is the worker. `absent` says why there is none, if there is none."""

    absent = ""

    def inspect(self, run: str, round_: int, clients: Sequence[str], *, attempt: int) -> str:
        return "job"

    def aggregate(self, run: str, round_: int, *, attempt: int) -> None:
        pass

    def merge(self, run: str, round_: int, number: int, *, attempt: int) -> None:
        pass

    def judge(self, run: str, round_: int, *, attempt: int) -> None:
        pass

    def judges(self) -> int:
        return 0

    def waits_for_worker(self, run: str, round_: int, number: int, *, attempt: int) -> bool:
        return False

    def waits(self, job: str) -> bool:
        return False

    def workers(self) -> int:
        return 0 if self.absent else 1

    def absence(self) -> str:
        return self.absent


class Served:
    """A run with a coordinator of its own, in a thread, and the clients `a` and `b`, which have handed in."""

    def __init__(self, url: str, folder: Path, kind: type[LocalStore] = LocalStore, **settings: object) -> None:
        self.store = kind(folder / "store", create=True)
        self.runs = RunStore(connect(url), "r", url)
        self.runs.redis.flushall()
        self.told: list[str] = []
        config = RunConfig.parse({"rounds": 1, "min_clients": 2, "store": self.store.url, **settings})
        self.jobs, self.url, self.config = NoJobs(), url, config
        self.observer: Observer = Lines(self.told.append)
        self.renew()

    def renew(self) -> None:
        """Have another coordinator, which is not started yet."""
        self.coordinator = Coordinator(
            "r", self.config, redis_url=self.url, store=self.store, observer=self.observer, jobs=self.jobs
        )
        self.thread = threading.Thread(target=self.coordinator.run)

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        """The coordinator serves the run, which has no clients yet."""
        self.thread.start()
        try:
            self.until("there is a run", lambda: self.runs.find() is not None)
            yield
        finally:
            self.coordinator.stop()
            self.thread.join(LONG_S)

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Round 1 is open for the clients `a` and `b`."""
        with self.started():
            for client in "ab":
                self.says(client, "ready")
            self.until("round 1 is open", lambda: self.runs.read_round(1) is not None)
            yield

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Both have handed in."""
        with self.opened():
            for client in "ab":
                self.hands_in(client)
            yield

    def says(self, client: str, state: str, *, lives: bool = True) -> None:
        """The client's edge says where it is, and has its lease or not."""
        keys = self.runs.keys.client(client)
        if lives:
            self.runs.redis.set(keys.lease, "x")
        else:
            self.runs.redis.delete(keys.lease)
        self.runs.redis.hset(keys.hash, mapping={"state": state, **SPEAKS, "round": "0"})
        self.runs.redis.publish(keys.state, state)

    def hands_in(self, client: str) -> None:
        """There is an update of this client."""
        key = self.runs.keys.client(client).update(1)
        self.runs.redis.hset(key, mapping={"path": client, "digest": client, "size": "12", "try": "t"})
        self.runs.redis.publish(key, "1")

    def accepts_at(self, failpoint: str, client: str, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
        """Accept the client's update once the coordinator gets there for the first time; whether that was done."""
        judged: list[bool] = []

        def reach(name: str) -> None:
            if name == failpoint and not judged:
                judged.append(bool(self.accept(client)))

        reached(reach, monkeypatch)
        return judged

    def accept(self, client: str) -> bool:
        paths = {"path": f"runs/r/{client}", "info_path": f"runs/r/{client}-info"}
        return self.runs.judge(1, client, accepted("12 bytes", digest=client, try_id="t", **paths))

    def round(self) -> RoundView:
        view = self.runs.read_round(1)
        assert view is not None
        return view

    def aggregating(self, attempt: int = 1) -> RoundView:
        self.until(f"attempt {attempt}", lambda: self.round().attempt == attempt)
        return self.round()

    def verdict_of(self, client: str) -> dict[str, str]:
        return self.runs.redis.hgetall(self.runs.keys.client(client).verdict(1))

    def log(self) -> list[dict[str, str]]:
        """The entries of the run's log."""
        return [fields for _, fields in self.runs.redis.xrange(self.runs.keys.log)]

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        eventually(what, holds, LONG_S, told=lambda: self.told)


class Faulty(LocalStore):
    """It is asked for a place to stage a file so often, and `breaks` while it does."""

    asked = 0
    breaks: Callable[[], None] | None = None

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        self.asked += 1
        if self.breaks is not None:
            self.breaks()
        with super().stage() as staged:
            yield staged


def close_without_manifest(served: Served, *, after: Callable[[], None]) -> None:
    """Close round 1 as a worker that dies before the manifest is in its place: the coordinator is to put it there."""
    assert served.accept("a")
    assert served.accept("b")
    served.aggregating()
    model, path, data = global_model("runs/r/global/0001-model", "0" * 64, 1), "runs/r/manifests/staged-1.json", b"{}"
    with served.store.stage() as staged:
        staged.write_bytes(data)
        served.store.put(ObjectRef(path, sha256(data)), staged)
    after()
    served.runs.claim_round(1, attempt=1, token="w", ttl_s=60)
    served.runs.commit_round(1, attempt=1, token="w", model=model, reason="", manifest=ObjectRef(path, sha256(data)))
