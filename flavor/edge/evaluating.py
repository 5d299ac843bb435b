"""Judges models at this site: takes the task of an evaluation, runs the evaluator, and hands in what it has measured.

An evaluator runs while the trainer waits for its next round, and never beside training. A fault in an evaluation is
told to the run as the site's result of that evaluation; this site's training goes on.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from flavor.disk import naming
from flavor.edge.evaluator import Evaluator
from flavor.edge.exchange import Exchange
from flavor.edge.inbox import EvaluatorEnded, Inbox, Woken
from flavor.edge.joining import Site
from flavor.edge.models import GlobalModels
from flavor.edge.notice import Failure, Notice, notice_of
from flavor.edge.part import Part, Phase
from flavor.edge.transfers import Transfers
from flavor.edge.workspace import Workspace
from flavor.errors import (
    CommandNotFound,
    DamagedRecord,
    InvalidUpdate,
    MisuseError,
    RunRefused,
    StoreError,
    TransferStopped,
)
from flavor.failpoints import reach
from flavor.ledger.statement import EvaluationStatement
from flavor.parts import Parts
from flavor.programs.relay_folder import see_anew
from flavor.programs.result_file import Written, clear_result, read_measured
from flavor.records.evaluation import EvaluationKind, EvaluationTask, Result
from flavor.records.info import MAX_BYTES, Info, info_bytes
from flavor.records.objects import ObjectRef
from flavor.records.update import Refused
from flavor.store.paths import handed_image, handed_report, result_prefix
from flavor.store.protocol import ObjectStore
from flavor.store.retried import written
from flavor.store.trouble import StoreHealth
from flavor.view.site_events import EvaluationBegun, EvaluationMissed, ResultForgotten, ResultHandedIn, ResultWithheld

_LATE = "the time of the evaluation has passed"
_Name = tuple[int, int]  # the round and the number of an evaluation


@dataclass
class _Done:
    """An evaluation that this process has begun, as it was opened then."""

    opened_ms: int
    result: Result | Refused | None = None
    """What this process has handed in."""

    def is_of(self, model: str, opened_ms: int) -> bool:
        """Whether it says what is asked for: of this model, or why there is no result of this very evaluation."""
        return self.result.model == model if isinstance(self.result, Result) else self.opened_ms == opened_ms


class Evaluating:
    """Does this site's evaluations, one after another."""

    def __init__(
        self,
        site: Site,
        inbox: Inbox,
        files: Workspace,
        command: tuple[str, ...],
        *,
        store: ObjectStore,
        transfers: Transfers,
        exchange: Exchange,
        models: GlobalModels,
        health: StoreHealth,
    ) -> None:
        """Judge models with this command. `files` are those of evaluations; `exchange` and `models` work on them."""
        self._site, self._inbox, self._files, self._command = site, inbox, files, command
        self._store, self._transfers, self._exchange, self._models = store, transfers, exchange, models
        self._health = health
        self._pending: dict[_Name, int] = {}  # to when it was opened
        self._done: dict[_Name, _Done] = {}
        self._task: EvaluationTask | None = None
        self._evaluator: Evaluator | None = None
        self._has_begun = False  # whether the command was started before

    @property
    def is_busy(self) -> bool:
        """Whether the evaluator runs."""
        return self._evaluator is not None

    @property
    def judged(self) -> int | None:
        """The round whose model the evaluator judges at present; None for none. Any thread may ask."""
        task, evaluator = self._task, self._evaluator
        return task.round if task is not None and evaluator is not None else None

    def read(self, *, resync: bool) -> None:
        """Read which evaluations await this site, and stop judging a model for one that is over.

        With `resync`, as after a failover, looks also whether Redis still has the results that were handed in.
        """
        self._pending = self._site.membership.evaluations()
        self._done = {name: done for name, done in self._done.items() if name in self._pending}
        for name, done in list(self._done.items()):
            if resync or done.opened_ms != self._pending[name]:
                self._look_again(name, done, self._pending[name])
        if (task := self._task) is not None and (task.round, task.number) not in self._pending:
            self.stop()
            self._site.observer.hear(EvaluationMissed("the evaluation is over: its evaluator is stopped", task.round))
        elif task is not None and self._is_late(task):
            self.stop()
            self._site.observer.hear(EvaluationMissed(f"{_LATE}: its evaluator is stopped", task.round))

    def look(self, part: Part) -> None:
        """Begin the next evaluation, if there is one and the trainer waits."""
        while self._evaluator is None and part.phase in (Phase.IDLE, Phase.LEFT):
            name = next((name for name in self._pending if name not in self._done), None)
            if name is None:
                return
            self._done[name] = _Done(self._pending[name])
            self._begin(*name)

    def ended(self, item: EvaluatorEnded) -> None:
        """Hand in what the evaluator has measured, or why it has not."""
        task, evaluator = self._task, self._evaluator
        if task is None or item.evaluator is not evaluator or evaluator is None:  # it was stopped
            return
        self._task = self._evaluator = None
        evaluator.stop()  # what it has left behind
        see_anew(self._files.output, self._files.local_info.parent, self._files.local_info)  # srun: another machine's
        if item.code != 0:
            self._refuse(task, Notice(Failure.EVALUATOR, item.code), evaluator.obituary(item.code))
            return
        reach("edge.evaluated")
        try:
            info, written = read_measured(self._files.output, self._files.local_info, task.round)
            size_bytes = MAX_BYTES + (written.size_bytes if written is not None else 0)
            result = self._transfers.carry(
                lambda: self._result(task, info, written),
                quick=self._exchange.is_quick(size_bytes),
                writes=True,
                over=self._is_over(task),
            )
        except TransferStopped:
            return
        except (InvalidUpdate, MisuseError, StoreError, OSError) as error:
            self._refuse(task, notice_of(error), str(error))
            return
        self._hand_in(task, result)
        self._site.observer.hear(ResultHandedIn("the result is handed in", task.round))

    def stop(self) -> None:
        """End the evaluator, if it runs; nothing is handed in."""
        evaluator, self._task, self._evaluator = self._evaluator, None, None
        if evaluator is not None:
            evaluator.stop()

    def _look_again(self, name: _Name, done: _Done, opened_ms: int) -> None:
        """Hand in again what Redis has lost in a failover, also where the evaluation was opened anew.

        What was measured of the same model counts. Without it the model is to be judged again.
        """
        try:
            task = self._site.membership.evaluation_task(*name)
        except DamagedRecord:  # what could be read of it before counts
            return
        if task is None or (done.opened_ms == opened_ms and self._is_late(task)):
            return
        digest, judging = task.model.model.digest, self._task
        if judging is not None and (judging.round, judging.number) == name:
            if judging.model.model.digest == digest:
                self._task, done.opened_ms = task, opened_ms
                return
            self.stop()
            why = "Redis had lost the evaluation, and it is of another model now: its evaluator is stopped"
            self._site.observer.hear(EvaluationMissed(why, task.round))
        elif done.result is not None and done.is_of(digest, opened_ms):
            done.opened_ms = opened_ms
            self._site.observer.hear(ResultForgotten(round=task.round))
            self._hand_in(task, done.result)
            return
        del self._done[name]

    def _begin(self, round_: int, number: int) -> None:
        try:
            task = self._site.membership.evaluation_task(round_, number)
        except DamagedRecord as error:
            self._site.observer.hear(ResultWithheld(str(error), round_))
            self._hand_in_as((round_, number), notice_of(error).refused(self._site.shared(str(error))))
            return
        if task is None:  # it is over, or its result was handed in before a restart
            return
        if self._is_late(task):
            self._site.observer.hear(EvaluationMissed(_LATE, task.round))
            return
        model = self._models.judged(task)
        try:
            self._files.clear_local()
            clear_result(self._files.output)
            self._transfers.carry(
                lambda: self._models.place_judged(task.round, model),
                quick=self._models.is_quick(model),
                over=self._is_over(task),
            )
            evaluator = Evaluator(
                self._site, self._files, self._inbox, self._command, task.round, again=self._has_begun
            )
        except TransferStopped:
            return
        except CommandNotFound as error:
            self._refuse(task, Notice(Failure.EVALUATOR), str(error))
            return
        except (InvalidUpdate, MisuseError, RunRefused, StoreError, OSError) as error:
            self._refuse(task, notice_of(error), str(error))
            return
        self._task, self._evaluator, self._has_begun = task, evaluator, True
        self._site.observer.hear(EvaluationBegun(_begun(task, self._site.settings.parts), task.round))

    def _result(self, task: EvaluationTask, info: Info, written: Written | None) -> Result:
        """Put what the evaluator has written into the store, and return the signed result. Raises `InvalidInfo`."""
        with self._health.mounted():
            ref = self._collected(task, info, written)
        site = self._site
        examples: int = info["metadata"]["datasetSize"]
        statement = EvaluationStatement(
            run=site.config.run,
            run_id=site.run.run_id,
            round=task.round,
            evaluation=task.number,
            client=site.config.client,
            model=task.model.model.digest,
            num_examples=examples,
            info_digest=ref.digest,
        )
        return statement.signed(site.key, Result(ref, examples, task.model.model.digest, try_id=secrets.token_hex(8)))

    def _collected(self, task: EvaluationTask, info: Info, written: Written | None) -> ObjectRef:
        """Put the report, its images and the information into the store; return where the information lies."""
        data, place = info_bytes(info), (self._site.config.run, task.round, task.number, self._site.config.client)
        if written is not None:
            for image in written.report.images:
                self._put(handed_image(*place, image.digest, image.extension), written.images[image.digest])
            self._put(handed_report(*place, written.digest), written.data)
        return self._put(f"{result_prefix(*place)}{hashlib.sha256(data).hexdigest()[:16]}.json", data)

    def _put(self, path: str, data: bytes) -> ObjectRef:
        ref = ObjectRef(path, hashlib.sha256(data).hexdigest())
        with self._store.stage() as staged:
            with naming(staged):
                written(self._store, staged, lambda: staged.write_bytes(data))
            self._store.put(ref, staged)
        self._site.meter.sent(len(data))
        return ref

    def _refuse(self, task: EvaluationTask, notice: Notice, text: str) -> None:
        """Hand in, in place of a result, why there is none; `text` says it to this site's user."""
        self._site.observer.hear(ResultWithheld(text, task.round))
        self._hand_in(task, notice.refused(self._site.shared(text)))

    def _hand_in(self, task: EvaluationTask, result: Result | Refused) -> None:
        self._hand_in_as((task.round, task.number), result)
        reach("edge.result_handed_in")

    def _hand_in_as(self, name: _Name, result: Result | Refused) -> None:
        self._site.membership.hand_in_result(*name, result)
        if name in self._done:
            self._done[name].result = result

    def _is_late(self, task: EvaluationTask) -> bool:
        """Whether the evaluation goes on without this site, also where no process is there that ends it."""
        return self._site.runs.now_ms() >= task.deadline_ms

    def _is_over(self, task: EvaluationTask) -> Callable[[object], bool]:
        """A function that says whether an item of the inbox means that this evaluation is over."""
        channel = self._site.runs.keys.client(self._site.config.client).evaluations

        def over(item: object) -> bool:
            if not isinstance(item, Woken) or channel not in item.channels:
                return False
            return (task.round, task.number) not in self._site.membership.evaluations()

        return over


def _begun(task: EvaluationTask, parts: Parts) -> str:
    if task.round:
        is_asked = bool(parts) and EvaluationKind.of(task.number) is EvaluationKind.ASKED
        own = ", with the tensors that this site does not share as they are now" if is_asked else ""
        return f"the evaluator judges the global model{own}"
    return (
        f"the evaluator judges it (SHA-256 {task.model.model.digest[:12]}…), because the operator asks for it; such a "
        "model can be made so that its metrics tell this site's data (--no-outside-models declines them)"
    )
