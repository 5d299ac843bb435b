"""Decides whether an edge still is the client of a run: holds its lease, and fences what it reads and writes by it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from flavor.bus.connection import Redis, shown, translated
from flavor.bus.fence import fenced
from flavor.bus.keys import RunKeys
from flavor.bus.lease import Lease, LeaseKeeper
from flavor.bus.wishes import WISH_MS
from flavor.errors import LeaseLost
from flavor.records.admission import Admission
from flavor.records.client import ClientStatus, Transfer
from flavor.records.damage import damage_in
from flavor.records.evaluation import EvaluationTask, Result
from flavor.records.measured import Measured
from flavor.records.moved import Moved
from flavor.records.names import count
from flavor.records.pulse import Pulse
from flavor.records.signed_urls import UrlAnswer, UrlWish
from flavor.records.states import RunState
from flavor.records.task import Task
from flavor.records.update import LONGEST_TRY, Refused, Update
from flavor.records.verdict import Answer
from flavor.watch import Progress

_RESULT_MS = 7 * 86_400_000
"""A result that no aggregator has merged in this time has come too late."""


class Membership:
    """The right of one process to be this client.

    Each method writes only while no other process has the membership: this process may have been paused for so long
    that another one took it. Raises `LeaseLost` in that case, and `BusUnavailable` when the server cannot be reached.
    """

    def __init__(self, redis: Redis, url: str, run: RunKeys, client: str) -> None:
        self._redis, self._where, self._client = redis, shown(url), client
        self._run, self._keys = run, run.client(client)
        self._lease: Lease | None = None
        self._keeper: LeaseKeeper | None = None

    def take(self, *, ttl_s: float, told: Callable[[str], None]) -> str:
        """Wait until no other process has the lease, and take it; returns the lease's token. Raises `LeaseHeld`."""
        what, channel = f"client {self._client!r}", self._keys.state
        self._lease = Lease(self._redis, self._keys.lease, ttl_s=ttl_s, what=what, announce=channel)
        with translated(self._where):
            self._lease.acquire(told=told)
        return self._lease.token

    @property
    def token(self) -> str:
        """The lease's token, which marks what this process writes."""
        assert self._lease is not None
        return self._lease.token

    def keep(self, *, lost: Callable[[], None]) -> None:
        """Renew the lease in a thread from now on; the thread calls `lost` when another process has taken the lease."""
        assert self._lease is not None
        with translated(self._where):
            self._lease.renew()  # makes its connection before a transfer fills the link
        self._keeper = LeaseKeeper(self._lease, lost=lost, where=self._where)
        self._keeper.start()

    def leave(self, *, announce: bool) -> None:
        """Give the membership up. With `announce` the coordinator is told, which nothing else has told it."""
        assert self._lease is not None
        if self._keeper is not None:
            self._keeper.stop()
        with contextlib.suppress(Exception):  # the lease runs out by itself
            self._lease.release()
            if announce:
                self._wake_coordinator()

    def _wake_coordinator(self) -> None:
        """Publish on this client's channel, so that the coordinator reads the client again."""
        self._redis.publish(self._keys.state, "")

    def replaced(self) -> LeaseLost:
        """The error to raise when another process has the membership."""
        return LeaseLost(f"client {self._client!r} was taken over by another process: this one ends")

    # -- what the coordinator and the workers wrote

    def task(self, round_: int) -> Task | None:
        """The client's task in this round; None when the client has none. Raises `DamagedRecord`."""
        key = self._keys.task(round_)
        with damage_in(f"the task {key} on Redis at {self._where} cannot be read"):
            return Task.from_hash(round_, self._read(key))

    def newest_task(self, round_: int, back: int) -> int:
        """Return the newest round up to `round_`, at most `back` rounds earlier, of which the client has a task.

        0 for none: a site of an asynchronous run may go on with the task of an earlier round.
        """
        rounds = range(round_, max(0, round_ - back - 1), -1)
        if not rounds:
            return 0
        with translated(self._where), self._redis.pipeline(transaction=False) as reads:
            for each in rounds:
                reads.exists(self._keys.task(each))
            return next((each for each, there in zip(rounds, reads.execute(), strict=True) if there), 0)

    def evaluations(self) -> dict[tuple[int, int], int]:
        """The evaluations that await this client, by round and number, to when each was opened in ms; oldest first."""
        found = {name: count(opened) or 0 for name, opened in self._read(self._keys.evaluations).items()}
        names = [(name.split(" "), found[name]) for name in sorted(found, key=lambda name: (found[name], name))]
        pairs = ((count(name[0]), count(name[1]), opened) for name, opened in names if len(name) == 2)
        return {
            (round_, number): opened for round_, number, opened in pairs if round_ is not None and number is not None
        }

    def evaluation_task(self, round_: int, number: int) -> EvaluationTask | None:
        """The client's task in this evaluation; None when it has none, or has handed in a result.

        Raises `DamagedRecord`.
        """
        key = self._keys.evaluation_task(round_, number)
        with translated(self._where), self._redis.pipeline(transaction=False) as reads:
            # in this order: the end of an evaluation removes both, and only a lost result leaves a task without one
            is_done, fields = reads.exists(self._keys.result(round_, number)).hgetall(key).execute()
        with damage_in(f"the task {key} on Redis at {self._where} cannot be read"):
            return None if is_done else EvaluationTask.from_hash(round_, number, fields)

    def answer(self, round_: int) -> Answer | None:
        """The answer on the update of this round that lies in Redis now; None while there is none.

        A refusal of an earlier try, which another process of this client may have handed in, is no answer on it.
        """
        with translated(self._where), self._redis.pipeline(transaction=False) as reads:
            reads.hgetall(self._keys.verdict(round_))
            reads.hget(self._keys.update(round_), "try")
            fields, try_id = reads.execute()
        answer = Answer.from_hash(fields)
        if answer is not None and not answer.accepted and answer.try_id not in ("", (try_id or "")[:LONGEST_TRY]):
            return None
        return answer

    def admission(self) -> Admission | None:
        """Whether this client may take part, and why not; None while the coordinator has not answered."""
        return Admission.from_hash(self._read(self._keys.admission))

    def _read(self, key: str) -> Mapping[str, str]:
        with translated(self._where):
            found: dict[str, str] = self._redis.hgetall(key)
            return found

    # -- what this client wrote, and writes

    def moved(self) -> Moved:
        """Return what earlier processes of this client have moved in the run, as far as they have told it.

        Where they have told nothing, as after `flavor revoke`, a new sum begins now.
        """
        names = [*Moved().to_hash()]
        with translated(self._where), self._redis.pipeline(transaction=False) as reads:
            # the user of a site may read single fields of its hash
            found, (seconds, microseconds) = reads.hmget(self._keys.hash, names).time().execute()
        told = Moved.from_hash({name: value for name, value in zip(names, found, strict=True) if value is not None})
        return Moved(since_ms=_milliseconds(seconds, microseconds)) if told == Moved() else told

    def has_update(self, round_: int) -> bool:
        """Whether an update of this round was handed in."""
        with translated(self._where):
            return bool(self._redis.exists(self._keys.update(round_)))

    def hand_in_result(self, round_: int, number: int, result: Result | Refused) -> None:
        """Write what this client has measured in this evaluation; its key goes by itself if it comes too late."""
        key = self._keys.result(round_, number)

        def commands(step: Redis, _: int) -> None:
            step.delete(key)
            step.hset(key, mapping=result.to_hash())
            step.pexpire(key, _RESULT_MS)
            step.publish(key, str(round_))

        self._write(commands)

    def hand_in(
        self,
        round_: int,
        handed_in: Update | Refused,
        measured_at: Callable[[int], Measured] = lambda _: Measured(),
        *,
        moved: Moved | None = None,
        or_later: bool = False,
    ) -> bool:
        """Write the update of this round, in place of an earlier one; False when the run is no longer in the round.

        With `or_later`, as in an asynchronous run, the run may be in a later round.

        `measured_at` gets the time of the server in milliseconds since 1970, and returns what was measured. `moved` is
        what this edge has moved so far: rounds may be too short for a pulse, which tells it otherwise.
        """
        key = self._keys.update(round_)

        def commands(step: Redis, now_ms: int) -> None:
            step.delete(key)
            step.hset(key, mapping=replace(handed_in, measured=measured_at(now_ms)).to_hash())
            if moved is not None:
                step.hset(self._keys.hash, mapping=moved.to_hash())
            step.publish(key, str(round_))

        return self._write(commands, round_, or_later=or_later)

    def report(self, status: ClientStatus) -> None:
        """Write where this client is, and why, into its own hash; host and process are this process's."""
        here = replace(status, host=socket.gethostname(), pid=os.getpid())

        def commands(step: Redis, now_ms: int) -> None:
            step.hset(self._keys.hash, mapping=replace(here, told_ms=now_ms).to_hash())
            step.publish(self._keys.state, here.state)

        self._write(commands)

    def report_transfer(self, progress: Progress, bytes_s: int | None = None) -> None:
        """Write how far a transfer is, or that there is none, for people who look at the run."""
        fields = Transfer(*progress, bytes_s).to_hash()
        self._write(lambda step, _: self._tell(step, fields))

    def report_pulse(self, pulse_at: Callable[[int], Pulse]) -> None:
        """Write what this client is doing, for people who look at the run.

        `pulse_at` gets the time of the server in milliseconds since 1970.
        """
        self._write(lambda step, now_ms: self._tell(step, pulse_at(now_ms).to_hash()))

    def _tell(self, step: Redis, fields: Mapping[str, str]) -> None:
        """Write fields of this client's hash that only people read, and have those look who look at the run."""
        step.hset(self._keys.hash, mapping=fields)
        step.publish(self._keys.pulse, "")

    def share_log(self, text: str) -> None:
        """Write the last lines of the script's output for people who look at the run; '' removes them."""
        key = self._keys.log
        self._write(lambda step, _: step.set(key, text) if text else step.delete(key))

    def wish(self, wish: UrlWish) -> None:
        """Ask the coordinator for signed URLs, in place of an earlier wish."""

        def commands(step: Redis, _: int) -> None:
            step.set(self._keys.wish, wish.to_text(), px=WISH_MS)
            step.publish(self._keys.wish, "")

        self._write(commands)

    def urls(self) -> UrlAnswer | None:
        """The newest answer to a wish of this client; None where there is none. Raises `DamagedRecord`."""
        with translated(self._where):
            text = self._redis.get(self._keys.urls)
        return None if text is None else UrlAnswer.parse(text)

    def clear(self, keys: Iterable[str]) -> None:
        """Delete these keys, which an earlier process may have written."""
        names = list(keys)
        self._write(lambda step, _: step.delete(*names))

    def _write(
        self, commands: Callable[[Redis, int], object], round_: int | None = None, *, or_later: bool = False
    ) -> bool:
        """Run these commands in one transaction, in which neither the lease nor (if given) the run's round changes.

        `commands` gets the pipeline, and the time of the server in milliseconds since 1970. Returns False, and writes
        nothing, when the run is in another round, or over.
        """
        lease = self._lease
        assert lease is not None
        key, token = lease.key, lease.token

        def write(step: Redis, answers: list[Any]) -> bool:
            holder, (state, current), (seconds, microseconds) = answers
            if holder not in (None, token):
                raise self.replaced()
            is_in = current == str(round_) or (or_later and round_ is not None and (count(current) or 0) > round_)
            goes = round_ is None or (state == RunState.RUNNING and is_in)
            if goes:
                commands(step, _milliseconds(seconds, microseconds))
            return goes

        watched = [key] if round_ is None else [key, self._run.state]
        with translated(self._where):
            reads = [("GET", key), ("HMGET", self._run.state, "state", "round"), ("TIME",)]
            return fenced(self._redis, watched, reads, write)


def _milliseconds(seconds: Any, microseconds: Any) -> int:
    """Return the time that the server answers with, in milliseconds since 1970."""
    return int(seconds) * 1000 + int(microseconds) // 1000
