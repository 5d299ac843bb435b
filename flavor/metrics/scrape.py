"""Answers scrapes: reads a board, counts the events that are new, and writes the metrics of all runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flavor.bus.connection import connect, is_away
from flavor.errors import BusUnavailable, FlavorError
from flavor.metrics.clients import labelled
from flavor.metrics.families import families
from flavor.metrics.moved import Moved
from flavor.metrics.named import Named
from flavor.metrics.scene import RunScene, Scene
from flavor.metrics.tally import Tally
from flavor.records.states import RunState
from flavor.results.metric_of_sites import base_of
from flavor.say import say
from flavor.stamp import stamp
from flavor.view.evaluations import automatic_of, merged_of
from flavor.view.run_log import order_of
from flavor.view.server import ServerState, server_state

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

MOST_CLIENTS = 200
"""How many clients of a run have labels of their own, unless the operator says otherwise."""
MOST_RUNS = 200
"""How many runs have labels: first those that have not ended, then the newest."""
MOVED_FOR_S = 600.0
"""For so long after a run's end there are counters of what its clients have moved, for the last scrapes of it."""
_EVENTS_AT_ONCE = 2000
_MOST_EVENTS = 100_000
"""How many new events of one run a scrape counts at most: what a log keeps."""
_PATIENCE_S = 0.5
_AS_THEY_ARE = "allow-utf-8"
"""All names are plain ones, and by default prometheus_client looks at each letter of them: twice the time."""
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"


class Source(Protocol):
    """What is measured: the part of `flavor.view.board.Board` that metrics need."""

    def problem(self) -> str:
        """Why Redis cannot be read, and since when; '' where it can."""

    def runs(self) -> Sequence[Mapping[str, Any]]:
        """All runs: `run`, `state` and more."""

    def removed(self) -> Mapping[str, int]:
        """The runs that were removed, and when, in milliseconds of the server's clock."""

    def document(self, run: str) -> Mapping[str, Any]:
        """One run, with its clients. Raises `RunNotFound`."""

    def events(self, run: str, after_id: str = "", most: int = 500) -> Sequence[Mapping[str, Any]]:
        """The newest entries of a run's log after one, at most so many, oldest first."""

    def entries(self, run: str, *, before: str = "", most: int = 500) -> Sequence[Mapping[str, Any]]:
        """The newest entries of a run's log before one, at most so many, oldest first."""

    def queue(self) -> Mapping[str, Any]:
        """The queues of the aggregators."""

    def now_ms(self) -> int:
        """The time of the Redis server in milliseconds."""


class Scraper:
    """Answers the scrapes of one process. May be called by several threads.

    `server` reads how the Redis server is doing, and raises `BusUnavailable`; None where it does not say.
    """

    def __init__(
        self, source: Source, server: Callable[[], ServerState | None], *, most_clients: int = MOST_CLIENTS
    ) -> None:
        self._source, self._server, self._most = source, server, most_clients
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._told = ""

    @classmethod
    def on(cls, url: str, source: Source, *, most_clients: int = MOST_CLIENTS) -> Scraper:
        """Return a scraper that asks the Redis server at `url` how it is doing."""
        redis = connect(url, patience_s=_PATIENCE_S, client_name="flavor-metrics", quiet=True)
        return cls(source, lambda: server_state(redis), most_clients=most_clients)

    def answer(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics and their content type: OpenMetrics for who accepts that, else Prometheus's text."""
        from prometheus_client.exposition import generate_latest
        from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics

        is_open = "application/openmetrics-text" in accept
        write: Any = generate_open_metrics if is_open else generate_latest
        body: bytes = write(_Collected(families(self.scene())), escaping=_AS_THEY_ARE)
        return body, OPEN_METRICS if is_open else PLAIN

    def scene(self) -> Scene:
        """Return what is measured now. While Redis cannot be read, that alone: what was read before is of the past."""
        with self._lock:
            problem = self._source.problem()
            try:
                return Scene(self._source.now_ms(), problem) if problem else self._scene()
            except BusUnavailable as error:
                return Scene(self._source.now_ms(), str(error))

    def _scene(self) -> Scene:
        server, rows, queue = self._server(), self._source.runs(), self._queue()
        states: dict[str, int] = {}
        for row in rows:
            states[row["state"]] = states.get(row["state"], 0) + 1
        shown = sorted(rows, key=lambda row: (_has_ended(row), -(row.get("created_ms") or 0)))[:MOST_RUNS]
        runs = [found for row in shown if (found := self._run(row["run"])) is not None]
        names = {row["run"] for row in shown}
        self._kept = {name: kept for name, kept in self._kept.items() if name in names}
        return Scene(
            self._source.now_ms(),
            runs=runs,
            states=states,
            queues=queue["queues"] if queue is not None else (),
            dropped=len(queue["dropped"]) if queue is not None else None,
            removed=self._source.removed(),
            server=server,
        )

    def _queue(self) -> Mapping[str, Any] | None:
        """Return the queues; None where one of their keys cannot be read, which hides no run, and is said once."""
        try:
            queue = self._source.queue()
        except BusUnavailable as error:
            if is_away(error):
                raise
            if str(error) != self._told:
                self._told = str(error)
                say(f"{stamp()}flavor: the metrics lack the queues, which cannot be read: {error}")
            return None
        self._told = ""
        return queue

    def _run(self, name: str) -> RunScene | None:
        """Return one run; None for one that cannot be read, or has gone in the meantime."""
        try:
            document = self._source.document(name)
            kept = self._kept.get(name)
            if kept is None or kept.run_id != document["run_id"]:
                kept = self._kept[name] = _Kept(str(document["run_id"]))
            kept.tally.hear(self._news(name, kept.tally.after))
        except FlavorError as error:
            if is_away(error):
                raise
            return None
        named, judged = kept.named.look(document), kept.look_at_evaluation(document)
        clients, recovered_ms = document["clients"], document.get("recovered_ms")
        if _has_ended(document):
            moved: Mapping[tuple[str, str], float] = {}
            if self._source.now_ms() - (document.get("ended_ms") or 0) < 1000 * MOVED_FOR_S:
                kept.own = kept.own or labelled(clients, self._most)
                moved = kept.moved.look(clients, kept.own, recovered_ms=recovered_ms)
            return RunScene(document, kept.tally, moved=moved, judged=judged, named=named)
        own = kept.own = labelled(clients, self._most)
        return RunScene(
            document,
            kept.tally,
            labelled=own,
            missed_ms=kept.miss(clients, self._source.now_ms()),
            moved=kept.moved.look(clients, own, recovered_ms=recovered_ms),
            judged=judged,
            named=named,
        )

    def _news(self, name: str, after: str) -> list[Mapping[str, Any]]:
        """Return the entries of a run's log after this one, oldest first; without one, the newest entries.

        A board remembers so many entries, or fewer long ones: those between are asked for.
        """
        found = list(self._source.events(name, after, most=_EVENTS_AT_ONCE))
        newest = self._source.events(name, "", most=1) if after and not found else ()
        if newest and order_of(newest[-1]["id"]) < order_of(after):  # a log made anew, by a clock that is behind
            return list(self._source.events(name, "", most=_EVENTS_AT_ONCE))
        has_gap = False
        while after and found and len(found) < _MOST_EVENTS:
            most = _EVENTS_AT_ONCE if has_gap else 1
            older = self._source.entries(name, before=found[0]["id"], most=most)
            between = [entry for entry in older if order_of(entry["id"]) > order_of(after)]
            if not between:
                break
            found[:0], has_gap = between, True
        return found


class _Kept:
    """What is remembered of a run between scrapes."""

    def __init__(self, run_id: str) -> None:
        self.run_id, self.tally, self.moved, self.named = run_id, Tally(), Moved(), Named()
        self._judged = Named()
        self.own: list[str] = []
        """The clients that had labels of their own when the run had not ended."""
        self._missed_ms: dict[str, int] = {}
        self._there_ms: dict[str, int] = {}

    def look_at_evaluation(self, document: Mapping[str, Any]) -> Collection[str]:
        """Return the names of the metrics of evaluations that have series."""
        found = automatic_of(document)
        if found is None:
            return ()
        sites = {each: of["sites"] for each, of in found["metrics"].items()}
        few = {name: sites[base_of(name)] for name in merged_of(found)}
        last = {"round": found["closed_ms"], "metrics": merged_of(found), "contributors": found["sites"], "sites": few}
        return self._judged.look_at(last, found["metric"], has_one_site=found["sites"] == 1)

    def miss(self, clients: Mapping[str, Mapping[str, Any]], now_ms: int) -> dict[str, int]:
        """Return since when each client that is not there is missed: as the run's log says, or by these looks."""
        missed: dict[str, int] = {}
        for name, client in clients.items():
            if client["alive"] or client["alive"] is None:  # None: not known for now
                self._there_ms[name] = now_ms
            elif name in self._missed_ms:
                missed[name] = self._missed_ms[name]
            else:
                logged_ms = self.tally.gone_ms.get(name, 0)  # maybe of an earlier time
                missed[name] = logged_ms if logged_ms > self._there_ms.get(name, 0) else now_ms
        self._missed_ms = missed
        return missed


class _Collected:
    """A registry that has metrics already."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Metric]:
        """Return the metrics."""
        return self._metrics


def _has_ended(row: Mapping[str, Any]) -> bool:
    state = row["state"]
    return state in tuple(RunState) and RunState(state).ended
