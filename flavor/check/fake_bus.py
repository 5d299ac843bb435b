"""A bus of one client, without Redis, that records the requests of the script."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

import fakeredis

from flavor.bus.connection import Redis
from flavor.bus.solo_run import SoloRun
from flavor.check.fake_server import ScriptServer
from flavor.records.names import Event
from flavor.records.states import RunState

RUN, CLIENT = "check", "script"
_WRITES = ("SET", "SETNX")
_ENDS_OF_A_ROUND = {Event.TRAIN_STARTED: Event.TRAIN_FINISHED, Event.AGGREGATE_STARTED: Event.AGGREGATE_FINISHED}


def _nothing(_: str) -> None:
    pass


class FakeBus:
    """A fake server on a unix socket of this user's own, holding one running run with one client.

    The client's rounds begin with the event `starts`: TrainStarted, or an aggregator's AggregateStarted.

    Only the script connects. This process reads and writes the same data without the socket, so every request on the
    socket is the script's. Each request is recorded before the server acts on it, while the script still waits for the
    answer:

    - `looking`: the script has asked for the event `starts` since it last set TrainInitDone or the end of a round,
      for the first time at `looking_since`, on the monotonic clock;
    - `waiting`: it has done so by entering WaitEvent;
    - `called`: it has called any of flavor's functions;
    - `on_set(key)` is called, in the server's thread, for each key that the script is about to set;
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
        self.looking = self.waiting = self.called = False
        self.looking_since = 0.0
        self._starts, self._finishes = starts, _ENDS_OF_A_ROUND[starts]
        self._on_set, self._on_wait, self._on_ask = on_set, on_wait, on_ask
        self._server = ScriptServer(self._heard)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="fake-redis", daemon=True
        )
        self.url = self._server.url
        # RESP2, as everywhere in this project; redis-py would ask the server for RESP3.
        self._redis: Redis = fakeredis.FakeRedis(server=self._server.fake_server, decode_responses=True, protocol=2)
        self._run = SoloRun(self._redis, self.url, RUN, client, starts=starts, holder="check")
        self.keys, self.events = self._run.keys, self._run.events
        self._subscription = self._run.subscription()
        self._run.begin(rounds)

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
        self._run.wake()

    def finish(self) -> None:
        """Mark the run as finished, and end every wait of the script for an event."""
        self._run.end(RunState.FINISHED, "all rounds are done")

    def _is_of_another_event(self, key: str) -> bool:
        event = key.rpartition(":event:")[2]
        return event != key and event not in (self._starts, Event.ERROR)

    def _heard(self, command: str, argument: str, before: tuple[str, str]) -> None:
        if not argument.startswith(self.keys.prefix):
            return
        self.called = True
        event = argument.rpartition(":event:")[2]
        if command in _WRITES:
            if event in (Event.TRAIN_INIT_DONE, self._finishes):
                self.looking = self.waiting = False
            self._on_set(argument)
        elif argument == self.keys.started or event == self._starts:
            if command == "GET" and before[0] == "EXISTS" and self._is_of_another_event(before[1]):
                return  # WaitEvent for that one reads this, too
            if not self.looking:
                self.looking, self.looking_since = True, time.monotonic()
            if command == "EXISTS":  # as WaitEvent asks; SetEvent asks for the round's number with GET
                self.waiting = True
                self._on_wait()
            self.wake()
        elif command == "EXISTS" and ":event:" in argument:
            self._on_ask(argument)
            self.wake()
