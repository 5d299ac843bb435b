"""Inspect and merge the results of one evaluation: each must be its site's, signed, of the model that was to be judged.

All results are judged in one job, at the end of the evaluation: they are small, and no site can hand in a second one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from rq.timeouts import JobTimeoutException

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.counted import counted
from flavor.errors import BusUnavailable, FlavorError, IllegalMove, InvalidResult, StoreUnavailable
from flavor.evaluation_settings import rules_of, select_of
from flavor.failpoints import reach
from flavor.ledger.evaluation import JudgeRecord
from flavor.ledger.statement import EvaluationStatement
from flavor.policy.advice import listed
from flavor.policy.compared import Found
from flavor.policy.selection import Choice, choose, same_number
from flavor.printable import quoted
from flavor.records.comparison import Comparison
from flavor.records.evaluation import (
    AUTOMATIC,
    BestModel,
    EvaluationSummary,
    EvaluationView,
    Result,
    ResultVerdict,
)
from flavor.records.info import MAX_BYTES, Info, parse_info
from flavor.records.lacking import away_of, reported_by_now
from flavor.records.merging import merge_infos
from flavor.records.not_finite import not_finite_of
from flavor.records.objects import ObjectRef, is_digest
from flavor.records.run import RunView
from flavor.records.update import Refused, handed_size
from flavor.results.evaluation_summary import evaluation_summary, first_ruled, ruled_names
from flavor.results.judged_both import JudgedBoth
from flavor.results.metric_of_sites import shown_by
from flavor.results.site_measures import first_names, kept_of
from flavor.store.paths import checked_path, evaluation_prefix, named, result_prefix
from flavor.view.evaluation_events import EvaluationClosed
from workers.beside_best import BesideBest
from workers.closing import Ending, Outcome, is_current, record_and_close
from workers.context import WorkerContext
from workers.fault import GivenBack, own_fault
from workers.in_hand import in_hand
from workers.missing import why_missing
from workers.notes import of_counts, of_weighted_means
from workers.reports import take_report
from workers.signatures import Signatures

_TAIL = re.compile(r"[0-9a-f]{1,64}\.json")
_LONGEST_REASON = 500


def merge_results(context: WorkerContext, run: str, round_: int, number: int, *, attempt: int) -> bool:
    """Merge the results, unless another attempt is current, or another worker has this one in hand.

    An error is reported to the coordinator, which tries again or gives the evaluation up. Raises `GivenBack` for a
    fault of this worker or its store.
    """
    runs = context.run(run)
    view = runs.read_own()
    evaluation = runs.read_evaluation(round_, number)
    if evaluation is None or not is_current(evaluation, attempt):
        return False
    context.require_record(view)
    try:
        with in_hand(runs, view, evaluation) as is_ours:
            if not is_ours:
                return False
            reason = _Merge(context, runs, view, evaluation).commit()
    except IllegalMove:  # another worker was faster
        return False
    except NoResult as error:
        with suppress(IllegalMove):
            runs.fail_merge(round_, number, attempt=attempt, reason=str(error), is_hopeless=True)
        return False
    except (GivenBack, BusUnavailable):
        raise
    except Exception as error:
        if fault := own_fault(context.store, view, error):
            raise GivenBack.of(fault) from error
        why = "it took too long" if isinstance(error, JobTimeoutException) else f"{type(error).__name__}: {error}"
        with suppress(IllegalMove):
            runs.fail_merge(round_, number, attempt=attempt, reason=why[:_LONGEST_REASON])
        return False
    context.observer.hear(EvaluationClosed(reason, round_, number, run=run))
    return True


def _said_of(refused: Refused) -> str:
    """Return why a site has no result, in quotation marks, because the site has written it."""
    return quoted(refused.reason, most=_LONGEST_REASON) or "its edge refused it, and gave no reason"


class NoResult(InvalidResult):
    """No site has a result that counts."""


class _Merge:
    """One attempt to merge the results of one evaluation."""

    def __init__(self, context: WorkerContext, runs: RunStore, view: RunView, evaluation: EvaluationView) -> None:
        self._context, self._runs, self._view, self._evaluation = context, runs, view, evaluation
        self._config, self._signatures = (
            RunConfig.of_run(view.run, view.config, by=view.release),
            Signatures.of(runs, view),
        )
        self._prefix = evaluation_prefix(view.run, evaluation.round, evaluation.number)
        self._infos: dict[str, Info] = {}

    def commit(self) -> str:
        """Judge the results, store what they merge to, and close the evaluation; return the reason in the log."""
        evaluation = self._evaluation
        verdicts = self._verdicts()
        counting = {client: each.result for client, each in verdicts.items() if each.accepted and each.result}
        missing = {client: each.reason for client, each in verdicts.items() if not each.accepted}
        told = listed(missing)[:2000] if missing else ""
        if not counting:
            raise NoResult(f"no result counts: {told}")
        infos = {client: self._infos[client] for client in counting}
        first = first_names(infos.values(), first_ruled(self._config))
        verdicts |= {client: replace(verdicts[client], **kept_of(of, first)._asdict()) for client, of in infos.items()}
        merged = merge_infos(list(infos), list(infos.values()))
        examples = sum(result.num_examples for result in counting.values())
        sites = {client: each["metrics"] for client, each in infos.items()}
        is_own = evaluation.number == AUTOMATIC
        known = self._runs.reported() if is_own else {}
        ruled = ruled_names(self._config, central=False) if is_own else []
        away = away_of(ruled, evaluation.expected, known)
        summary = evaluation_summary(
            evaluation.round,
            evaluation.number,
            opened_ms=evaluation.opened_ms,
            expected=len(evaluation.expected),
            missing=set(evaluation.expected) - counting.keys(),
            examples=examples,
            merged=merged,
            sites=sites,
            config=self._config,
            before=known,
            away=away,
            odd={client: not_finite_of(each) for client, each in infos.items()},
        )
        summary = replace(summary, of=evaluation.of)
        reason = "" if evaluation.round else f"{evaluation.what}: "
        reason += f"{counted(len(counting), 'result')}, {counted(examples, 'example')}"
        reason += f": {shown}" if (shown := shown_by(summary, select_of(self._config))) else ""
        reason += f"; without {told}" if told else ""
        replaced = self._runs.replaced()
        judges = tuple(JudgeRecord.of(client, each, replaced.get(client, ())) for client, each in counting.items())

        def end(before: BestModel | None) -> Ending:
            choice = self._chosen(before, summary, infos)
            notes = (*choice.notes, *of_counts(merged, infos), *of_weighted_means(merged, infos))
            said = reason + "".join(f"; {line}" for line in notes)
            return Ending(choice, self._compared(summary, before, choice), said)

        return record_and_close(
            self._context,
            self._runs,
            self._view,
            evaluation,
            Outcome(
                merged,
                {
                    "expected": evaluation.expected,
                    "judges": judges,
                    "missing": missing,
                    "away": away or None,
                    "training": evaluation.training or None,
                },
                verdicts,
                reported_by_now(ruled, sites, known),
            ),
            end,
            best=self._view.best,
            failpoint="worker.evaluated",
        )

    def _chosen(self, before: BestModel | None, summary: EvaluationSummary, infos: Mapping[str, Info]) -> Choice:
        """Return which model is the best with this evaluation. What somebody asks for decides nothing."""
        if self._evaluation.number != AUTOMATIC:
            return Choice(before, "", ())
        rules = rules_of(self._config, central=False)
        compare: Callable[[BestModel, Found], Comparison] = same_number
        if rules.select is not None:
            judged_both = JudgedBoth(self._config, rules.select, infos, asked=self._evaluation.expected)
            compare = BesideBest(self._context.store, self._runs, judged_both)
        return choose(before, summary, select=rules.select, when=rules.when, compare=compare)

    def _compared(self, summary: EvaluationSummary, before: BestModel | None, choice: Choice) -> EvaluationSummary:
        """Return the summary with how its model compares with the best one before, where a rule wants that."""
        is_ruled = self._evaluation.number == AUTOMATIC and rules_of(self._config, central=False).select is not None
        if before is None or not is_ruled:
            return summary
        return replace(summary, best_before=before.round, comparison=choice.comparison)

    def _verdicts(self) -> dict[str, ResultVerdict]:
        evaluation = self._evaluation
        handed_in = self._runs.results(evaluation.round, evaluation.number, evaluation.expected)
        lacking = [client for client in evaluation.expected if client not in handed_in]
        why = why_missing(self._runs, evaluation, lacking, lease_s=self._config.heartbeat_timeout_s)
        return {
            client: ResultVerdict(False, why[client]) if client in why else self._judged(client, handed_in[client])
            for client in evaluation.expected
        }

    def _judged(self, client: str, handed_in: Result | Refused) -> ResultVerdict:
        """Return the verdict on one result. Any fault of it becomes the reason of this site alone."""
        if isinstance(handed_in, Refused):
            return ResultVerdict(False, _said_of(handed_in))
        try:
            return self._accepted(client, handed_in)
        except (JobTimeoutException, BusUnavailable):
            raise
        except Exception as error:  # what another party wrote can be wrong in any way
            if fault := own_fault(self._context.store, self._view, error):
                raise GivenBack.of(fault) from error
            if isinstance(error, StoreUnavailable) and error.passing:
                raise
            said = str(error) if isinstance(error, FlavorError) else f"unusable: {type(error).__name__}: {error}"
            return ResultVerdict(False, said[:_LONGEST_REASON])

    def _accepted(self, client: str, result: Result) -> ResultVerdict:
        evaluation, view = self._evaluation, self._view
        model = evaluation.model.model.digest
        if result.model != model:
            judged = result.model[:12]
            raise InvalidResult(f"it is of a model with SHA-256 {judged!r}…, and {model[:12]}… was to be judged")
        info_ref = self._taken(client, result.info)
        info = parse_info(self._context.store.read(info_ref, most=MAX_BYTES), where="info.json")
        num_examples: int = info["metadata"]["datasetSize"]
        if result.num_examples != num_examples:
            handed = handed_size(result.num_examples)
            raise InvalidResult(f"datasetSize is {num_examples} in its info.json, and {handed} was handed in beside it")
        if (most := self._config.max_dataset_size) is not None and num_examples > most:
            raise InvalidResult(f"datasetSize {num_examples} is more than the run allows: {most} (--max-dataset-size)")
        statement = EvaluationStatement(
            run=view.run,
            run_id=view.run_id,
            round=evaluation.round,
            evaluation=evaluation.number,
            client=client,
            model=model,
            num_examples=num_examples,
            info_digest=info_ref.digest,
        )
        checked = self._signatures.check_result(client, result, statement)
        take_report(
            self._context.store,
            info,
            run=view.run,
            round_=evaluation.round,
            number=evaluation.number,
            client=client,
        )
        self._infos[client] = info
        return ResultVerdict(
            True,
            counted(num_examples, "example"),
            Result(info_ref, num_examples, model, checked.public_key, checked.signature, result.try_id),
        )

    def _taken(self, client: str, info: ObjectRef) -> ObjectRef:
        """Return where the result lies once its site cannot reach it, and with which digest it must be read."""
        evaluation, path = self._evaluation, checked_path(info.path)
        prefix = result_prefix(self._view.run, evaluation.round, evaluation.number, client)
        if not path.startswith(prefix) or not _TAIL.fullmatch(path.removeprefix(prefix)):
            raise InvalidResult(f"object path {path!r} does not belong to this client and evaluation")
        if not is_digest(info.digest):  # it becomes a part of a path
            raise InvalidResult(f"info_digest {info.digest[:64]!r} is no SHA-256 in hexadecimal digits")
        target = named(self._prefix, f"result-{client}", info.digest, ".json")
        taken = self._context.store.take(path, checked_path(target), most=MAX_BYTES)
        reach("worker.result_taken")
        return ObjectRef(taken, info.digest)
