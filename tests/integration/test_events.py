"""Events on a real server: no order of calls, no repetition and no broken connection loses or doubles one."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from flavor.bus.connection import connect
from flavor.bus.events import ClientEvents
from flavor.bus.keys import RunKeys
from flavor.bus.lease import Lease, LeaseKeeper
from flavor.bus.runs import RunStore
from flavor.bus.subscription import RESYNC, Subscription
from flavor.cook import utils
from flavor.edge.relay import Relay
from flavor.edge.workspace import Workspace
from flavor.errors import LeaseHeld, LeaseLost, RunOver, WaitTimeout
from flavor.process_name import lives, own_name
from flavor.records.names import Event
from flavor.records.states import RunState

KEYS = RunKeys("r").client("c")
FINISHED = Event.TRAIN_FINISHED


@pytest.fixture
def server(url: str) -> Iterator[redis.Redis]:
    """An empty server with a run `r` whose client `c` has a living edge."""
    client = connect(url)
    client.flushall()
    RunStore(client, "r", url).create(rounds=5, config={})
    client.set(KEYS.lease, "host:1:token")
    yield client
    client.close()


@pytest.fixture
def events(server: redis.Redis, url: str) -> Iterator[Callable[[], ClientEvents]]:
    made: list[ClientEvents] = []

    def make() -> ClientEvents:
        made.append(ClientEvents(url, "r", "c"))
        return made[-1]

    yield make
    for each in made:
        each.close()


def waiting(server: redis.Redis) -> None:
    """Return once somebody is subscribed to the client's events."""
    while not server.pubsub_numpat():
        pass


def in_background(call: Callable[[], object]) -> Callable[[], object]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call)
    pool.shutdown(wait=False)
    return lambda: future.result(timeout=10)


class TestOrder:
    def test_set_before_anyone_waits(self, events: Callable[[], ClientEvents]) -> None:
        events().set(FINISHED, 1)
        events().wait(FINISHED, 1, timeout_s=0)

    def test_set_while_somebody_waits(self, server: redis.Redis, events: Callable[[], ClientEvents]) -> None:
        result = in_background(lambda: events().wait(FINISHED, 1, timeout_s=10))
        waiting(server)
        events().set(FINISHED, 1)
        result()

    def test_a_thousand_races_lose_nothing(self, events: Callable[[], ClientEvents]) -> None:
        setter, waiter = events(), events()
        line = threading.Barrier(2)

        def set_all() -> None:
            for round_ in range(1, 1001):
                line.wait()
                setter.start_round(round_)

        result = in_background(set_all)
        for round_ in range(1, 1001):
            line.wait()
            assert waiter.wait_started(round_ - 1, timeout_s=5) == round_
        result()

    def test_ten_at_once_are_one(self, server: redis.Redis, events: Callable[[], ClientEvents]) -> None:
        each = [events() for _ in range(10)]
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda one: one.set(FINISHED, 3, value=str(id(one))), each))
        first = server.get(KEYS.event(3, FINISHED))
        each[0].set(FINISHED, 3, value="later")
        assert server.get(KEYS.event(3, FINISHED)) == first


class TestRounds:
    def test_a_late_event_of_an_old_round_releases_nobody(self, events: Callable[[], ClientEvents]) -> None:
        events().set(FINISHED, 1)
        with pytest.raises(WaitTimeout, match=r"TrainFinished did not come within 0\.05 s"):
            events().wait(FINISHED, 2, timeout_s=0.05)

    def test_rounds_that_were_missed_are_skipped(self, events: Callable[[], ClientEvents]) -> None:
        for round_ in (1, 2, 4):
            events().start_round(round_)
        assert events().wait_started(2, timeout_s=0) == 4
        with pytest.raises(WaitTimeout):
            events().wait_started(4, timeout_s=0.05)

    def test_cleaned_events_are_gone(self, events: Callable[[], ClientEvents]) -> None:
        one = events()
        one.set(FINISHED, 1)
        one.clean(FINISHED, 1)
        assert not one.is_set(FINISHED, 1)


class TestTrouble:
    def test_a_dropped_subscriber_sees_it_late_and_not_never(
        self, server: redis.Redis, events: Callable[[], ClientEvents]
    ) -> None:
        result = in_background(lambda: events().wait(FINISHED, 1, timeout_s=10))
        waiting(server)
        server.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        server.set(KEYS.event(1, FINISHED), "1")  # without the publication
        result()

    def test_a_reconnection_is_reported(self, server: redis.Redis, url: str) -> None:
        subscription = Subscription(connect(url), url, channels=["x"], patterns=["y*"])
        assert subscription.wait(1) == [RESYNC]
        server.publish("x", "")
        server.publish("y1", "")
        got = subscription.wait(1)
        while len(got) < 2:
            got += subscription.wait(1)
        assert got == ["x", "y1"]
        server.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        assert RESYNC in subscription.wait(5)
        server.publish("x", "")
        while "x" not in got[2:]:
            got += subscription.wait(5)
        subscription.close()

    def test_a_flood_of_publications_breaks_no_connection(self, server: redis.Redis, url: str) -> None:
        """Some of them are read in part: redis-py took that for an outage where it was not to wait for the rest."""
        subscription = Subscription(connect(url), url, patterns=["flood:*"])
        subscription.open()
        for _ in range(20):
            with server.pipeline(transaction=False) as step:
                for number in range(4000):
                    step.publish(f"flood:{number:060}", "")
                step.execute()
            got: list[str] = []
            while len(got) < 4000:
                woken = subscription.wait(5)
                assert woken
                got += woken
            assert RESYNC not in got
        subscription.close()

    def test_nothing_comes_within_the_timeout(self, url: str) -> None:
        subscription = Subscription(connect(url), url, channels=["x"])
        subscription.open()
        assert subscription.wait(0.01) == []
        subscription.close()

    @pytest.mark.parametrize(("state", "code"), [(RunState.FINISHED, 0), (RunState.STOPPED, 1)])
    def test_the_end_of_the_run_ends_a_wait(
        self, server: redis.Redis, url: str, events: Callable[[], ClientEvents], state: RunState, code: int
    ) -> None:
        server.hset(RunKeys("r").state, "state", "running")

        def wait() -> RunOver:
            with pytest.raises(RunOver) as caught:
                events().wait_started(0)
            return caught.value

        result = in_background(wait)
        waiting(server)
        RunStore(server, "r", url).end(state, "because")
        over = result()
        assert isinstance(over, RunOver)
        assert bool(over.code) == bool(code)

    def test_a_dead_edge_ends_a_wait(
        self, server: redis.Redis, events: Callable[[], ClientEvents], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flavor.bus.events._REREAD_S", 0.05)
        monkeypatch.setattr("flavor.bus.events._EDGE_GONE_S", 0.2)
        server.delete(KEYS.lease)
        with pytest.raises(LeaseLost, match="its edge is gone"):
            events().wait_started(0)

    def test_an_edge_whose_process_lives_is_waited_for_without_a_lease(
        self, server: redis.Redis, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flavor.bus.events._REREAD_S", 0.05)
        monkeypatch.setattr("flavor.bus.events._EDGE_GONE_S", 0.2)
        server.delete(KEYS.lease)
        host, _, place = own_name().split(":")
        trainer = ClientEvents(url, "r", "c", edge=f"{own_name()}:token")
        with pytest.raises(WaitTimeout):
            trainer.wait_started(0, timeout_s=1.5)
        trainer.close()
        with subprocess.Popen(["true"]) as ended:
            ended.wait()
        for edge in (f"{host}:{ended.pid}:{place}:token", f"elsewhere:{os.getpid()}:{place}:token"):
            orphan = ClientEvents(url, "r", "c", edge=edge)
            with pytest.raises(LeaseLost, match="its edge is gone"):
                orphan.wait_started(0, timeout_s=60)
            orphan.close()
        with subprocess.Popen(["sleep", "60"]) as younger:  # what has the number of an edge that is gone
            assert not lives(f"{host}:{younger.pid}:{place}:token")
            younger.kill()
        assert lives(f"{own_name()}:token")
        assert not lives(f"{host}:{os.getpid()}:another0:token"), "a container of the same name"
        assert not lives(f"{host}:{os.getpid()}:token")

    def test_a_wait_ends_in_time_also_where_its_edge_is_gone_and_no_write_is_taken(
        self, server: redis.Redis, events: Callable[[], ClientEvents], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It finds out whether its edge may come back by a write, which waits for minutes otherwise."""
        monkeypatch.setattr("flavor.bus.events._REREAD_S", 0.05)
        monkeypatch.setattr("flavor.bus.events._EDGE_GONE_S", 0.2)
        server.delete(KEYS.lease)
        server.config_set("maxmemory", "1")
        began = time.monotonic()
        try:
            with pytest.raises(WaitTimeout):
                events().wait(FINISHED, 1, timeout_s=1.0)
            assert 1.0 <= time.monotonic() - began < 30.0
            freed = threading.Timer(1.0, server.config_set, ["maxmemory", "0"])
            freed.start()
            with pytest.raises(LeaseLost, match="its edge is gone"):
                events().wait(FINISHED, 1, timeout_s=60)
            assert not freed.is_alive(), "while the server took no writes, its edge could keep no lease"
        finally:
            server.config_set("maxmemory", "0")

    def test_a_trainer_that_outlived_its_edge_disturbs_nobody(self, server: redis.Redis, url: str) -> None:
        orphan = ClientEvents(url, "r", "c", edge="host:1:token")
        orphan.set(FINISHED, 1)
        server.set(KEYS.lease, "host:2:another")
        for call in (lambda: orphan.set(FINISHED, 2), lambda: orphan.wait_started(0, timeout_s=5)):
            with pytest.raises(LeaseLost, match="another edge has taken it over"):
                call()
        assert not orphan.is_set(FINISHED, 2)
        orphan.close()


class TestFace:
    """`flavor.cook.utils` as a trainer calls it, in one process and in several: with Redis, and with files alone."""

    @pytest.fixture(autouse=True, params=["redis", "files"])
    def environment(
        self,
        server: redis.Redis,
        url: str,
        events: Callable[[], ClientEvents],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        request: pytest.FixtureRequest,
    ) -> Iterator[None]:
        for name, value in (("RUN", "r"), ("CLIENT", "c"), ("REDIS_URL", url)):
            monkeypatch.setenv(f"FLAVOR_{name}", value)
        monkeypatch.setattr(utils._Session, "_instance", None)
        with contextlib.ExitStack() as leaving:
            if request.param == "files":
                files = Workspace.prepare(tmp_path / "w", environment={}, input_path=tmp_path)
                relay = Relay(files, "c", "r", run_id="1", events=events, tell=print)
                leaving.callback(relay.close)
                relay.begin()
                monkeypatch.delenv("FLAVOR_REDIS_URL")
                for name, value in relay.environment({}).items():
                    monkeypatch.setenv(name, value)
            yield
            if utils._Session._instance:
                utils._Session._instance.events.close()

    def another_process(self) -> None:
        assert utils._Session._instance is not None
        utils._Session._instance.events.close()
        utils._Session._instance = None

    def test_a_training_loop(self, server: redis.Redis, events: Callable[[], ClientEvents]) -> None:
        edge = events()
        utils.SetEvent("TrainInitDone")
        assert edge.is_set(Event.TRAIN_INIT_DONE, 0)
        assert not utils.IsSetEvent("TrainStarted")
        for round_ in (1, 2, 3):
            edge.start_round(round_)
            assert utils.IsSetEvent("TrainStarted")
            assert utils.WaitEvent("TrainStarted", timeout_s=5) == round_
            assert utils.TimeLeft() is None
            ends_ms = int(1000 * time.time()) + 60_000
            server.hset(RunKeys("r").state, mapping={"round": round_, "deadline_ms": ends_ms})
            assert 0 < (utils.TimeLeft() or 0) <= 60
            server.hdel(RunKeys("r").state, "deadline_ms")
            assert not utils.IsSetEvent("TrainStarted")
            assert not utils.IsSetEvent("TrainFinished")
            utils.SetEvent("TrainFinished")
            utils.SetEvent("TrainFinished")
            assert edge.is_set(FINISHED, round_)
        with pytest.raises(TimeoutError):
            utils.WaitEvent("TrainStarted", timeout_s=0.01)

    def test_a_process_for_each_step(self, events: Callable[[], ClientEvents]) -> None:
        edge = events()
        utils.SetEvent("TrainInitDone")
        for round_ in (1, 3):
            edge.start_round(round_)
            self.another_process()
            assert utils.WaitEvent("TrainStarted", timeout_s=5) == round_
            self.another_process()
            utils.SetEvent("TrainFinished")
            assert edge.is_set(FINISHED, round_)
            self.another_process()
            with pytest.raises(TimeoutError):
                utils.WaitEvent("TrainStarted", timeout_s=0.01)

    def test_the_ancestors_polling_loop(self, events: Callable[[], ClientEvents]) -> None:
        edge = events()
        edge.start_round(1)
        assert utils.IsSetEvent("TrainStarted")
        utils.CleanEvent("TrainStarted")
        assert not utils.IsSetEvent("TrainStarted")
        utils.SetEvent("TrainFinished")
        assert edge.is_set(FINISHED, 1)
        utils.CleanEvent("TrainFinished")
        assert not edge.is_set(FINISHED, 1)

    def test_a_script_that_waits_once_and_then_asks(self, events: Callable[[], ClientEvents]) -> None:
        """What it finds by asking is the current round, until it is finished; and may still be waited for."""
        edge = events()
        edge.start_round(1)
        assert utils.WaitEvent("TrainStarted") == 1
        utils.SetEvent("TrainFinished")
        for round_ in (2, 3):
            assert not utils.IsSetEvent("TrainStarted")
            edge.start_round(round_, anew=True)
            assert utils.IsSetEvent("TrainStarted")
            assert utils.IsSetEvent("TrainStarted")
            assert edge.taken() == round_
            if round_ == 3:
                assert utils.WaitEvent("TrainStarted", timeout_s=5) == round_
            utils.SetEvent("TrainFinished")
            assert edge.is_set(FINISHED, round_)
        assert not utils.IsSetEvent("TrainStarted")
        with pytest.raises(TimeoutError):
            utils.WaitEvent("TrainStarted", timeout_s=0.01)

    def test_an_event_stays_in_its_round_when_the_next_has_begun(self, events: Callable[[], ClientEvents]) -> None:
        edge = events()
        edge.start_round(1)
        assert utils.WaitEvent("TrainStarted") == 1
        edge.start_round(2)
        utils.SetEvent("TrainFinished")
        assert edge.is_set(FINISHED, 1)
        assert not edge.is_set(FINISHED, 2)

    def test_a_round_that_is_started_anew_is_not_one_that_its_trainer_waits_in(
        self, events: Callable[[], ClientEvents]
    ) -> None:
        edge, trainer = events(), events()
        edge.start_round(1)
        with pytest.raises(WaitTimeout):
            trainer.wait_started(1, timeout_s=0)
        assert edge.unfinished() == 1
        edge.start_round(1)
        assert edge.unfinished() == 1, "told again, as after a failover"
        edge.start_round(2, anew=True)
        assert edge.unfinished() == 0


class TestLease:
    def test_one_holder_at_a_time(self, server: redis.Redis) -> None:
        first, second = (Lease(server, "lease", ttl_s=0.6, what="it") for _ in range(2))
        assert first.try_acquire()
        assert not second.try_acquire()
        assert first.renew()
        assert not second.renew()
        second.release()
        assert server.get("lease") == first.token
        first.release()
        assert server.get("lease") is None

    def test_a_living_holder_is_named(self, server: redis.Redis) -> None:
        first, second = (Lease(server, "lease", ttl_s=0.6, what="client 'c'") for _ in range(2))
        first.try_acquire()
        keeper = LeaseKeeper(first, lost=lambda: None)
        keeper.start()
        told: list[str] = []
        with pytest.raises(LeaseHeld, match=r"client 'c' is already running as process \d+ on "):
            second.acquire(told=told.append)
        keeper.stop()
        assert len(told) == 1

    def test_a_dead_holder_is_replaced(self, server: redis.Redis) -> None:
        Lease(server, "lease", ttl_s=0.3, what="it").try_acquire()
        second = Lease(server, "lease", ttl_s=0.3, what="it")
        second.acquire(told=lambda _: None)
        assert server.get("lease") == second.token

    def test_losing_it_is_noticed(self, server: redis.Redis) -> None:
        lease = Lease(server, "lease", ttl_s=0.3, what="it")
        lease.try_acquire()
        lost = threading.Event()
        keeper = LeaseKeeper(lease, lost=lost.set)
        keeper.start()
        server.set("lease", "another:1:x")
        assert lost.wait(5)
        keeper.stop()

    def test_a_keeper_at_a_limit_of_threads_or_memory_goes_on(self) -> None:
        limits, lost, kept = iter([RuntimeError("can't start new thread"), MemoryError()]), threading.Event(), []

        class Kept:
            ttl_s = 0.03

            def keep(self) -> bool:
                if error := next(limits, None):
                    raise error
                kept.append(True)
                return len(kept) < 3

        keeper = LeaseKeeper(Kept(), lost=lost.set)
        keeper.start()
        assert lost.wait(30)
        keeper.stop()
        assert len(kept) == 3

    def test_a_renewal_is_one_round_trip(self, server: redis.Redis, url: str) -> None:
        """On a slow link each costs what lies in its queue: three in series were a lease of five seconds."""
        with contextlib.closing(Counting(url.removeprefix("unix://"))) as way:
            lease = Lease(connect(way.url), "lease", ttl_s=5, what="it", announce="here")
            assert lease.try_acquire()
            assert lease.keep()
            listener = server.pubsub()
            listener.subscribe("here")
            listener.get_message(timeout=5)
            server.pexpire("lease", 1000)
            assert lease.keep(), "touched by somebody else, and ours all the same"
            before = way.requests
            assert lease.keep()
            assert way.requests == before + 1
            assert server.pttl("lease") > 4000
            assert listener.get_message(timeout=5) is not None
            server.set("lease", "another:1:x")
            assert not lease.keep()
            assert server.pttl("lease") == -1, "another's is left as it is"
            server.delete("lease")
            assert lease.keep(), "it had lapsed"
            way.cut()
            assert lease.keep(), "over a new connection"
            server.set("lease", "another:1:x")
            way.cut()
            assert not lease.keep(), "a new connection watches nothing: it looks first"
            assert server.get("lease") == "another:1:x"
            listener.close()


class Counting:
    """A way to a server that counts what is sent at once, and can cut what goes through it."""

    def __init__(self, target: str) -> None:
        self._target, self.requests = target, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                self._open += [near, far]
                threading.Thread(target=self._pump, args=(near, far, 1), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, 0), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counts: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.requests += counts
                sink.sendall(data)

    def cut(self) -> None:
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()
        for each in self._open:
            each.close()
