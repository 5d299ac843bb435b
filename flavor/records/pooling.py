"""Pooled metrics: those of the examples of all sites together, from the counts that the sites report.

`flavor.cook.metrics` makes the counts. `NAME` is the script's choice, or left out with its slash:

| counts | what they are | metrics `pooled/NAME/…` |
|---|---|---|
| `count/NAME/binary/confusion` | [tp, fp, fn, tn] | `accuracy`, `precision`, `recall`, `specificity`, `f1` |
| `…/binary/positives`, `…/negatives` | examples by bin of scores | `auc`, `average_precision`, their `_bound` |
| `…/binary/squared_error` | [n, Σ (score − label)²] | `brier` |
| `…/binary/calibration` | 10 numbers of examples, of positives, sums of scores | `ece` |
| `…/multiclass/confusion` | a matrix, row by row, rows by true class | `accuracy`, `balanced_accuracy`, `macro_…` |
| `…/regression/errors` | [n, Σ abs(error), Σ error²] | `mae`, `rmse` |
| these and `…/regression/y.moments` | also [n, mean, M2] of the true values | `r2` |

The four `basic/confusion_*`, -1 where not counted, give the metrics of the first row, with `basic` for NAME.

`flavor.records.possible_counts` says which counts of a site can be those of examples, and
`flavor.records.sound_counts` leaves out those that cannot. A metric of several counts is of the sites that report all
of them. What is 0/0 is None, and so is what is no finite number.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from flavor.records import score_histograms
from flavor.records.counts import BOUND, POOLED, PREFIX, NotMerged, of_sites
from flavor.records.possible_counts import CALIBRATION_BINS, MOMENTS_OF_Y, impossible, whole_counts

BASIC = "basic"
"""The NAME of the metrics of `basic/confusion_*`."""
_NAME = re.compile(rf"{PREFIX}((?:.+/)?)(binary|multiclass|regression)/")

Values = dict[str, float | None]
_Ingredients = Sequence[Any]


class _Made(NamedTuple):
    """A metric as one kind of counts gives it."""

    name: str
    value: float | None
    sites: tuple[int, ...]
    """Which sites report the counts, by their positions."""
    counts: tuple[str, ...]
    """The names of the counts."""


class Pooled(NamedTuple):
    """The pooled metrics of a round."""

    metrics: Values
    """By their whole names, in the order in which they are kept: bounds and those of `basic/confusion_*` last."""
    sites: dict[str, tuple[int, ...]]
    """Of which sites each metric is, by their positions."""
    reasons: dict[str, str]
    """Why a count, or a metric, could not be pooled."""


def pooled(sites: Sequence[Mapping[str, Any]], confusion: Sequence[str]) -> Pooled:
    """Compute the pooled metrics of the sites' `metrics`; `confusion` has the names of the cells tp, fp, fn, tn."""
    labels: dict[tuple[str, str], None] = {}
    for metrics in sites:
        labels |= dict.fromkeys((found[1], found[2]) for name in metrics if (found := _NAME.match(name)))
    lists: list[list[_Made]] = []
    reasons: dict[str, str] = {}
    for label, kind in labels:
        made: list[_Made] = []
        path = f"{PREFIX}{label}{kind}/"
        why_not = [impossible(kind, {name: metrics.get(path + name) for name in _COUNTS[kind]}) for metrics in sites]
        for source in _SOURCES[kind]:
            values, those = _of_source(source, path, sites, why_not, reasons)
            counts = tuple(path + each for each in source.counts)
            made += [_Made(f"{POOLED}{label}{name}", value, those, counts) for name, value in values.items()]
        lists.append(made)
    tracked = {
        at: cells for at, metrics in enumerate(sites) if (cells := tracked_cells(metrics, confusion)) is not None
    }
    basic = _of_basic(list(tracked.values()), reasons) if tracked else {}
    last = [_Made(f"{POOLED}{BASIC}/{name}", value, tuple(tracked), tuple(confusion)) for name, value in basic.items()]
    return _collected(lists, last, reasons)


def tracked_cells(metrics: Mapping[str, Any], confusion: Sequence[str]) -> list[Any] | None:
    """Return the cells of the confusion matrix that a site reports by these names; None where it counts none."""
    cells = [metrics.get(cell) for cell in confusion]
    return cells if all(cell is not None and cell >= 0 for cell in cells) else None


def _of_basic(cells: Sequence[Sequence[Any]], reasons: dict[str, str]) -> Values:
    try:
        return _of_confusion([sum(_whole(each)) for each in zip(*cells, strict=True)])
    except NotMerged as error:
        reasons["basic/confusion_tp"] = str(error)
        return {}


def _collected(
    lists: Sequence[Sequence[_Made]],
    last: Sequence[_Made],
    reasons: dict[str, str],
) -> Pooled:
    """Put the metrics in order: the first of each label, the second of each, and so on, so that none displaces others.

    A metric that two kinds of counts give is left out. `flavor.records.sound_counts` leaves one kind where most sites
    agree on it.
    """
    turns = [made[at] for at in range(max(map(len, lists), default=0)) for made in lists if at < len(made)]
    turns.sort(key=lambda each: each.name.endswith(BOUND))
    given = dict[str, _Made]()
    for each in (*turns, *last):
        if (first := given.setdefault(each.name, each)) is not each:
            reasons[each.name] = (
                f"two kinds of counts give it, {first.counts[0]} and {each.counts[0]}: give one of them a name of its "
                "own (name=…)"
            )
    made = {name: each for name, each in given.items() if name not in reasons}
    return Pooled(
        {name: _finite(each.value) for name, each in made.items()},
        {name: each.sites for name, each in made.items()},
        reasons,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _of_source(
    source: _Source,
    path: str,
    sites: Sequence[Mapping[str, Any]],
    why_not: Sequence[Mapping[str, str]],
    reasons: dict[str, str],
) -> tuple[Values, tuple[int, ...]]:
    """Compute the metrics of one source over the sites that report all its counts; return them, and which these are.

    `path` is the beginning of the counts' names, and `why_not` has for each site which of them cannot be, and why. A
    count that does not go together, or is not what the source needs, leaves them out: `reasons` then says why.
    """
    names = [path + each for each in source.counts]
    those = tuple(at for at, metrics in enumerate(sites) if all(metrics.get(name) is not None for name in names))
    if not those:
        return {}, ()
    sums = []
    for each, name in zip(source.counts, names, strict=True):
        try:
            for at in those:
                if each in why_not[at]:
                    raise NotMerged(f"of a site: {why_not[at][each]}")
            sums.append(of_sites(name, [sites[at] for at in those])[0])
        except NotMerged as error:
            reasons[name] = str(error)
    if len(sums) < len(names):
        return {}, ()
    try:
        return source.compute(*sums), those
    except NotMerged as error:
        reasons[names[-1]] = str(error)
        return {}, ()


def _whole(counts: Any) -> list[int]:
    """Return counts of examples as integers. Raises `NotMerged`."""
    try:
        return whole_counts(counts if isinstance(counts, list | tuple) else [counts])
    except ValueError as error:
        raise NotMerged(f"of a site: {error}") from None


# -- what is computed


def _ratio(part: float, whole: float) -> float | None:
    """Return a share; None for 0/0, and where it is too large for a number."""
    try:
        return part / whole if whole else None
    except OverflowError:
        return None


def _of_confusion(cells: _Ingredients) -> Values:
    tp, fp, fn, tn = _sized(_whole(cells), 4)
    return {
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    }


def _of_histograms(positives: _Ingredients, negatives: _Ingredients) -> Values:
    if len(positives) != len(negatives):
        raise NotMerged(f"it has {len(negatives)} bins, and that of the positives {len(positives)}")
    both = _whole(positives), _whole(negatives)
    auc, auc_bound = score_histograms.auc(*both)
    precision, precision_bound = score_histograms.average_precision(*both)
    return {
        "auc": auc,
        "average_precision": precision,
        f"auc{BOUND}": auc_bound,
        f"average_precision{BOUND}": precision_bound,
    }


def _of_squared_error(sums: _Ingredients) -> Values:
    n, squared = _sized(sums, 2)
    return {"brier": _ratio(squared, n)}


def _of_calibration(sums: _Ingredients) -> Values:
    """Return the expected calibration error of the probability of the positive class (Naeini et al., AAAI 2015).

    It is the mean over the bins of abs(share of positives − mean score), weighted by the examples of the bins.
    """
    bins = CALIBRATION_BINS
    _sized(sums, 3 * bins)
    examples, positives, scores = sums[:bins], sums[bins : 2 * bins], sums[2 * bins :]
    gaps = [abs(positive - score) for positive, score in zip(positives, scores, strict=True)]
    return {"ece": _ratio(math.fsum(gaps), sum(examples))}


def _of_multiclass(cells: _Ingredients) -> Values:
    """Return the metrics of a confusion matrix. A class adds to a mean only what is not 0/0 for it.

    So does scikit-learn with `zero_division=np.nan`.
    """
    classes = math.isqrt(len(cells))
    whole = _whole(_sized(cells, classes * classes))
    right = whole[:: classes + 1]
    true = [sum(whole[at * classes : (at + 1) * classes]) for at in range(classes)]
    predicted = [sum(whole[at::classes]) for at in range(classes)]
    recalls = map(_ratio, right, true)
    precisions = map(_ratio, right, predicted)
    f1s = [_ratio(2 * tp, of + said) for tp, of, said in zip(right, true, predicted, strict=True)]
    recall = _mean(recalls)
    return {
        "accuracy": _ratio(sum(right), sum(true)),
        "balanced_accuracy": recall,
        "macro_f1": _mean(f1s),
        "macro_precision": _mean(precisions),
        "macro_recall": recall,
    }


def _of_errors(sums: _Ingredients) -> Values:
    n, absolute, squared = _sized(sums, 3)
    mean = _ratio(squared, n)
    return {"rmse": None if mean is None else math.sqrt(mean), "mae": _ratio(absolute, n)}


def _of_errors_and_moments(sums: _Ingredients, moments: _Ingredients) -> Values:
    (n, _, squared), (_, _, apart) = _sized(sums, 3), moments
    unexplained = _ratio(squared, apart)
    return {"r2": None if unexplained is None or n < 2 else 1 - unexplained}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _ratio(math.fsum(known), len(known))


def _sized(values: _Ingredients, size: int) -> _Ingredients:
    if len(values) != size or not size:
        raise NotMerged(f"the sites report lists of {len(values)} numbers: {size or 'some'} are needed")
    return values


class _Source(NamedTuple):
    """What some metrics are computed of."""

    counts: tuple[str, ...]
    compute: Callable[..., Values]
    lengths: tuple[int, ...]
    """Of lists of counts of no examples."""

    @property
    def metrics(self) -> Collection[str]:
        """The names of what it computes."""
        return self.compute(*([0] * length for length in self.lengths)).keys()


_SOURCES: Mapping[str, tuple[_Source, ...]] = {
    "binary": (
        _Source(("positives", "negatives"), _of_histograms, (1, 1)),
        _Source(("confusion",), _of_confusion, (4,)),
        _Source(("squared_error",), _of_squared_error, (2,)),
        _Source(("calibration",), _of_calibration, (3 * CALIBRATION_BINS,)),
    ),
    "multiclass": (_Source(("confusion",), _of_multiclass, (1,)),),
    "regression": (
        _Source(("errors",), _of_errors, (3,)),
        _Source(("errors", MOMENTS_OF_Y), _of_errors_and_moments, (3, 3)),
    ),
}
_COUNTS: Mapping[str, tuple[str, ...]] = {
    kind: tuple(dict.fromkeys(name for source in sources for name in source.counts))
    for kind, sources in _SOURCES.items()
}
"""The counts of each kind."""


@functools.cache
def kinds_giving(metric: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return which kinds of counts give a metric, by its name without label, and by which of their counts."""
    every = ((kind, source) for kind, sources in _SOURCES.items() for source in sources)
    return tuple((kind, source.counts) for kind, source in every if metric in source.metrics)


def counts_by_label(metrics: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the counts of one site that pooled metrics are computed of, by (what their names begin with, kind)."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name, value in metrics.items():
        if value is not None and (begin := _NAME.match(name)) and name[begin.end() :] in _COUNTS[begin[2]]:
            found.setdefault((begin[0], begin[2]), {})[name[begin.end() :]] = value
    return found
