"""One run that a `Board` follows: what was read of it last."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flavor.bus.connection import Redis, is_away
from flavor.bus.jobs import JobQueue
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.errors import FlavorError
from flavor.ledger.archive import Archive
from flavor.store.brief import BriefStore
from flavor.view.client_snapshot import ClientMemory
from flavor.view.described import queue_of
from flavor.view.document import Document, RowMemory, document_of, row_of
from flavor.view.facts import Facts
from flavor.view.facts_reader import FactsReader
from flavor.view.history import History
from flavor.view.lacking import what_is_lacking
from flavor.view.newest import Newest, NewestReader, opened_store
from flavor.view.provenance import Records, nothing, verified
from flavor.view.round_times import RoundTimes
from flavor.view.run_log import RunLog
from flavor.view.snapshot import Snapshot, snapshot_of

_STORE_EVERY_S = 2.0
"""Least time between two looks at the metrics of a run, and into its store."""
_JOBS_EVERY_S = 3.0
AGAIN_S, _AGAIN_ENDED_S = 30.0, 600.0
"""After so many seconds a store that did not answer is tried again, and what Redis lacks is looked for."""


class SlowJobs:
    """A queue that is asked seldom who listens to it."""

    def __init__(self, jobs: JobQueue, queue: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.queue, self._jobs, self._clock = queue, jobs, clock
        self._asked_at, self._workers, self._absence = -_JOBS_EVERY_S, 0, ""

    def __getattr__(self, name: str) -> Any:
        """Return the queue's own."""
        return getattr(self._jobs, name)

    def workers(self) -> int:
        """See `JobQueue`."""
        if self._clock() - self._asked_at >= _JOBS_EVERY_S:
            self._workers = self._jobs.workers()
            self._absence = "" if self._workers else self._jobs.absence()
            self._asked_at = self._clock()
        return self._workers

    def absence(self) -> str:
        """See `JobQueue`."""
        return self._absence


@dataclass(frozen=True)
class Read:
    """A run as it was read."""

    document: Document
    row: Document
    now_ms: int
    has_entries: bool
    """Whether there are new entries in the log."""


@dataclass(frozen=True)
class _Beside:
    """What the store tells of a run."""

    incarnation: object = None
    """Of which run: another one may have the name by now."""
    newest: Newest = field(default_factory=Newest)
    lacking: str = ""


class Followed:
    """What is known of one run. The reader's thread calls `read`, another one `look_aside`, and any the rest.

    Threads share attributes without a lock: each is set as a whole, by one assignment, to a value that is not changed.
    """

    def __init__(
        self, redis: Redis, run: str, url: str, *, store: str | None, left_in: str = "", folder: str = ""
    ) -> None:
        self.run, self._url, self._left_in, self._folder = run, url, left_in, folder
        self.runs = RunStore(redis, run, url)
        self.log = RunLog(self.runs)
        self.snapshot: Snapshot | None = None
        """As it was read last; None before the first time."""
        self.is_dirty = False
        """Whether something new has come from the store, of which the document does not tell yet.

        Set after what is new, and cleared before that is read: so none is missed.
        """
        self._reader = FactsReader(self.runs, self.log)
        self._facts: Facts | None = None
        self._clients, self._rows, self._times = ClientMemory(), RowMemory(), RoundTimes()
        self._jobs: SlowJobs | None = None
        self._beside = _Beside()
        self._aside_at = -_STORE_EVERY_S
        self._aside = _Aside(self.runs, store, folder=Path(folder) if folder else None)
        self._aside_key: object = None

    def hear(self, channel: str, *, says: bool) -> bool:
        """Note that something was published on a channel of the run; returns whether to look soon.

        See `FactsReader.hear`.
        """
        return self._reader.hear(channel, says=says)

    def read(self, *, anew: bool = False, refusal: str = "", well_s: float = math.inf) -> Read:
        """Read the run again. Raises `RunNotFound`, `BusUnavailable` and `DamagedRecord`.

        `anew` reads everything: something may have been missed. `refusal` is why Redis takes no writes, and `well_s`
        for how many seconds it has taken them.
        """
        self.is_dirty = False
        facts, entries = self._reader.look(anew=anew)
        if self.snapshot is not None and self.snapshot.run.incarnation != facts.run.incarnation:
            self._times.forget()
        self._times.hear(entries)
        is_settling = well_s < facts.config.heartbeat_timeout_s
        if refusal or is_settling:
            facts = replace(facts, refusal=refusal, is_settling=is_settling)
        snapshot = snapshot_of(facts, jobs=self._jobs_of, memory=self._clients)
        self.snapshot, self._facts = snapshot, facts
        beside = self._beside
        if beside.incarnation != snapshot.run.incarnation:
            beside = _Beside()
        document = document_of(
            snapshot,
            beside.newest,
            lacking=beside.lacking,
            left_in=self._left_in,
            folder=self._folder,
            times=self._times,
            memory=self._rows,
        )
        return Read(document, row_of(document), snapshot.now_ms, bool(entries))

    def with_beats(self, rows: Mapping[str, Document]) -> dict[str, Document]:
        """Return the rows of clients with the newest `seen_ms` of those that are there."""
        found, facts = dict(rows), self._facts
        if facts is not None and not facts.run.state.ended:
            lease_ms = int(facts.config.heartbeat_timeout_s * 1000)
            for name, client in facts.clients.items():
                row, seen_ms = found.get(name), client.lease_ms - lease_ms
                if row is not None and row["alive"] and client.lease_ms > 0 and row["seen_ms"] != seen_ms:
                    found[name] = {**row, "seen_ms": seen_ms}
        return found

    def _jobs_of(self, config: RunConfig) -> JobQueue:
        if self._jobs is None or self._jobs.queue != config.queue:
            self._jobs = SlowJobs(queue_of(self._url, config, self.run), config.queue)
        return self._jobs

    @property
    def is_poor(self) -> bool:
        """Whether looks are to be rarer; see `FactsReader.is_poor`."""
        return self._reader.is_poor

    @property
    def wants(self) -> bool:
        """Whether a look now has something to tell that no publication tells: from the store, or of a lease."""
        next_ms = self._reader.next_ms
        return self.is_dirty or self._reader.is_behind or (next_ms is not None and next_ms <= self._reader.now_ms)

    def look_aside(self) -> None:
        """Read what comes from the store, if there is something new. Only this method waits for a slow store.

        Raises nothing: what cannot be read is said in the document, and tried again.
        """
        snapshot = self.snapshot
        if snapshot is None:
            return
        key = _key_of(snapshot)
        is_last = snapshot.run.state.ended and key != self._aside_key  # somebody waits for the numbers of the end
        if time.monotonic() - self._aside_at < _STORE_EVERY_S and not is_last:
            return
        again_s = _AGAIN_ENDED_S if snapshot.run.state.ended else AGAIN_S
        if key != self._aside_key or self._aside.is_due(again_s) or self._aside.is_owed:
            self._aside_at = time.monotonic()
            incarnation = snapshot.run.incarnation
            try:
                self._beside = _Beside(incarnation, *self._aside.read(snapshot))
                self._aside_key = key
            except Exception as error:  # of a store's package, too: it must not end the thread of all runs
                self._aside_key = None
                if is_away(error):  # the board says so
                    return
                silent = str(error) if isinstance(error, FlavorError) else f"{type(error).__name__}: {error}"
                lacking = self._beside.lacking if self._beside.incarnation == incarnation else ""
                self._beside = _Beside(incarnation, Newest(silent=silent), lacking)
            self.is_dirty = True

    @property
    def history(self) -> History:
        """What has happened in the run, round by round."""
        return self._aside.history(self.snapshot)

    def provenance(self, *, verify: bool) -> Document:
        """The signed records of the run; `flavor.view.board.Board.provenance` lists the keys."""
        records, silent = (
            (None, "the run was not read yet") if self.snapshot is None else self._aside.records(self.snapshot)
        )
        if records is None:
            return nothing(silent or "it has no store")
        return verified(records.archive) if verify else records.read()


def _key_of(snapshot: Snapshot) -> object:
    """What differs whenever the store may have something new."""
    round_ = snapshot.round
    of_round = (round_.round, round_.state, snapshot.accepted) if round_ is not None else None
    return snapshot.run.incarnation, snapshot.run.state, of_round


@dataclass(frozen=True)
class _Opened:
    key: object
    at: float
    brief: BriefStore | None
    silent: str
    history: History
    reader: NewestReader
    records: Records | None


class _Aside:
    """What comes from the store of one run."""

    def __init__(
        self,
        runs: RunStore,
        store: str | None,
        *,
        folder: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runs, self._store_url, self._folder, self._clock = runs, store, folder, clock
        self._lock = threading.Lock()
        self._opened: _Opened | None = None
        self._lacking, self._lacking_at = "", -AGAIN_S

    def is_due(self, again_s: float) -> bool:
        """Whether it is time to look again, although the run has not moved."""
        return self._clock() - self._lacking_at >= again_s

    @property
    def is_owed(self) -> bool:
        """See `NewestReader.is_owed`."""
        return self._opened is not None and self._opened.reader.is_owed

    def history(self, snapshot: Snapshot | None) -> History:
        """The history of the run; without a snapshot from Redis alone."""
        return History(self._runs, None) if snapshot is None else self._open(snapshot).history

    def records(self, snapshot: Snapshot) -> tuple[Records | None, str]:
        """The signed records of the run, and why its store cannot be opened."""
        opened = self._open(snapshot)
        return opened.records, opened.silent

    def read(self, snapshot: Snapshot) -> tuple[Newest, str]:
        """Read the newest metrics, and what Redis lacks of the run."""
        opened = self._open(snapshot)
        newest = opened.reader.read(snapshot.round, opened.brief, silent=opened.silent)
        if self.is_due(AGAIN_S):
            self._lacking_at = self._clock()
            self._lacking = what_is_lacking(self._runs, opened.brief.store if opened.brief is not None else None)
        return newest, self._lacking

    def _open(self, snapshot: Snapshot) -> _Opened:
        with self._lock:
            now, view = self._clock(), snapshot.run
            key = (view.incarnation, view.config.get("store"))
            if (known := self._opened) is not None and known.key == key:
                is_silent = known.brief is None or known.brief.silent is not None
                if not is_silent or now - known.at < AGAIN_S:
                    return known
            if known is None or known.key != key:
                self._lacking_at = -AGAIN_S  # that of another run says nothing
            brief, silent = opened_store(view, self._store_url)
            place = brief.store if brief is not None else None
            history = History(self._runs, place, folder=self._folder)
            records = Records(Archive(place, self._runs.run)) if place is not None else None
            self._opened = _Opened(key, now, brief, silent, history, NewestReader(self._runs, history), records)
            return self._opened
