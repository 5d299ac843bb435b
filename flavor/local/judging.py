"""What `flavor run` prints of evaluations that lack something, with the file that says more."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.evaluation_settings import EVERY, mode_of, rules_of, select_of
from flavor.policy.advice import natural
from flavor.policy.central import where_of
from flavor.policy.selection import value_of
from flavor.printable import printable
from flavor.programs.process import shortened
from flavor.records.evaluation import CENTRAL, EvaluationKind, EvaluationSummary
from flavor.results.best_when_judged import best_by, summary_in
from flavor.results.evaluated import OWN_DATA, by_sites_of
from flavor.results.metric_of_sites import shown_by
from flavor.results.unjudged import unjudged, without_value
from flavor.stamp import without_stamp
from flavor.view.evaluation_events import EvaluationClosed, EvaluationEvent, EvaluationFailed
from flavor.view.event import Event

_LAST_BYTES = 64 * 1024
_LONGEST_WORDS = 300
_NOT_JUDGED = re.compile(r"\[[^]]*\] (flavor: .{,60} could not be judged: |run \S+: (?=the evaluator ))(?P<words>.+)")
"""What an edge and an aggregator print of a model that they could not judge, behind their names."""

_ENDED = re.compile(r"the evaluator ended .{,80}?\): ")
_MOST_LOGS = 20


@dataclass(frozen=True)
class JudgedModel:
    """A global model that the run has had judged, as `flavor run` shows it."""

    round: int
    seconds: float
    by: str
    """`by 3 sites`, or `on the operator's own data`."""
    value: str
    """`accuracy 0.91 (plain mean)`, with the value of `--select` where that is another; '' where none is finite."""
    best_by: str = ""
    """The run's `--select`, where the model was the best by it when it was judged; '' where it was not."""
    holds_up: bool = False
    """Whether the next round had to wait for it, as it does for that of every round."""

    @property
    def words(self) -> str:
        """`accuracy 0.91 (plain mean) by 3 sites, the best so far (--select accuracy:max)`."""
        best = f", the best so far (--select {self.best_by})" if self.best_by else ""
        return f"{self.value or 'no finite metric'} {self.by}{best}"


def judged_model(runs: RunStore, event: Event) -> JudgedModel | None:
    """Return what an event says of a model that the run has had judged by itself; None where it says nothing."""
    if not isinstance(event, EvaluationClosed) or event.kind in (None, EvaluationKind.ASKED):
        return None
    found = _summary(runs, event)
    if found is None:
        return None
    is_central, config = event.kind is EvaluationKind.CENTRAL, RunConfig.known(runs.read().config)
    return JudgedModel(
        found.round,
        (found.closed_ms - found.opened_ms) / 1000,
        OWN_DATA if is_central else by_sites_of(found.sites, found.expected),
        shown_by(found, select_of(config)),
        str(best_by(runs, found) or ""),
        not is_central and mode_of(config) == EVERY,
    )


def _summary(runs: RunStore, event: EvaluationClosed) -> EvaluationSummary | None:
    """Return the numbers of the evaluation; None where Redis has none."""
    return summary_in(runs, event.round, event.number or 0) if event.round is not None else None


def judging_line(runs: RunStore, event: EvaluationEvent, logs: Path, told: set[str]) -> str:
    """Return the line about an evaluation that failed, lacks a site or a rule's value, or has replaced a best model.

    '' for any other, and where its fault is in `told`, to which it is added.
    """
    if event.round is None or event.kind in (None, EvaluationKind.ASKED):
        return ""
    fault, line = "", ""
    if isinstance(event, EvaluationFailed):
        fault, line = _failed(runs, event, event.round, logs)
    elif isinstance(event, EvaluationClosed):
        fault, line = _incomplete(runs, event, event.round, logs)
    if not fault or fault in told:
        return ""
    told.add(fault)
    return line


def _failed(runs: RunStore, event: EvaluationEvent, round_: int, logs: Path) -> tuple[str, str]:
    """Return what was wrong with an evaluation that has no result, without the round, and the line about it."""
    is_central = event.kind is EvaluationKind.CENTRAL
    found = [each for each in unjudged(runs, runs.read(), round_) if each.is_central == is_central]
    sites = [site for each in found for site in each.sites]
    return event.reason.partition(": ")[2], event.reason + named_log(logs, sites)


def _incomplete(runs: RunStore, event: EvaluationClosed, round_: int, logs: Path) -> tuple[str, str]:
    """Return what an evaluation with a result lacks, and the line about it; '' for nothing."""
    number = event.number or 0
    view = runs.read_evaluation(round_, number)
    missing = {site: each.reason for site, each in view.verdicts.items() if not each.accepted} if view else {}
    config, found = RunConfig.known(runs.read().config), _summary(runs, event)
    lacking = without_value(config, found) if found is not None else []
    given_way = [words] if found is not None and (words := given_way_words(config, found)) else []
    if not missing and not lacking and not given_way:
        return "", ""
    what = where_of(round_) if event.kind is EvaluationKind.CENTRAL else f"evaluation of the model of round {round_}"
    line = "; ".join((f"{what}: {event.reason}", *given_way))
    return f"{missing} {lacking} {given_way}", f"{line}{named_log(logs, missing) if missing else ''}"


def given_way_words(config: RunConfig, summary: EvaluationSummary) -> str:
    """Return that the best model so far has given way to this one because it had diverged; '' where it has not."""
    select, made = rules_of(config, central=summary.number == CENTRAL).select, summary.comparison
    if select is None or not made.recovered.count or not made.is_better(is_larger=select.is_larger):
        return ""
    found = value_of(select.name, summary, is_larger=select.is_larger)
    return (
        f"the best by {select.name} is now the model of round {summary.round}, {found[0]:.6g}: that of round "
        f"{summary.best_before} has diverged at {made.recovered.words}, where this one has a finite value"
        if found is not None
        else ""
    )


def named_log(logs: Path, sites: Iterable[str]) -> str:
    """Return, to be added to a reason, what the log says of it, and which log: of a site, or of an aggregator.

    What an evaluator has printed stays at its site, and the reason does not quote it. Here the site is this user's.
    Quoted is the first of the sites whose evaluator has ended with a line of its own, which no reason has, or the
    first of all.
    """
    names = sorted(sites, key=natural)
    found = [logs / f"{name}.log" for name in names[:_MOST_LOGS]] or sorted(logs.glob("aggregator*.log"))[:1]
    if not found:
        return ""
    every = [(log, _own_words(log)) for log in found]
    log, words = next((each for each in every if _ENDED.match(each[1])), every[0])
    return f"{f'; {log.stem}: {words}' if words else ''}; its log: {log}"


def _own_words(log: Path) -> str:
    """Return what the newest line about a model that could not be judged says in the log of its site or aggregator."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LAST_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    for line in reversed(text.splitlines()):
        if found := _NOT_JUDGED.fullmatch(without_stamp(line)):
            return shortened(printable(found["words"].partition("; before that: ")[0]), _LONGEST_WORDS)
    return ""
