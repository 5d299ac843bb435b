"""Whether a judged model was the run's best one when it was judged, also where a later one is the best by now."""

from __future__ import annotations

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.evaluation_settings import rules_of
from flavor.policy.selection import Select, best_among, value_of
from flavor.records.evaluation import CENTRAL, EvaluationKind, EvaluationSummary
from flavor.results.read_evaluated import summaries, summaries_after

_LAST = 20
"""Entries of the run's list among which an evaluation is looked for first: most are told of soon."""


def summary_in(runs: RunStore, round_: int, number: int) -> EvaluationSummary | None:
    """Return the numbers of an evaluation, which is probably one of the newest; None where Redis has none."""
    for first in (-_LAST, 0):
        found = [each for each in summaries_after(runs, first) if each is not None]
        if one := next((each for each in reversed(found) if (each.round, each.number) == (round_, number)), None):
            return one
    return None


def best_by(runs: RunStore, summary: EvaluationSummary) -> Select | None:
    """Return the rule by which the model of an evaluation was the best of those judged until then; None where not.

    What tells of an evaluation may be behind: the best model of now may be a later one. A rule goes by the evaluations
    of the sites, or by those on the operator's own data, and by none that a command has asked for.
    """
    if EvaluationKind.of(summary.number) is EvaluationKind.ASKED:
        return None
    select = rules_of(RunConfig.known(runs.read().config), central=summary.number == CENTRAL).select
    return select if select is not None and _was_best(runs, select, summary) else None


def _was_best(runs: RunStore, select: Select, summary: EvaluationSummary) -> bool:
    if value_of(select.name, summary, is_larger=select.is_larger) is None:
        return False
    if summary.best_before and summary.comparison.is_made:
        return summary.comparison.is_better(is_larger=select.is_larger)
    until = list[EvaluationSummary]()
    for each in summaries(runs):
        if each.number == summary.number:
            until.append(each)
        if each == summary:
            break
    best = best_among(until, select)
    return best is not None and best.round == summary.round
