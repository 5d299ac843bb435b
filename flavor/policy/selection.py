"""Which evaluated model is the best, and when the best is good enough: pure functions of evaluations' summaries.

A rule names a merged metric of evaluations, as `accuracy`, `accuracy (weighted)`, `pooled/auc` or `central/loss`.
`worst/accuracy` stands for the value of the site that is worst.

Values of different sites are not compared: a mean that lacks the worst site would look better than it is. Compared is
what the sites report that have judged both models, the best one so far and a new one (`Beside`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flavor.counted import counted
from flavor.policy.compared import Found, compared_notes, of_both
from flavor.policy.near_names import there_are
from flavor.records.comparison import NOT_COMPARED, Beside, Comparison
from flavor.records.counts import BOUND, POOLED, WORST
from flavor.records.evaluation import BestModel, EvaluationSummary
from flavor.records.merging import WEIGHTED, sites_with
from flavor.records.tolerance import exceeds, order

LARGER, SMALLER = "max", "min"
_COMPARED = re.compile(r"(?P<name>[^<>=]+?)\s*(?P<sign>>=|<=|>|<)\s*(?P<value>[^<>=]+)")
_GAIN = re.compile(r"(?P<times>[0-9]{1,6})(:(?P<least>.+))?")


def same_number(before: BestModel, found: Found) -> Comparison:
    """Compare the values as they are, if as many sites have judged both models."""
    has_both = found is not None and found[1] == before.sites
    return Comparison(Beside(found[0], before.value, found[1])) if found is not None and has_both else NOT_COMPARED


@dataclass(frozen=True)
class Select:
    """`--select NAME:max` or `NAME:min`."""

    name: str
    is_larger: bool

    @classmethod
    def parse(cls, text: str) -> Select:
        """Read the option. Raises `ValueError`."""
        name, _, which = text.rpartition(":")
        if not name.strip() or which.strip() not in (LARGER, SMALLER):
            raise ValueError(
                "NAME:max or NAME:min is needed, a metric of evaluations and which values are better, e.g. accuracy:max"
            )
        return cls(name.strip(), which.strip() == LARGER)

    @property
    def base(self) -> str:
        """The metric of sites, or of all of them: `accuracy` of `worst/accuracy`."""
        return self.name.removeprefix(WORST)

    @property
    def merged(self) -> str:
        """The merged metric on which it depends, without `(weighted)`, as `flavor.records.reporters` has it."""
        return _plain(self.name)

    @property
    def site_metric(self) -> str | None:
        """The metric that sites report for it by that name; None for one that is computed of their counts."""
        return None if self.name.startswith(POOLED) else self.merged

    def __str__(self) -> str:
        """Return the option's text."""
        return f"{self.name}:{LARGER if self.is_larger else SMALLER}"

    def best(
        self, before: BestModel | None, summary: EvaluationSummary, comparison: Comparison = NOT_COMPARED
    ) -> BestModel | None:
        """Return the best after this evaluation: a new one, or the one before.

        `comparison` is that of both models. Where none could be made, a model that more sites have judged takes the
        place of one that fewer have. Of equal values the earlier stays.
        """
        found = value_of(self.name, summary, is_larger=self.is_larger)
        if found is None:
            return before
        new = BestModel(summary.round, *found)
        if before is None or (not comparison.is_made and new.sites > before.sites):
            return new
        return new if comparison.is_better(is_larger=self.is_larger) else before


@dataclass(frozen=True)
class StopWhen:
    """`--stop-when "NAME>=VALUE"`."""

    name: str
    sign: str
    bound: float
    text: str

    @classmethod
    def parse(cls, text: str) -> StopWhen:
        """Read the option. Raises `ValueError`."""
        found = _COMPARED.fullmatch(text.strip())
        try:
            bound = float(found["value"]) if found else float("nan")
        except ValueError:
            bound = float("nan")
        if found is None or math.isnan(bound):
            quotes = "" if re.search("[<>=]", text) else ", in quotes: without them, > makes a shell write a file"
            raise ValueError(f'a metric of evaluations, a sign and a number are needed, e.g. "accuracy>=0.95"{quotes}')
        return cls(found["name"].strip(), found["sign"], bound, text.strip())

    def is_met(self, summary: EvaluationSummary) -> float | None:
        """Return the value that is good enough; None where it is not, or a site is missing from it."""
        return None if self.incomplete(summary) else self._good(summary)

    def not_counted(self, summary: EvaluationSummary) -> str:
        """Return why a value does not end the run though it is good enough; '' where it does, or is not."""
        value, why = self._good(summary), self.incomplete(summary)
        if value is None or not why:
            return ""
        return f"--stop-when {self.text!r} does not count, though {self.name} is {value:.6g}: {why}"

    def incomplete(self, summary: EvaluationSummary) -> str:
        """Return which sites are missing from the value; '' where none is.

        A site has to have a result, and a finite value if it has a part in the metric; see `flavor.records.lacking`.
        """
        if missing := summary.expected - summary.sites:
            who = summary.missing.words if summary.missing.count else counted(missing, "site")
            return f"{who} {'has' if missing == 1 else 'have'} no result"
        name = _plain(self.name)
        if (lacking := summary.lacking.get(name)) is not None:
            return lacking.words(name)
        if sites_with(name, summary.few, summary.sites) < summary.sites:
            return f"{name} was not in a rule then, and it is not known who had reported it before"
        return ""

    def _good(self, summary: EvaluationSummary) -> float | None:
        found = value_of(self.name, summary, is_larger=">" in self.sign)
        if found is None:
            return None
        way = order(found[0], self.bound)
        is_good = {">=": way >= 0, ">": way > 0, "<=": way <= 0, "<": way < 0}[self.sign]
        return found[0] if is_good else None


@dataclass(frozen=True)
class StopAfterNoGain:
    """`--stop-after-no-gain 5:0.001`: so many evaluations without a gain of more than that."""

    times: int
    least: float = 0.0

    @classmethod
    def parse(cls, text: str) -> StopAfterNoGain:
        """Read the option. Raises `ValueError`."""
        found = _GAIN.fullmatch(str(text).strip())
        try:
            least = float(found["least"] or 0) if found else -1.0
        except ValueError:
            least = -1.0
        if found is None or not 0 <= least < float("inf") or int(found["times"]) < 1:
            raise ValueError("a number of evaluations is needed, and after a colon the least gain, e.g. 5 or 5:0.001")
        return cls(int(found["times"]), least)

    def gains(self, select: Select, summaries: Iterable[EvaluationSummary]) -> Gains:
        """Return how many evaluations in a row have had no gain by now.

        Each model is compared with the best one before it, over the sites that have judged both, and gains that are
        not enough by themselves add up. A model that has diverged at a site is no gain. An evaluation that could not be
        compared does not count.

        Models are compared in the order of their rounds. A result that comes after that of a later round may be the
        best, with which those after it are compared. It is neither a gain nor one without: it says nothing of how the
        run goes on.
        """
        best: BestModel | None = None
        last: BestModel | None = None
        since = apart = 0
        lead = 0.0  # how much better `best` is than `last`, the last one with a gain
        newest = 0  # the newest round that was compared
        for summary in summaries:
            found = value_of(select.name, summary, is_larger=select.is_larger)
            made = _comparison(best, summary, found) if best is not None else NOT_COMPARED
            new = select.best(best, summary, made)
            is_late = summary.round < newest
            if best is not None and not is_late:
                since, apart = (since + 1, apart) if made.is_made else (since, apart + 1)
            if made.beside is not None and not made.diverged.count:
                lead += made.gained(is_larger=select.is_larger)
            enough = made.beside is None or exceeds(lead, self.least, of=made.beside.best)
            is_gain = enough or made.recovered.count > 0
            if new is not None and new is not best and is_gain:
                last, lead = new, 0.0
                since, apart = (since, apart) if is_late else (0, 0)
            if found is not None or made.is_made:
                newest = max(newest, summary.round)
            best = new
        return Gains(since, last, apart)


class Gains(NamedTuple):
    """How the evaluations of a run have gone on since the last one with a gain."""

    since: int
    """Evaluations that were compared and had no gain."""
    last: BestModel | None
    """The last model that was a gain."""
    apart: int
    """Further evaluations since then, which could not be compared."""


def _comparison(best: BestModel, summary: EvaluationSummary, found: Found) -> Comparison:
    """Return what the worker has compared; of an evaluation without that, the values as they are."""
    return summary.comparison if summary.best_before == best.round else same_number(best, found)


def value_of(name: str, summary: EvaluationSummary, *, is_larger: bool) -> Found:
    """Return the value of a rule's metric in an evaluation, and how many sites report it; None where it is missing.

    `is_larger` says whether larger values are better, on which the worst site depends.
    """
    if name.startswith(WORST):
        base = name.removeprefix(WORST)
        both = summary.spread.get(base)
        return (both[0 if is_larger else 1], sites_with(base, summary.few, summary.sites)) if both else None
    value = summary.metrics.get(name)
    return None if value is None else (value, sites_with(name, summary.few, summary.sites))


def names_in(rules: Iterable[Select | StopWhen | None]) -> list[str]:
    """Return the names of the sites' metrics on which these rules depend, as the merged information has them."""
    return list(dict.fromkeys(_plain(rule.name) for rule in rules if rule))


def _plain(name: str) -> str:
    """Return the merged metric on which a rule's metric depends, without `(weighted)`."""
    return name.removeprefix(WORST).removesuffix(WEIGHTED)


def is_not_finite(name: str, summary: EvaluationSummary) -> bool:
    """Return whether a site reports a rule's metric, and no finite number."""
    found = summary.lacking.get(_plain(name))
    return found is not None and found.not_finite.count > 0


def lacking(name: str, summary: EvaluationSummary) -> str:
    """Return why a rule has no value in an evaluation: who lacks it, or which metrics there are; '' for a value."""
    if value_of(name, summary, is_larger=True) is not None:
        return ""
    if is_not_finite(name, summary):
        return summary.lacking[_plain(name)].words(_plain(name))
    return f"there is no metric {name!r}: {there_are(name, summary.metrics)}"


def _diverged(select: Select, summary: EvaluationSummary) -> str:
    """Return at which sites a model is infinite or NaN that has a value without them; '' for none."""
    found = summary.lacking.get(select.merged)
    has_value = value_of(select.name, summary, is_larger=select.is_larger) is not None
    return found.words(select.merged) if found is not None and found.has_diverged and has_value else ""


class Choice(NamedTuple):
    """What an evaluation means for the rules of its run."""

    best: BestModel | None
    """The best model after it."""
    reason: str
    """Why its model is the best so far; '' where it is not."""
    notes: tuple[str, ...]
    """What the operator should know: a rule without a value, a value that could not be compared."""
    comparison: Comparison = NOT_COMPARED
    """How its model compares with the best one before."""


def choose(
    before: BestModel | None,
    summary: EvaluationSummary,
    *,
    select: Select | None,
    when: Sequence[StopWhen],
    compare: Callable[[BestModel, Found], Comparison] = same_number,
) -> Choice:
    """Return what this evaluation means; `before` is the best model of the evaluations before it.

    `compare` gets the best model so far and the value of the new one with the number of its sites.
    """
    rules = [*([("--select", select.name)] if select else []), *(("--stop-when", rule.name) for rule in when)]
    notes = [f"{option}: {why}" for option, name in rules if (why := lacking(name, summary))]
    notes += not_counted(when, summary)
    found = value_of(select.name, summary, is_larger=select.is_larger) if select else None
    if select is None:
        return Choice(before, "", tuple(notes))
    if diverged := _diverged(select, summary):
        notes.append(f"--select: {diverged}")
    made = compare(before, found) if before is not None else NOT_COMPARED
    best = select.best(before, summary, made)
    if best is None or best is before or found is None:
        notes += compared_notes(select.name, before, found, made) if before is not None else []
        return Choice(before, "", tuple(notes), made)
    several = f" (of {best.sites} of {counted(summary.expected, 'site')})" if best.sites < summary.expected else ""
    reason = f"the best so far by {select.name}: {best.value:.6g}{several}"
    if before is not None:
        reason += f", after {before.value:.6g} in round {before.round}"
        reason += f", which {counted(before.sites, 'site')} had judged" if before.sites != best.sites else ""
        reason += f", and which has diverged at {made.recovered.words}" if made.recovered.count else ""
        reason += of_both(select.name, before, made, best.value)
    reason += f"; {diverged}" if diverged else ""
    bound = summary.metrics.get(select.name + BOUND)
    if bound and (both := made.beside) is not None and not exceeds(abs(both.value - both.best), bound, of=both.best):
        within = f"the gain is within the bound of its error, ± {bound:.2g}, and may be none"
        reason += f"; {within}"
        notes.append(f"--select: {select.name}: {within}")
    return Choice(best, reason, tuple(notes), made)


def not_counted(when: Iterable[StopWhen], summary: EvaluationSummary) -> list[str]:
    """Return which goals would be reached by an evaluation, were they not without a site, and which site that is."""
    return [why for rule in when if (why := rule.not_counted(summary))]


def stops(
    summaries: Sequence[EvaluationSummary],
    *,
    when: Iterable[StopWhen],
    after: StopAfterNoGain | None,
    select: Select | None,
) -> str:
    """Return why a run has reached its goal with the newest of these evaluations; '' where it has not."""
    if not summaries:
        return ""
    newest = summaries[-1]
    for rule in when:
        if (value := rule.is_met(newest)) is not None:
            return f"{rule.name} of the model of round {newest.round} is {value:.6g} (--stop-when {rule.text!r})"
    if after is not None and select is not None:
        since, best, apart = after.gains(select, summaries)
        if since >= after.times and best is not None:
            option = f"(--stop-after-no-gain {after.times}{f':{after.least:g}' if after.least else ''})"
            in_all = f"in {counted(since, 'evaluation')} {option}"
            in_all += (
                f"; {counted(apart, 'further one')} could not be compared with it: too few sites have a value of both"
                if apart
                else ""
            )
            if after.least:
                than = f"in round {best.round}, {best.value:.6g}"
                return f"{select.name} has not got better by more than {after.least:g} than {than}, {in_all}"
            return f"{select.name} was best in round {best.round}, {best.value:.6g}, and has not got better {in_all}"
    return ""


def reached(
    summaries: Sequence[EvaluationSummary],
    *,
    first: int,
    when: Iterable[StopWhen],
    after: StopAfterNoGain | None,
    select: Select | None,
) -> str:
    """Return why a run has reached its goal with one of these evaluations, and which model is the best by now.

    Asked are the evaluations from the one of number `first` on, counted from 1. '' where none has reached it.
    """
    when = list(when)
    for end in range(max(first, 1), len(summaries) + 1):
        if why := stops(summaries[:end], when=when, after=after, select=select):
            return why + _judged_since(summaries, end, select)
    return ""


def _judged_since(summaries: Sequence[EvaluationSummary], end: int, select: Select | None) -> str:
    """Return which model is the best now that was judged after the first `end` evaluations; '' where none is."""
    if select is None:
        return ""
    best = best_among(summaries, select)
    if best is None or best == best_among(summaries[:end], select):
        return ""
    return f"; judged after that, the model of round {best.round} is the best by {select.name}: {best.value:.6g}"


def best_among(summaries: Iterable[EvaluationSummary], select: Select) -> BestModel | None:
    """Return the best model by this rule of those of the evaluations, which are in the order of their results."""
    best: BestModel | None = None
    for summary in summaries:
        found = value_of(select.name, summary, is_larger=select.is_larger)
        best = select.best(best, summary, _comparison(best, summary, found) if best is not None else NOT_COMPARED)
    return best
