"""A run's coordinator in a thread of this process, for a program that averages the rounds itself."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from flavor.bus.claim import Attempt, Claim
from flavor.bus.connection import Redis, connect
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.loop import Coordinator
from flavor.errors import FlavorError, IllegalMove, RunError, UpdatesRefused
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.records.summary import RoundSummary
from flavor.results.rounds import merged_info
from flavor.results.summaries import known_metrics, summary_of
from flavor.resume import goes_on_by
from flavor.store.protocol import ObjectStore
from flavor.view.event import Notice
from flavor.view.observer import Observer

_JOIN_S = 10.0


class Aggregator(Protocol):
    """Does in this process what an aggregator does about a run, except for making the model."""

    def inspect(self, run: str, round_: int, clients: Sequence[str]) -> None:
        """Inspect the updates of these clients, and write the verdicts."""

    def evaluate(self, run: str, round_: int, number: int, attempt: int) -> None:
        """Inspect and merge the results of an evaluation."""

    def attempt(self, runs: RunStore, round_: int, number: int, lease_s: float) -> Attempt:
        """Return an attempt to aggregate a round, which is not claimed yet."""

    def refuse_if_recorded(self, run: str, round_: int) -> None:
        """Raise `StateLost` when the store has a manifest of the round already."""

    def stage_manifest(
        self,
        run: RunView,
        round_: RoundView,
        attempt: int,
        *,
        model: GlobalModel,
        now_ms: int,
    ) -> ObjectRef:
        """Put the signed manifest of this attempt beside its model."""

    def publish_manifest(self, run: str, round_: int, manifest: ObjectRef) -> None:
        """Put the manifest of a committed round in its place."""


@dataclass(frozen=True)
class _Ready:
    """A round has all its updates, and is to be averaged."""

    round: int


@dataclass(frozen=True)
class _Ended:
    """The coordinator has returned: the run has ended."""

    view: RunView


@dataclass(frozen=True)
class _Broken:
    """The coordinator has raised an error."""

    error: BaseException


class RoundServer:
    """Coordinates one run, inspects its updates, and hands each complete round to the caller, who averages it.

    A `RoundServer` is the `JobQueue` of its own coordinator: jobs that others put into RQ are done in this process. As
    with any coordinator, a second process that serves the run waits for the lease of the first, and goes on where the
    first one stopped. `aggregator` returns, for a connection, what does the work of an aggregator here.
    """

    def __init__(
        self,
        run: str,
        config: RunConfig,
        *,
        redis_url: str,
        store: ObjectStore,
        observer: Observer,
        aggregator: Callable[[Redis], Aggregator],
        initial: GlobalModel | None = None,
        patience_s: float = 60.0,
        only: frozenset[str] | None = None,
    ) -> None:
        self._run, self._config, self._observer = run, config, observer
        self._redis = connect(redis_url, patience_s=patience_s, client_name=f"aumai-fedtrain:{run}")
        self.runs, self._store = RunStore(self._redis, run, redis_url), store
        self._aggregator = aggregator(self._redis)
        self._inspectors = ThreadPoolExecutor(2, thread_name_prefix="inspect")
        self._merging: set[tuple[int, int, int]] = set()  # round, number and attempt of jobs that a thread has or gets
        self._inbox: queue.SimpleQueue[_Ready | _Ended | _Broken] = queue.SimpleQueue()
        self._given: tuple[str, ...] = ()  # contributors of the newest round that `wait` returned
        self._claim: Claim | None = None  # taken by the coordinator's thread, used and given up by the caller's
        self._claims = threading.Lock()
        self._refused = ""  # the token of the newest attempt of which `refuse` refused updates
        self._coordinator = Coordinator(
            run,
            config,
            redis_url=redis_url,
            store=store,
            observer=observer,
            initial=initial,
            jobs=self,
            patience_s=patience_s,
            only=only,
        )
        self._thread = threading.Thread(target=self._serve, name="coordinator", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self._inbox.put(_Ended(self._coordinator.run()))
        except BaseException as error:
            self._inbox.put(_Broken(error))

    # -- the job queue, which the coordinator calls from its thread

    def inspect(self, run: str, round_: int, clients: Sequence[str], *, attempt: int) -> str:
        """See `JobQueue`."""
        self._inspectors.submit(self._inspect, run, round_, list(clients))
        return ""

    def merge(self, run: str, round_: int, number: int, *, attempt: int) -> None:
        """See `JobQueue`."""
        self._merging.add((round_, number, attempt))
        self._inspectors.submit(self._evaluate, run, round_, number, attempt)

    def judge(self, run: str, round_: int, *, attempt: int) -> None:
        """See `JobQueue`. This process judges no model itself."""

    def judges(self) -> int:
        """See `JobQueue`."""
        return 0

    def waits_for_worker(self, run: str, round_: int, number: int, *, attempt: int) -> bool:
        """See `JobQueue`. A job that a thread has begun counts as well."""
        return (round_, number, attempt) in self._merging

    def _evaluate(self, run: str, round_: int, number: int, attempt: int) -> None:
        try:
            self._aggregator.evaluate(run, round_, number, attempt)
        except Exception as error:  # the coordinator requests it again, and gives the evaluation up in the end
            self._observer.hear(Notice(f"round {round_}: the results of its evaluation were not merged: {error}"))
        finally:
            self._merging.discard((round_, number, attempt))

    def waits(self, job: str) -> bool:
        """See `JobQueue`. No job waits: each is begun at once."""
        return False

    def _inspect(self, run: str, round_: int, clients: Sequence[str]) -> None:
        try:
            self._aggregator.inspect(run, round_, clients)
        except Exception as error:  # the coordinator requests it again, and gives the update up in the end
            self._observer.hear(Notice(f"round {round_}: the inspection of {', '.join(clients)} failed: {error}"))

    def aggregate(self, run: str, round_: int, *, attempt: int) -> None:
        """See `JobQueue`. Claims the attempt, and makes `wait` return the round."""
        before = self._claim.attempt if self._claim is not None else None
        is_refused = before is not None and before.token == self._refused
        if before is not None and (before.round, before.number) == (round_, attempt) and not is_refused:
            return  # after a refusal, the round may be returned, and then its attempts count from 1 again
        self._give_up(self._claim)
        claim = Claim(self._aggregator.attempt(self.runs, round_, attempt, self._config.aggregation_lease_s))
        with self._claims:
            self._claim = claim
        if before is None or before.round != round_ or is_refused:
            self._inbox.put(_Ready(round_))

    def workers(self) -> int:
        """See `JobQueue`. This process is the only aggregator."""
        return 1

    def absence(self) -> str:
        """See `JobQueue`. Never called, as `workers` is never 0."""
        return ""

    # -- the rounds, for the caller that averages them

    def wait(self, round_: int) -> RoundView | None:
        """Wait until round `round_` has its updates; None when the run has finished before.

        Raises `RunError` when the run has failed or was stopped, or another process has closed that round, and what
        the coordinator raises (`LeaseHeld`, `BusUnavailable`, ...).
        """
        while True:
            news = self._inbox.get()
            match news:
                case _Ready(round=number) if number == round_:
                    view = self.runs.read_round(number)
                    assert view is not None
                    self._given = view.contributors
                    return view
                case _Ready(round=number) if number > round_:
                    raise RunError(
                        f"run {self._run!r}: round {round_} was closed by another process: start again to go on"
                    )
                case _Ended(view=run) if run.state is RunState.FINISHED:
                    return None
                case _Ended(view=run):
                    raise RunError(f"run {self._run!r} {run.state.is_now}: {run.reason}; {goes_on_by(run)}")
                case _Broken(error=error):
                    raise error

    def refuse(self, round_: int, error: UpdatesRefused) -> None:
        """Fail the attempt, because updates do not go together: the round goes on without those refused, or fails.

        `wait` returns the round again if it goes on. Raises `IllegalMove` or `LeaseLost` when another attempt is
        current.
        """
        claim = self._claim
        if claim is None or claim.attempt.round != round_:
            raise RunError(f"run {self._run!r}: round {round_} is not waiting for a model")
        attempt = claim.attempt
        self._observer.hear(Notice(f"round {round_}: {error}"))
        self._refused = attempt.token
        self.runs.fail_attempt(
            round_, attempt=attempt.number, token=attempt.token, reason=str(error), unfit=error.refused
        )

    def commit(self, round_: int, model: GlobalModel, reason: str) -> None:
        """Close a round with its global model, and leave its signed manifest, as an aggregator does.

        Raises `IllegalMove` or `LeaseLost` when another attempt is current, `StateLost` when the store has a manifest
        of the round already.
        """
        claim = self._claim
        if claim is None or claim.attempt.round != round_:
            raise RunError(f"run {self._run!r}: round {round_} is not waiting for a model")
        number, token = claim.attempt.number, claim.attempt.token
        self._aggregator.refuse_if_recorded(self._run, round_)
        view = self._averaged(round_)
        manifest = self._aggregator.stage_manifest(
            self.runs.read(), view, number, model=model, now_ms=self.runs.now_ms()
        )
        self.runs.commit_round(
            round_,
            attempt=number,
            token=token,
            model=model,
            reason=reason,
            manifest=manifest,
            summary=self._summary(view, number, model),
        )
        self._aggregator.publish_manifest(self._run, round_, manifest)
        self._give_up(claim)

    def _averaged(self, round_: int) -> RoundView:
        """Return the round, if its contributors are those whose updates `wait` has returned."""
        view = self.runs.read_round(round_)
        if view is None:
            raise IllegalMove(f"run {self._run!r}: round {round_} is gone")
        if view.contributors != self._given:
            raise IllegalMove(f"run {self._run!r}: round {round_} is of other contributors now: start again to go on")
        return view

    def _summary(self, view: RoundView, attempt: int, model: GlobalModel) -> RoundSummary:
        """Return what is kept of the round for people; it lacks metrics that cannot be read."""
        info: Mapping[str, Any] | None = None
        with contextlib.suppress(FlavorError, OSError):
            info = merged_info(replace(view, info=model.info), self._store)
        measured = self.runs.measured(view.round, view.contributors)
        sites = {client: each.metrics for client, each in measured.items()}
        known = known_metrics(self.runs.summaries(-1))
        return summary_of(view, attempt=attempt, info=info, sites=sites, known=known)

    def close(self, error: BaseException | None = None) -> None:
        """Wait for the end of a run that is complete, or stop it. After an `error`, leave it for another process."""
        try:
            if error is None:
                self._end()
            self._coordinator.stop()
            self._thread.join(_JOIN_S)
            if error is not None and self._claim is not None and isinstance(error, Exception):
                attempt = self._claim.attempt
                reason = str(error) or type(error).__name__
                with contextlib.suppress(FlavorError):
                    self.runs.fail_attempt(attempt.round, attempt=attempt.number, token=attempt.token, reason=reason)
        finally:
            self._give_up(self._claim)
            self._inspectors.shutdown(wait=False, cancel_futures=True)
            self._redis.close()

    def _end(self) -> None:
        view = self.runs.read()
        closed, _ = self.runs.closed(view)
        if not view.state.ended and closed < view.rounds:
            with contextlib.suppress(IllegalMove):
                self.runs.end(RunState.STOPPED, f"the training ended after round {closed} of {view.rounds}")
        self._thread.join(_JOIN_S)

    def _give_up(self, claim: Claim | None) -> None:
        """Give this claim up. A claim that the other thread has taken since, for the next round, stays."""
        with self._claims:
            if self._claim is claim:
                self._claim = None
        if claim is not None:
            claim.give_up()
