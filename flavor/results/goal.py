"""The model with which a run has met a goal of `--stop-when`, which later rounds may have replaced."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from typing import NamedTuple

from flavor.config import RunConfig
from flavor.evaluation_settings import rules_of
from flavor.policy.selection import LARGER, SMALLER, StopWhen
from flavor.printable import shown_name
from flavor.records.evaluation import CENTRAL, EvaluationKind, EvaluationSummary


class Goal(NamedTuple):
    """A goal of `--stop-when`, and the newest model that meets it."""

    rule: str
    name: str
    value: float
    round: int
    lost: str = ""
    """Why the model cannot be had any more; '' where it can."""

    @property
    def words(self) -> str:
        """`central/accuracy 0.96 (--stop-when 'central/accuracy>=0.95')`."""
        return f"{shown_name(self.name)} {self.value:.6g} (--stop-when {self.rule!r})"


def goal_met(config: RunConfig, summaries: Iterable[EvaluationSummary]) -> Goal | None:
    """Return the goal that the newest model meets of those that meet one; None where no model does."""
    found = list[Goal]()
    for summary in summaries:
        if EvaluationKind.of(summary.number) is not EvaluationKind.ASKED:
            when = rules_of(config, central=summary.number == CENTRAL).when
            values = ((rule, rule.is_met(summary)) for rule in when)
            found += [Goal(rule.text, rule.name, value, summary.round) for rule, value in values if value is not None]
    return max(found, key=lambda each: each.round, default=None)


def goal_behind(
    config: RunConfig,
    summaries: Iterable[EvaluationSummary],
    *,
    closed: int,
    is_there: Callable[[int], bool] = lambda _: True,
) -> Goal | None:
    """Return the goal of a run that has ended by it, if its model is not the last one.

    `is_there` says whether the model of a round is in the store.
    """
    goal = goal_met(config, summaries)
    if goal is None or goal.round >= closed:
        return None
    return goal if is_there(goal.round) else goal._replace(lost=_why_lost(config, goal))


def _why_lost(config: RunConfig, goal: Goal) -> str:
    keeps = f" (--keep-globals {config.keep_globals})" if config.keep_globals else ""
    why = f"it is no longer in the store{keeps}"
    if config.select is not None:
        return why
    select = f"{goal.name}:{LARGER if '>' in StopWhen.parse(goal.rule).sign else SMALLER}"
    return f"{why}; --select {shlex.quote(select)} keeps the best model"
