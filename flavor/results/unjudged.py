"""What a run lacks of evaluations: why its newest model was not judged, and which rules have no value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.evaluation_settings import rules_of
from flavor.policy.selection import choose
from flavor.records.evaluation import AUTOMATIC, CENTRAL, EvaluationSummary
from flavor.records.run import RunView
from flavor.records.states import EvaluationState

NEEDED = "an evaluation needs a site or an aggregator with an evaluator (-e), and is due by --evaluate"
"""What a run lacks of which no model was judged."""
_LOOKED = 100
"""Rounds that are looked through for the newest evaluation: of most runs, that of the last round is the newest."""


@dataclass(frozen=True)
class Unjudged:
    """An evaluation that the coordinator has opened, and that has no result."""

    round: int
    reason: str
    """The reason in the log, which names the model."""
    is_central: bool
    """Whether it was on the operator's own data."""
    sites: tuple[str, ...]
    """The sites whose results do not count; empty where another thing than their results was wrong."""


def unjudged(runs: RunStore, view: RunView, round_: int | None = None) -> list[Unjudged]:
    """Return the newest evaluation by the sites, and that on the operator's own data, where these have no result.

    Or those of the model of `round_`.
    """
    rounds = range(view.round, max(0, view.round - _LOOKED), -1) if round_ is None else [round_]
    found = (_newest(runs, rounds, number) for number in (AUTOMATIC, CENTRAL))
    return [each for each in found if each is not None]


def _newest(runs: RunStore, rounds: Iterable[int], number: int) -> Unjudged | None:
    for round_ in rounds:
        view = runs.read_evaluation(round_, number)
        if view is not None and view.is_over:
            sites = view.expected if view.is_hopeless or not view.attempt else ()
            has_failed = view.state is EvaluationState.FAILED
            return Unjudged(round_, view.reason, view.is_central, sites) if has_failed else None
    return None


def without_value(config: RunConfig, summary: EvaluationSummary) -> list[str]:
    """Return the rules that need a value of this evaluation and find none, each with the reason."""
    rules = rules_of(config, central=summary.number == CENTRAL)
    return list(choose(None, summary, select=rules.select, when=rules.when).notes)


def without_value_at_last(config: RunConfig, summaries: Iterable[EvaluationSummary]) -> list[str]:
    """Return the rules that find no value in the newest evaluation of their kind, each with the reason."""
    newest = {each.number: each for each in summaries}
    found: list[str] = []
    for number in (AUTOMATIC, CENTRAL):
        if number in newest:
            found += without_value(config, newest[number])
            continue
        rules = rules_of(config, central=number == CENTRAL)
        named = [*(["--select"] if rules.select else []), *(["--stop-when"] if rules.when else [])]
        found += [f"{option}: no evaluation of its metric has had a result" for option in named]
    return found
