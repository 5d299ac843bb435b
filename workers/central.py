"""Judge a global model on the operator's own data, by the command of `flavor-agg -e`, and record the result.

The evaluator runs in a thread and a process beside the worker's other jobs (`workers.serving`), so that no round waits
for it. Its words stay on the worker's machine; the run's log has its exit code.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.counted import counted
from flavor.disk import file_of
from flavor.errors import (
    BusUnavailable,
    CommandNotFound,
    EvaluatorFailed,
    FlavorError,
    IllegalMove,
    InvalidInfo,
    LocalFault,
)
from flavor.evaluation_settings import rules_of, select_of
from flavor.failpoints import reach
from flavor.policy.compared import Found
from flavor.policy.selection import choose
from flavor.programs.own_evaluator import EvaluatorFiles
from flavor.programs.process import ChildProcess, described_exit
from flavor.records.comparison import Comparison
from flavor.records.counts import CENTRAL_PREFIX, is_count
from flavor.records.evaluation import CENTRAL, BestModel, EvaluationSummary, EvaluationView
from flavor.records.info import CONFUSION, Info
from flavor.records.merging import WEIGHTED, merge_infos, why_not_own
from flavor.records.not_finite import FIELD as NOT_FINITE
from flavor.records.not_finite import not_finite_of, text_of
from flavor.records.run import RunView
from flavor.records.sound_counts import OPERATOR, left_out_alone
from flavor.records.summary import kept_metrics
from flavor.results.evaluation_summary import central_comparison, central_lacking, kept_first, ruled_names
from flavor.results.metric_of_sites import shown_by
from flavor.results.whole_model import make_whole, why_not_whole
from flavor.store.digests import copy_of
from flavor.view.evaluation_events import EvaluationClosed, EvaluationFailed
from workers.central_judge import CentralJudge
from workers.closing import Ending, Outcome, is_current, record_and_close
from workers.context import WorkerContext
from workers.fault import GivenBack, own_fault
from workers.in_hand import in_hand
from workers.notes import of_own_counts

_LONGEST_REASON = 500
_LOOK_S = 0.2
_STOP_S = 2.0


class _Over(Exception):
    """The result is not wanted any more."""


def judge_model(context: WorkerContext, run: str, round_: int, *, attempt: int) -> bool:
    """Judge the model, unless this worker cannot, another has it in hand, or another attempt is current.

    An error is reported to the coordinator, which tries again or gives the evaluation up. Raises `GivenBack` for a
    fault of this worker or its store, and where the worker ends.
    """
    judge = context.judge
    if judge is None:
        return False
    runs = context.run(run)
    view, evaluation = runs.read_own(), runs.read_evaluation(round_, CENTRAL)
    if evaluation is None or not is_current(evaluation, attempt):
        return False
    context.require_record(view)
    over = threading.Event()
    try:
        with in_hand(runs, view, evaluation, lost=over.set, beat=lambda: _look(runs, evaluation, over)) as is_ours:
            if not is_ours:
                return False
            reason = _Judging(context, judge, runs, view, evaluation, over).commit()
    except (IllegalMove, _Over):
        return False
    except (GivenBack, BusUnavailable):
        raise
    except Exception as error:
        if fault := own_fault(context.store, view, error):
            raise GivenBack.of(fault) from error
        is_hopeless = isinstance(error, EvaluatorFailed | InvalidInfo)
        why = str(error) if isinstance(error, FlavorError) else f"{type(error).__name__}: {error}"
        context.observer.hear(EvaluationFailed(why, round_, CENTRAL, run=run))
        with suppress(IllegalMove):
            runs.fail_merge(round_, CENTRAL, attempt=attempt, reason=why[:_LONGEST_REASON], is_hopeless=is_hopeless)
        return False
    context.observer.hear(EvaluationClosed(reason, round_, CENTRAL, run=run))
    return True


def _look(runs: RunStore, evaluation: EvaluationView, over: threading.Event) -> None:
    """Set `over` once this attempt is not the current one. Runs in the lease keeper's thread."""
    with suppress(FlavorError):
        if not is_current(runs.read_evaluation(evaluation.round, CENTRAL), evaluation.attempt):
            over.set()


class _Judging:
    """One attempt to judge one model."""

    def __init__(
        self,
        context: WorkerContext,
        judge: CentralJudge,
        runs: RunStore,
        view: RunView,
        evaluation: EvaluationView,
        over: threading.Event,
    ) -> None:
        self._context, self._judge, self._runs = context, judge, runs
        self._view, self._evaluation, self._over = view, evaluation, over
        self._config = RunConfig.of_run(view.run, view.config, by=view.release)
        self._ruled = ruled_names(self._config, central=True)

    def commit(self) -> str:
        """Judge the model, store the result with its signed record, and close the evaluation; return the reason."""
        merged, examples = _merged(self._measured(), self._ruled)
        summary = self._summary(merged, examples)
        rules = rules_of(self._config, central=True)
        reason = f"on the operator's own data, {counted(examples, 'example')}"
        reason += f": {shown}" if (shown := shown_by(summary, select_of(self._config))) else ""

        def compare(before: BestModel, found: Found) -> Comparison:
            return central_comparison(rules.select, before, found, merged) if rules.select else Comparison()

        def end(before: BestModel | None) -> Ending:
            choice = choose(before, summary, select=rules.select, when=rules.when, compare=compare)
            notes = (*choice.notes, *of_own_counts(merged))
            compared = replace(summary, best_before=before.round, comparison=choice.comparison) if before else summary
            return Ending(
                choice, compared if rules.select else summary, reason + "".join(f"; {line}" for line in notes)
            )

        return record_and_close(
            self._context,
            self._runs,
            self._view,
            self._evaluation,
            Outcome(merged, {"expected": (), "judges": (), "missing": {}, "central": examples}),
            end,
            best=self._runs.read_own().best,
            failpoint="worker.judged_centrally",
        )

    def _measured(self) -> Info:
        """Have the evaluator judge the model, and return what it has measured. Raises `EvaluatorFailed`."""
        evaluator, evaluation, kind = self._judge.evaluator, self._evaluation, self._config.kind
        format_ = evaluation.model.format or kind.wire_format
        with evaluator.folder(self._view.run) as folder:
            try:
                files = evaluator.lay_out(folder, evaluation.round, kind.extension(format_))
                self._place(files, format_)
                process = evaluator.start(
                    folder, files, run=self._view.run, round_=evaluation.round, rounds=self._view.rounds
                )
            except CommandNotFound as error:
                raise EvaluatorFailed(str(error)) from None
            except OSError as error:
                where = file_of(error, f"the folder {evaluator.workspace}, or an object of the store")
                why = f"{where}: {error.strerror}: check the disk and the aggregator's --workspace"
                raise LocalFault(why) from error
            reach("worker.judging")
            try:
                self._wait(process)
            finally:
                process.stop(_STOP_S)
            try:
                return evaluator.measured(files, evaluation.round)
            finally:
                shutil.rmtree(files.root, ignore_errors=True)

    def _place(self, files: EvaluatorFiles, format_: str) -> None:
        """Copy the model: a link would be the store's own object, open to the evaluator."""
        kind, target = self._config.kind, files.global_model
        own = target if format_ == kind.wire_format else target.with_name(f".{target.name}.wire")
        if why := why_not_whole(self._view):
            raise EvaluatorFailed(f"{why}: leave out -e, or begin the run with --init-model")
        copy_of(self._context.store, self._evaluation.model.model, own)
        make_whole(self._view, self._context.store, own)
        if own != target:
            kind.from_wire(own, target, format_)
            own.unlink()

    def _wait(self, process: ChildProcess) -> None:
        limit_s = self._config.evaluation_timeout_s
        deadline = time.monotonic() + limit_s
        while (code := process.wait(_LOOK_S)) is None:
            if self._judge.ends:
                raise GivenBack("this aggregator ends")
            if self._over.is_set():
                raise _Over
            if time.monotonic() > deadline:
                self._judge.tell(
                    f"the evaluator of run {self._view.run} is stopped: it ran for more than {limit_s:g} s"
                )
                raise EvaluatorFailed(
                    f"its evaluator was still running after {limit_s:g} s (--evaluation-timeout-s) and is stopped"
                )
        if code != 0:
            self._judge.tell(f"run {self._view.run}: {self._judge.evaluator.obituary(code, process)}")
            raise EvaluatorFailed(f"its evaluator ended ({described_exit(code)})")

    def _summary(self, merged: Info, examples: int) -> EvaluationSummary:
        evaluation = self._evaluation
        return EvaluationSummary(
            round=evaluation.round,
            number=CENTRAL,
            opened_ms=evaluation.opened_ms,
            sites=1,
            expected=1,
            examples=examples,
            metrics=kept_metrics(kept_first(merged["metrics"], self._config)),
            lacking=central_lacking(self._config, merged),
        )


def _merged(info: Info, ruled: Collection[str]) -> tuple[Info, int]:
    """Return the information as it is stored, with its metrics under `central/`, and the number of examples.

    Counts are not kept: what is computed of them is, as `central/pooled/NAME`; `metadata.leftOut` says of which nothing
    can be. A metric that is no finite number is
    None if it is among `ruled`, those of the run's rules, and left out otherwise.
    """
    merged = merge_infos([OPERATOR], [info])
    found = merged["metrics"]
    found |= {name: None for name, value in info["metrics"].items() if value is None and not why_not_own(name)}
    metrics = {
        named: value
        for name, value in found.items()
        if not (name in CONFUSION or is_count(name) or name.endswith(WEIGHTED))
        and ((named := f"{CENTRAL_PREFIX}{name}") in ruled or value is not None)
    }
    examples: int = info["metadata"]["datasetSize"]
    words = {f"{CENTRAL_PREFIX}{name}": word for name, word in not_finite_of(info).items()}
    odd = {name: word for name, word in words.items() if name in metrics}
    kept: dict[str, Any] = {NOT_FINITE: text_of(odd)} if odd else {}
    if lost := left_out_alone(merged):
        kept["leftOut"] = {OPERATOR: lost}
    return {"metadata": {"clients": [], "datasetSize": [examples], **kept}, "metrics": metrics}, examples
