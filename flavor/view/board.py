"""All runs on one Redis, read by one thread however many people look: documents, patches, events.

A page, metrics and a terminal that watches draw from a `Board`, and read no key of Redis themselves.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from typing import Any

from flavor.bus.connection import shown
from flavor.bus.queues import read_queues
from flavor.errors import BusUnavailable, DamagedRecord, RunNotFound
from flavor.view.board_reader import BoardReader
from flavor.view.details import client_of, contributions_of, settings_of
from flavor.view.document import Document, left_s_of
from flavor.view.followed import Followed
from flavor.view.history import History
from flavor.view.published import RUNS, Published

__all__ = ["RUNS", "Board", "Document"]

_FIRST_LOOK_S = 15.0
_QUEUES_EVERY_S = 2.0


class Board:
    """Follows all runs on a Redis server, or those that are named. All methods may be called by any thread.

    A version is an integer that grows with each change of a document, of the list of runs, of a log, or of `problem`.
    Redis may go away: `problem` tells it, the last documents stay, and the board goes on by itself once Redis is back.
    Documents, rows and patches are shared by all callers: do not change them.
    """

    def __init__(
        self,
        url: str,
        *,
        store: str | None = None,
        runs: Collection[str] | None = None,
        left_in: str = "",
        folder: str = "",
        tells: bool = False,
    ) -> None:
        """Follow the runs on the Redis server at `url`, once `start` is called.

        `store` is the URL of the store of all runs; None takes the one in each run's settings. `runs` names the only
        runs to follow. `folder` is the result folder of a local run with a Redis server of its own, by which commands
        name it, and `left_in` that folder once its `flavor run` has ended. `tells` writes on stderr that Redis does not
        answer, and that it answers again: for a program that does nothing else. Raises `InvalidSetting` for a URL that
        cannot be used.
        """
        self._where = shown(url)
        self._published = Published()
        self._reader = BoardReader(
            url, self._published, store=store, only=runs, left_in=left_in, folder=folder, tells=tells
        )
        self._queues: tuple[float, Document] | None = None
        self._queues_lock = threading.Lock()

    # -- its life

    def start(self) -> None:
        """Begin to read, in two threads: one reads Redis, the other reads stores. Returns at once."""
        self._reader.start()

    def close(self) -> None:
        """End the threads, and close the connections to Redis. Those who wait are woken."""
        self._reader.close()
        self._published.wake()

    def __enter__(self) -> Board:
        """Start."""
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    # -- what has changed

    def version(self) -> int:
        """Return the newest version."""
        return self._published.version

    def wait(self, after_version: int, timeout_s: float) -> int:
        """Return the newest version, as soon as it is greater than `after_version` or the time is over."""
        return self._published.wait(after_version, timeout_s)

    def patches(self, run: str, after_version: int) -> list[tuple[int, dict[str, Any]]] | None:
        """Return what has changed in a document after this version, oldest first: (version, merge patch of RFC 7396).

        '' as `run` is the list of runs as an object: name to row. None: these changes are not known any more, and the
        document is to be read anew. In a merge patch null stands for a key that is not there or is None. Keys that
        change only because time passes (`now_ms`, `left_s`; in rows `age_s`, `waits_s`) are in no patch. To apply a
        patch again changes nothing in the end, so a version that was read before the document may be given.
        """
        if run != RUNS:
            self._reader.followed(run)
        return self._published.patches(run, after_version)

    def problem(self) -> str:
        """Return why Redis cannot be read, and since when; '' while it can."""
        return self._published.problem

    def now_ms(self) -> int:
        """Return of which time everything is that this board returns, in milliseconds of the Redis server's clock.

        Now; while Redis cannot be read the time when it was read last, so that all durations stand still.
        """
        return self.read_ms() if self._published.problem else self._reader.now_ms()

    def read_ms(self) -> int:
        """Return when Redis was read last, in milliseconds of its clock: of then is what there is while it is away."""
        return self._reader.read_ms

    # -- what there is

    def runs(self) -> list[Document]:
        """Return a row for each run, the newest first. Waits for the first look at Redis.

        Keys: `run`, `folder` (as in `document`), `state` (a `RunState`, "damaged" or "lost"), `round`, `rounds`,
        `round_state`, `sentence` (what it waits for, or why it ended), `held` (whether it cannot go on by itself),
        `since_ms` (since when it waits), `waits_s`, `absent` (missing processes, or why Redis takes no writes, a
        sentence each), `clients`, `alive`, `refused`, `quarantined` (numbers of clients; `alive` is None while Redis
        takes no writes, and a heartbeat timeout longer), `metric` (its name), `value` (the newest one), `value_of`
        (how many sites report it, and of how many), `best` (as in `document`), `spark` (at most 40 values of the
        metric, oldest first), `created_ms`, `ended_ms`, `took_s` (as in `document`), `ends_ms` (the estimated end),
        `age_s`. What is not known is None. Raises `BusUnavailable` if Redis could not be read yet.
        """
        self._await_first_look()
        now_ms, rows = self.now_ms(), self._published.rows()
        return [_with_ages(row, now_ms) for row in sorted(rows, key=lambda row: -(row["created_ms"] or 0))]

    def removed(self) -> Mapping[str, int]:
        """Return the runs that operators have removed within a day, and when: milliseconds of the server's clock."""
        return self._reader.removed

    def document(self, run: str) -> Document:
        """Return a run as it is, as `flavor status RUN --json` prints it; with times in place of durations.

        Keys: `run`, `folder` (by which commands name the run; '' where its name does), `run_id`, `protocol`, `head`,
        `state`, `round`, `rounds`, `round_state`, `reason`, `begun_from` (the model of another run, in words),
        `created_ms`, `ended_ms`, `took_s` (how long the run took that has ended, without times for which it had ended
        before), `opened_ms`, `deadline_ms` and `closed_ms` (of the round), `paused_ms` (for how long the run had ended
        since the round was opened: no time of the round), `recovered_ms` (when `flavor recover` has rebuilt the run
        last),
        `worked_from_ms` (`opened_ms`, later by `paused_ms`), `round_timeout_s`, `attempt`, `expected`, `needed`, `in`
        (numbers of updates), `closes_early` (whether it closes with the first `needed` ones), `heartbeat_timeout_s`,
        `waits_for` (a sentence), `since_ms` (since when it waits), `held`, `missing_clients` (how many more have to be
        ready before the next round can open), `absent` (sentences),
        `served`, `no_aggregator`, `last_round` (see `Newest.last`), `metric`, `best` (see `Newest.best`), `spark`,
        `global_model`, `shares` (which part of the model a run with `--share` or `--local` shares: `share` and `local`
        are the patterns, `tensors` and `bytes` the size of its newest global model), `ends_ms` (the estimated end),
        `later_s` (the estimated time of the rounds after the present
        one), `holds_ms` (from when on the present round is overdue, and the estimate of no use),
        `round_last_s` and `round_median_s` (how long the newest closed round took, and the median of the newest
        50), and `clients`: an object of name to `state`, `phase`, `alive`, `host`, `version`, `this_round`, `awaited`,
        `seen_ms` (the last sign of life; in patches that of a client that is there may be some heartbeats old),
        `samples`, `metrics`, `metrics_round` (in which it has reported them), `transfer`, `doing`, `doing_ms` (since
        when), `progress` (words), `reported`, `reported_ms` (when it did), `load`, `failure`, `report`,
        `update_bytes`, `reason`, `task_round` and `staleness` (the earlier round whose task it does in an asynchronous
        run, and the same in words; None and ''), `warning` (what its edge has warned of, in
        words; ''), `refused_in_a_row`, `sent_bytes` and `received_bytes` (since `moved_since_ms`),
        `median_s` and `last_s` (its time for a round), `phases` (of the present round, once it has a verdict: a list of
        [word, start_ms]).

        All times are milliseconds since 1970 by the clock of the Redis server. What is not known is None, and bytes
        are None while there are none: an edge of an earlier release does not count them. `now_ms`, of which time all
        of that is, and `left_s`, the time that is left (see `left_s_of`), are in no patch. Raises `RunNotFound`,
        `DamagedRecord`, and `BusUnavailable` if Redis could not be read yet, or if it cannot be read now and the run is
        not known.
        """
        document, now_ms = self._document(run), self.now_ms()
        followed = self._reader.followed(run)
        clients = document["clients"] if followed is None else followed.with_beats(document["clients"])
        return {**document, "clients": clients, "now_ms": now_ms, "left_s": left_s_of(document, now_ms)}

    def events(
        self, run: str, after_id: str = "", most: int = 500, client: str = "", kinds: Collection[str] = ()
    ) -> list[dict[str, Any]]:
        """Return the newest entries of a run's log after this one, at most so many, oldest first.

        Keys: `id`, `time_ms`, `event` (its name), `round` (None for none), `client` ('' for none), `reason`, `line`
        (the line that people read); an entry about an evaluation also has its number, `evaluation`. `kinds` are names
        of events, or their first parts, such as "update". Only the newest 2,000 entries are searched. Raises as
        `document`.
        """
        return self._of(run).log.after(after_id, most, client, kinds)

    def entries(
        self, run: str, *, before: str = "", most: int = 500, client: str = "", kinds: Collection[str] = ()
    ) -> list[dict[str, Any]]:
        """Return the newest entries before this one, as `events` does; older ones are read from Redis."""
        return self._of(run).log.before(before, most, client, kinds)

    def client(self, run: str, client: str) -> Document:
        """Return what is known of one client, beside its row in the document.

        Keys: `client`, `row`, `rounds` (newest first, at most 50: `round`, `outcome`, `task_round` and `staleness`
        (the round of its task, and how many rounds before that was), `reason`, `examples`, `bytes`, `sent_bytes`,
        `received_bytes`, `metrics`, `phases` as [word, start_ms, end_ms]), `events` (as `events`, at most 100), `log`
        (the lines of its script's output that its site shares). Raises `RunNotFound`, also for a client that the run
        does not have.
        """
        followed, document = self._of(run), self._document(run)
        if client not in document["clients"]:
            raise RunNotFound(f"run {run!r} has no client {client[:80]!r}")
        return client_of(followed, client, document)

    def history(self, run: str) -> History:
        """Return what has happened in a run, round by round. Raises as `document`."""
        self._document(run)
        return self._of(run).history

    def queue(self) -> Document:
        """Return the queues of flavor's jobs, read at most every two seconds.

        Keys: `queues` (a list of `queue`, `length`, `started`, `failed` (numbers of jobs), `workers` (state to
        number), `runs` (names)), `workers` (a list of `name`, `host`, `pid`, `queues`, `state`, `job`,
        `resting` (why it takes no work, '' where it does), `born_ms`, `beat_ms`, `done`, `failed`), `dropped` (jobs
        that workers refused to run, newest first: `queue`, `job`, `reason`), `refusal` (why Redis takes no writes, so
        that it forgets workers that live; '' where it takes writes). Raises `BusUnavailable`.
        """
        with self._queues_lock:
            if self._queues is None or time.monotonic() - self._queues[0] >= _QUEUES_EVERY_S:
                queues: dict[str, list[str]] = {}
                for each in self._reader.all_followed():
                    if each.snapshot is not None:
                        queues.setdefault(each.snapshot.config.queue, []).append(each.run)
                found = read_queues(self._reader.redis, self._where, queues)
                self._queues = time.monotonic(), {**found, "refusal": self._reader.refusal}
            return self._queues[1]

    def settings(self, run: str) -> Document:
        """Return a run's settings.

        Keys: `settings` (a list of `name`, `value`, `default`, `help`, `group`, `may_change`), `changed` (names of
        those that `flavor resume` has changed), `run_id`, `protocol`. Raises `RunNotFound`.
        """
        return settings_of(self._of(run))

    def contributions(self, run: str) -> Document:
        """Return the newest result of `flavor contributions` on a run.

        Keys: `result`, None where there is none; else `at_ms`, `metric` (NAME:max or NAME:min; None where no site was
        left out), `by_sites` (whether sites have judged), `rounds` (numbers), `lacking` (round to why it was not looked
        at), `left_out` (number of sites beyond those listed) and `sites`, the worst first: `client`, `rounds`,
        `num_examples`, `why_not`, `cosine`, `norm_ratio`, `with_it`, `without` and `contribution` (`mean`, `lowest`,
        `highest` and `rounds`, or None), and `judges`: the contribution as each site measures it, itself as well.
        Raises `RunNotFound` and `DamagedRecord`.
        """
        return contributions_of(self._of(run))

    def provenance(self, run: str, *, verify: bool = False) -> Document:
        """Return the signed records of a run from its store; with `verify` checks every object that they name.

        Keys: `run`, `run_id`, `rounds`, `closed`, `head` (digest of the newest manifest), `chain` (a list of `round`,
        `digest`, `verdict` ("ok" or "wrong"), `gone`, `closed_ms`, `model` and `public_key` (of the manifest), `sites`
        (names of the first 20 contributors), `contributors`, `examples`; of the newest 200 rounds, oldest first),
        `earlier` (number of older ones), `problems` and `notices` (`round`, `path`, `what`; at most 200 of each),
        `wrong` and `noticed` (numbers of all of them), `read` and `manifests` (numbers of manifests that were read, and
        of all), `verified` (whether the objects were checked), `objects_read`, `bytes_read`, `silent` (why the store
        cannot be read; '' where it can) and `is_complete` (False where there is more to read, or `silent`). Without
        `verify` one call reads manifests for a second, and the next call reads on. What was read is read again after
        ten minutes. Raises `RunNotFound`.
        """
        return self._of(run).provenance(verify=verify)

    # -- reading

    def _await_first_look(self) -> None:
        is_over = not self._reader.has_looked.wait(_FIRST_LOOK_S)
        if is_over or (self._reader.never_read and self._published.problem):
            raise BusUnavailable(self._published.problem or f"Redis at {self._where} was not read in time")

    def _document(self, run: str) -> Document:
        self._await_first_look()
        self._reader.followed(run)
        document = self._published.document(run)
        if document is None and (reason := self._published.damage(run)):
            raise DamagedRecord(reason)
        if document is None and (reason := self._published.loss(run)):
            raise RunNotFound(reason)
        if document is None and (problem := self._published.problem):
            raise BusUnavailable(problem)  # it may be there
        if document is None:
            raise RunNotFound(
                f"there is no run {run[:80]!r} on Redis at {self._where}: `flavor status` lists the runs; if Redis has "
                "lost its data, `flavor recover` rebuilds a run from its store"
            )
        return document

    def _of(self, run: str) -> Followed:
        self._document(run)
        followed = self._reader.followed(run)
        if followed is None:
            raise RunNotFound(f"run {run[:80]!r} was removed from Redis at {self._where}")
        return followed


def _with_ages(row: Document, now_ms: int) -> Document:
    since_ms, created_ms = row["since_ms"], row["created_ms"]
    waits_s = None if since_ms is None else max(0.0, (now_ms - since_ms) / 1000)
    age_s = None if created_ms is None else max(0.0, ((row["ended_ms"] or now_ms) - created_ms) / 1000)
    return {**row, "waits_s": waits_s, "age_s": age_s}
