"""A bus of one client with no Redis anywhere, that knows what the script asks it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import fakeredis

from flavor.bus.connection import Redis
from flavor.bus.events import ClientEvents
from flavor.bus.keys import RunKeys
from flavor.bus.names import Event
from flavor.bus.state import RunState
from flavor.bus.subscription import Subscription

RUN, CLIENT = "check", "script"
_WRITES = ("SET", "SETNX")
_ENDS_OF_A_ROUND = {Event.TRAIN_STARTED: Event.TRAIN_FINISHED, Event.AGGREGATE_STARTED: Event.AGGREGATE_FINISHED}


def _nothing(_: str) -> None:
    pass


class FakeBus:
    """A fake server on a free port of 127.0.0.1, holding one running run with one client.

    The client's rounds begin with the event `starts`: TrainStarted, or an aggregator's AggregateStarted.

    The script speaks TCP; this process reads and writes the same data without, so whatever arrives by TCP
    is the script's. Each request is seen before the server acts on it, while the script still waits for the
    answer:

    - `looking`: the script has asked for the event `starts` since it last set TrainInitDone or the end of a round,
      for the first time at `looking_since`, on the monotonic clock;
    - `waiting`: it has done so by entering WaitEvent;
    - `on_set(key)` is called, in the server's thread, for each key the script is about to set;
    - `on_wait()` likewise when it enters WaitEvent for the event `starts`;
    - `on_ask(key)` likewise when it asks for any other event.
    """

    def __init__(
        self,
        rounds: int,
        *,
        client: str = CLIENT,
        starts: Event = Event.TRAIN_STARTED,
        on_set: Callable[[str], None],
        on_wait: Callable[[], None] = lambda: None,
        on_ask: Callable[[str], None] = _nothing,
    ) -> None:
        self.looking = self.waiting = False
        self.looking_since = 0.0
        self._starts, self._finishes = starts, _ENDS_OF_A_ROUND[starts]
        self._on_set, self._on_wait, self._on_ask = on_set, on_wait, on_ask
        self._server = _Server(self._heard)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="fake-redis", daemon=True
        )
        host, port = self._server.server_address[:2]
        self.url = f"redis://{host!s}:{port}"
        self._run = RunKeys(RUN)
        self.keys = self._run.client(client)
        # RESP2, as everywhere in this project; redis-py would ask the server for RESP3.
        self._redis: Redis = fakeredis.FakeRedis(server=self._server.fake_server, decode_responses=True, protocol=2)
        self.events = ClientEvents(self.url, RUN, client, redis=self._redis, starts=starts)
        self._subscription = Subscription(
            self._redis, self.url, channels=[self.keys.state], patterns=[self.keys.events_pattern]
        )
        self._redis.hset(
            self._run.state,
            mapping={
                "state": RunState.RUNNING,
                "round": "0",
                "rounds": str(rounds),
                "config": "{}",
                "reason": "check",
            },
        )
        self._redis.set(self.keys.lease, "check")  # for ever: this process is the edge

    def __enter__(self) -> FakeBus:
        self._thread.start()
        self._subscription.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._subscription.close()
        self.events.close()

    def wait(self, timeout_s: float) -> None:
        """Return when the script set an event or looked for its next round, at `wake`, or after the time."""
        self._subscription.wait(timeout_s)

    def wake(self) -> None:
        """End a `wait`; from any thread, harmless after the end."""
        with contextlib.suppress(Exception):
            self._redis.publish(self.keys.state, "")

    def finish(self) -> None:
        """Mark the run as finished, and release whoever waits."""
        self._redis.hset(self._run.state, mapping={"state": RunState.FINISHED, "reason": "all rounds are done"})
        self._redis.publish(self._run.state, RunState.FINISHED)

    def _heard(self, command: str, argument: str) -> None:
        if not argument.startswith(self.keys.prefix):
            return
        event = argument.rpartition(":event:")[2]
        if command in _WRITES:
            if event in (Event.TRAIN_INIT_DONE, self._finishes):
                self.looking = self.waiting = False
            self._on_set(argument)
        elif argument == self.keys.started or event == self._starts:
            if not self.looking:
                self.looking, self.looking_since = True, time.monotonic()
            if command == "EXISTS":  # as WaitEvent asks; SetEvent asks for the round's number with GET
                self.waiting = True
                self._on_wait()
            self.wake()
        elif command == "EXISTS" and ":event:" in argument:
            self._on_ask(argument)
            self.wake()


class _Server(fakeredis.TcpFakeServer):
    """The fake server, telling `heard` each (command, argument) before it acts."""

    def __init__(self, heard: Callable[[str, str], None]) -> None:
        self._heard = heard
        super().__init__(("127.0.0.1", 0))

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection, overheard."""
        heard: Any = _OverheardSocket(request, self._heard)
        super().finish_request(heard, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a script that was killed in the middle of a command is reported elsewhere."""


class _Proxy:
    def __init__(self, inner: Any, heard: Callable[[str, str], None]) -> None:
        self._inner, self._heard = inner, heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _OverheardSocket(_Proxy):
    def makefile(self, *args: Any) -> _OverheardFile:
        return _OverheardFile(self._inner.makefile(*args), self._heard)


class _OverheardFile(_Proxy):
    """The requests of one connection: `*N`, then N words, each as two lines, `$LENGTH` and itself."""

    _rest = b""
    _command = ""

    def readline(self) -> Any:
        data = self._inner.readline()
        *lines, self._rest = (self._rest + (data or b"")).split(b"\n")
        for line in lines:
            word = line.rstrip(b"\r")
            if word.startswith(b"*"):
                self._command = ""
            elif word.startswith(b"$"):
                continue
            elif not self._command:
                self._command = word.decode(errors="replace").upper()
            else:
                self._heard(self._command, word.decode(errors="replace"))
        return data
