"""Metrics of all sites together, against scikit-learn's on the examples of all sites at one place."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flavor.cook.metrics import binary_counts, multiclass_counts, regression_sums
from flavor.records import score_histograms
from flavor.records.counts import COMPUTED
from flavor.records.info import checked_info, info_bytes, parse_info
from flavor.records.merging import merge_infos, not_merged
from flavor.results.direction import direction_of
from tests.lazy import Lazy

learn, reference = Lazy("sklearn"), Lazy("sklearn.metrics")
EXACT = 1e-12
QUICK = settings(max_examples=150, deadline=None)


@pytest.fixture(scope="module", autouse=True)
def unchecked() -> Iterator[None]:
    """scikit-learn takes the arguments of each call as they are: to check them is a fifth of what this file costs."""
    with learn.config_context(assume_finite=True, skip_parameter_validation=True):
        yield


def merged(*sites: Mapping[str, Any], **metadata: Any) -> dict[str, Any]:
    """What is merged of these metrics, on the way that they take: written, read and merged."""
    infos = []
    for metrics in sites:
        whole = {"metadata": {"epoch": 1, "datasetSize": 10, "importance": 1.0, **metadata}, "metrics": dict(metrics)}
        infos.append(parse_info(info_bytes(checked_info(whole)), where="test"))
    found = merge_infos([f"site-{number}" for number in range(len(sites))], infos)
    again: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    return found


def split(number: int, cuts: Sequence[float]) -> list[slice]:
    """Sites as consecutive examples; some have none."""
    at = [0, *sorted(int(cut * number) for cut in cuts), number]
    return [slice(first, last) for first, last in itertools.pairwise(at)]


CUTS = st.lists(st.floats(0, 1), min_size=1, max_size=4)
UNIT = st.floats(0, 1, width=32)


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[slice]]:
    """Labels, scores with many ties or few, and the sites."""
    number = draw(st.integers(1, 60))
    share = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    y = draw(arrays(np.float64, number, elements=UNIT)) < share
    kind = draw(st.sampled_from(["any", "coarse", "close", "equal"]))
    scores = draw(arrays(np.float64, number, elements=UNIT))
    if kind == "coarse":
        scores = np.round(scores, 1)
    elif kind == "close":
        scores = 0.4321 + scores / 3000
    elif kind == "equal":
        scores = np.full(number, 0.25)
    return y, scores, split(number, draw(CUTS))


def near(found: float | None, expected: float, error: float = EXACT) -> bool:
    """Whether a metric is there and right; NaN expects that it is missing."""
    return found is None if math.isnan(expected) else found is not None and abs(found - expected) <= error


@QUICK
@given(predictions(), st.sampled_from([1, 2, 7, 100, 1000]), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_binary(made: tuple[np.ndarray, np.ndarray, list[slice]], bins: int, threshold: float) -> None:
    y, scores, sites = made
    of_sites = [binary_counts(y[part], scores[part], bins=bins, threshold=threshold, name="nodule") for part in sites]
    found = merged(*of_sites)["metrics"]
    metric: Callable[[str], Any] = lambda name: found[f"pooled/nodule/{name}"]  # noqa: E731
    chosen = scores >= threshold
    odd: dict[str, Any] = {"zero_division": np.nan}
    assert near(metric("accuracy"), reference.accuracy_score(y, chosen))
    precision, recall, f1, _ = reference.precision_recall_fscore_support(y, chosen, average="binary", **odd)
    assert near(metric("precision"), precision)
    assert near(metric("recall"), recall)
    assert near(metric("specificity"), reference.recall_score(~y, ~chosen, **odd))
    assert near(metric("f1"), f1)
    assert near(metric("brier"), float(np.mean((scores - y) ** 2)))
    tenth = np.minimum(np.floor(scores * 10), 9)
    ece = sum(abs(np.sum(y[tenth == k]) - np.sum(scores[tenth == k])) for k in range(10)) / len(y)
    assert near(metric("ece"), ece)
    if y.any():
        error = abs(metric("average_precision") - reference.average_precision_score(y, scores))
        assert error <= metric("average_precision_bound") + EXACT
    else:
        assert metric("average_precision") is metric("average_precision_bound") is None
    if y.any() and not y.all():
        assert abs(metric("auc") - reference.roc_auc_score(y, scores)) <= metric("auc_bound") + EXACT
    else:
        assert metric("auc") is metric("auc_bound") is None
    by_bin = np.minimum(np.floor(scores * bins), bins - 1)
    if len(set(zip(by_bin, scores, strict=True))) == len(set(by_bin)):  # one score in each bin
        for name, function in (
            ("auc", reference.roc_auc_score),
            ("average_precision", reference.average_precision_score),
        ):
            if metric(name) is not None:
                assert near(metric(name), function(y, scores)), name


COUNTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=5)


@QUICK
@given(COUNTS, st.randoms(use_true_random=False))
def test_the_bounds_hold_for_any_order_within_the_bins(counts: list[tuple[int, int]], random: Any) -> None:
    """And two orders reach the largest and the smallest average precision, as the proof says."""
    positives, negatives = [p for p, _ in counts], [n for _, n in counts]
    auc, auc_bound = score_histograms.auc(positives, negatives)
    precision, bound = score_histograms.average_precision(positives, negatives)
    if precision is None or bound is None:
        assert sum(positives) == 0
        return

    def of(within: Callable[[int, int], tuple[Sequence[float], Sequence[float]]]) -> tuple[float, float]:
        y, scores = [], []
        for number, (p, n) in enumerate(counts):
            high, low = within(p, n)
            y += [1] * p + [0] * n
            scores += [(number + score) / len(counts) for score in (*high, *low)]
        area = reference.roc_auc_score(y, scores) if 0 in y else math.nan
        return reference.average_precision_score(y, scores), area

    best = of(lambda p, n: ([0.9] * p, [0.1] * n))
    worst = of(lambda p, n: ([k / (2 * p) for k in range(p)], [0.9] * n))
    some = of(
        lambda p, n: ([random.choice([0.1, 0.2, 0.3]) for _ in range(p)], [random.random() / 2 for _ in range(n)])
    )
    tied = of(lambda p, n: ([0.5] * p, [0.5] * n))
    assert near(precision, tied[0])
    for each in (best, worst, some):
        assert abs(each[0] - precision) <= bound + EXACT
        if auc is not None and auc_bound is not None:
            assert abs(each[1] - auc) <= auc_bound + EXACT
    assert max(best[0] - precision, precision - worst[0]) >= bound - 2e-4, "the bound is not much too large"
    if auc is not None and auc_bound is not None:
        assert near(auc, tied[1])
        assert near(best[1] - auc, auc_bound)
        assert near(auc - worst[1], auc_bound)


def test_histograms_of_billions_of_examples() -> None:
    positives, negatives = [10**9, 10**9], [10**10, 10**9]
    auc, auc_bound = score_histograms.auc(positives, negatives)
    assert auc == pytest.approx((0.5 * 10**19 + 10**19 + 0.5 * 10**18) / (2 * 1.1 * 10**19))
    precision, bound = score_histograms.average_precision(positives, negatives)
    assert precision == pytest.approx((1 / 2 + 2 / 13) / 2)
    assert bound is not None
    assert 0 < bound < 1
    assert auc_bound is not None


@st.composite
def classified(draw: st.DrawFn) -> tuple[int, np.ndarray, np.ndarray, list[slice]]:
    classes, number = draw(st.integers(2, 6)), draw(st.integers(1, 50))
    known = draw(st.integers(1, classes))
    labels = arrays(np.int64, number, elements=st.integers(0, known - 1))
    probabilities = arrays(np.float32, (number, classes), elements=UNIT)
    return classes, draw(labels), draw(probabilities), split(number, draw(CUTS))


@QUICK
@given(classified(), st.booleans())
def test_multiclass(made: tuple[int, np.ndarray, np.ndarray, list[slice]], as_labels: bool) -> None:
    classes, y, probabilities, sites = made
    chosen = probabilities.argmax(axis=1)
    given_ = chosen if as_labels else probabilities
    found = merged(*(multiclass_counts(y[part], given_[part], classes=classes) for part in sites))["metrics"]
    odd: dict[str, Any] = {"average": "macro", "labels": range(classes), "zero_division": np.nan}
    assert near(found["pooled/accuracy"], reference.accuracy_score(y, chosen))
    recalls = [np.mean(chosen[y == each] == each) for each in range(classes) if (y == each).any()]
    assert near(found["pooled/balanced_accuracy"], float(np.mean(recalls)))
    precision, recall, f1, _ = reference.precision_recall_fscore_support(y, chosen, **odd)
    assert near(found["pooled/macro_recall"], recall)
    assert near(found["pooled/macro_precision"], precision)
    assert near(found["pooled/macro_f1"], f1)
    matrix = reference.confusion_matrix(y, chosen, labels=range(classes))
    assert found["count/multiclass/confusion"] == matrix.ravel().tolist()


@st.composite
def regressed(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[slice]]:
    number = draw(st.integers(2, 60))
    values = arrays(np.float64, number, elements=st.floats(-1, 1))
    mean, scale = draw(st.sampled_from([0.0, 1.0, -1e3, 1e6])), draw(st.sampled_from([1.0, 1e-3, 1e5]))
    y = (draw(values) + np.linspace(0, 1, number) + mean) * scale
    return y, y + draw(values) * scale * draw(st.sampled_from([0.0, 0.1, 1.0])), split(number, draw(CUTS))


@QUICK
@given(regressed())
@example((np.ones(2), np.ones(2), [slice(0, 0), slice(0, 2)]))
def test_regression(made: tuple[np.ndarray, np.ndarray, list[slice]]) -> None:
    """Also where the mean is a million times the deviation."""
    y, predicted, sites = made
    found = merged(*(regression_sums(y[part], predicted[part], name="age") for part in sites))["metrics"]
    rmse, r2 = reference.root_mean_squared_error(y, predicted), reference.r2_score(y, predicted)
    assert near(found["pooled/age/rmse"], rmse, 1e-9 * max(rmse, 1e-300))
    assert near(found["pooled/age/mae"], reference.mean_absolute_error(y, predicted), 1e-9 * max(rmse, 1e-300))
    if np.ptp(y) == 0.0:  # 0/0, which scikit-learn calls 1 or 0
        assert found["pooled/age/r2"] is None
    else:
        assert near(found["pooled/age/r2"], r2, 1e-9 * max(1.0, abs(1 - r2)))
    n, mean, apart = found["count/age/regression/y.moments"]
    assert (n, mean) == (len(y), pytest.approx(np.mean(y), rel=1e-12, abs=1e-15))
    assert apart == pytest.approx(np.var(y) * len(y), rel=1e-9)


def test_a_mean_of_aucs_is_another_number() -> None:
    one = binary_counts([0, 1], [0.1, 0.2])
    two = binary_counts([0, 1], [0.8, 0.9])
    found = merged({**one, "auc": 1.0}, {**two, "auc": 1.0})["metrics"]
    assert (found["auc"], found["pooled/auc"], found["pooled/auc_bound"]) == (1.0, 0.75, 0.0)


def test_what_is_0_by_0_is_none_and_sites_without_examples_add_nothing() -> None:
    nothing = {**binary_counts([], []), **multiclass_counts([], [], classes=3, name="m"), **regression_sums([], [])}
    found = merged(nothing, nothing)["metrics"]
    pooled = {name: value for name, value in found.items() if name.startswith("pooled/")}
    assert len(pooled) == 19
    assert set(pooled.values()) == {None}
    some = binary_counts([1, 1], [0.2, 0.7])
    assert merged(some, nothing)["metrics"]["pooled/recall"] == 0.5
    assert merged(some, nothing)["metrics"]["pooled/auc"] is None, "there is no negative example"


def test_a_metric_is_of_the_sites_that_report_all_its_counts() -> None:
    """Cells of different sites make no matrix together."""
    whole = binary_counts([0, 1, 1], [0.1, 0.2, 0.9])
    half = {name: value for name, value in whole.items() if not name.endswith("/negatives")}
    found = merged(whole, half, {"loss": 1.0, **dict.fromkeys(CELLS, -1)})
    assert found["metrics"]["pooled/auc"] == 1.0
    assert found["metrics"]["count/binary/positives"][200] == 2
    few = found["metadata"]["metricSites"]
    assert (few["pooled/auc"], few["pooled/accuracy"], few["count/binary/positives"]) == (1, 2, 2)
    cells = [{**dict.fromkeys(CELLS, -1), CELLS[0]: 3}, dict(zip(CELLS, (1, 2, 3, 4), strict=True))]
    basic = merged(*cells)
    assert basic["metrics"]["pooled/basic/accuracy"] == 0.5
    assert basic["metadata"]["metricSites"]["pooled/basic/accuracy"] == 1
    assert "pooled/basic/accuracy" not in merged(cells[0], cells[0])["metrics"]


CELLS = tuple(f"basic/confusion_{cell}" for cell in ("tp", "fp", "fn", "tn"))


def test_bins_and_thresholds_that_differ_are_recognised() -> None:
    y, scores = [0, 1, 1, 0], [0.2, 0.8, 0.4, 0.6]
    one, two = binary_counts(y, scores, bins=500, threshold=0.5), binary_counts(y, scores, bins=1000, threshold=0.3)
    found = merged(one, two)
    assert not {name for name in found["metrics"] if name.startswith("pooled/")} - {"pooled/brier", "pooled/ece"}
    why = not_merged(found)
    assert why["count/binary/positives"] == (
        "the sites report lists of different lengths (500, 1000): let all use the same bins or classes"
    )
    assert "different values of 'count/binary/confusion.same' ([0.5], [0.3])" in why["count/binary/confusion"]
    assert "count/binary/confusion" not in found["metrics"]
    without = {name: value for name, value in one.items() if not name.endswith(".same")}
    assert "count/binary/confusion" in not_merged(merged(one, without))
    classes = [multiclass_counts([0, 1], [0, 1], classes=number) for number in (2, 3)]
    assert "count/multiclass/confusion" in not_merged(merged(*classes))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"count/binary/confusion": [1, -1, 0, 0]},
            "of a site: it has -1: numbers of examples are whole, and not negative",
        ),
        ({"count/binary/confusion": [1, 0.5, 0, 0]}, "of a site: it has 0.5"),
        ({"count/binary/confusion": 3}, "of a site: it is a number: a list is needed"),
        ({"count/binary/confusion": [1, 2, 3]}, "of a site: it has 3 numbers: 4 are needed"),
        ({"count/binary/confusion": [1e300] * 4}, "of a site: it has 1e+300 examples, and 1e+12 at most are taken"),
    ],
)
def test_counts_that_cannot_be_are_left_out_with_the_reason(change: dict[str, Any], said: str) -> None:
    good = binary_counts([0, 1], [0.1, 0.9])
    found = merged({**good, **change})
    assert not_merged(found)["count/binary/confusion"].startswith(said)
    assert "pooled/accuracy" not in found["metrics"]
    assert found["metrics"]["pooled/auc"] == 1.0


def test_what_is_no_finite_number_is_missing() -> None:
    errors = {"count/regression/errors": [2, 1.0, 1e10], "count/regression/y.moments": [2, 1e300, 1e-300]}
    assert merged(errors)["metrics"]["pooled/r2"] is None


def test_errors_and_moments_of_other_examples_give_no_r2() -> None:
    good = regression_sums([1.0, 2.0, 4.0], [1.0, 2.5, 3.0])
    found = merged({**good, "count/regression/errors": [2, 1.5, 1.25]})
    assert "pooled/r2" not in found["metrics"]
    assert found["metrics"]["pooled/mae"] == 0.75
    assert not_merged(found)["count/regression/y.moments"] == "of a site: it is of 3 values, and the errors of 2"


def test_no_site_gives_out_a_pooled_metric() -> None:
    good = binary_counts([0, 1], [0.1, 0.9])
    found = merged(good, {**good, "pooled/auc": 0.1, "pooled/auc (weighted)": 0.1, "pooled/mine": 2.0})
    assert found["metrics"]["pooled/auc"] == 1.0
    assert not {"pooled/auc (weighted)", "pooled/mine"} & found["metrics"].keys()
    assert not_merged(found).keys() >= {"pooled/auc", "pooled/mine"}


def test_two_kinds_of_counts_of_one_name_give_no_common_metric() -> None:
    both = {**binary_counts([0, 1], [0.1, 0.9]), **multiclass_counts([0, 1], [1, 1], classes=2)}
    found = merged(both)
    assert "pooled/accuracy" not in found["metrics"]
    assert not_merged(found)["pooled/accuracy"].startswith("two kinds of counts give it")
    assert found["metrics"]["pooled/f1"] == 1.0
    assert found["metrics"]["pooled/macro_recall"] == 0.5


def test_metrics_are_in_the_order_in_which_they_are_worth_keeping() -> None:
    labels = [binary_counts([0, 1], [0.1, 0.9], name=name) for name in ("a", "b")]
    first = list(merged({**labels[0], **labels[1], "loss": 1.0, "dice": 0.5})["metrics"])
    own = [name for name in first if "confusion" not in name and not name.startswith("count/")]
    assert list(first).index("count/a/binary/positives") > list(first).index(own[-1])
    assert own[:6] == [
        "pooled/a/auc", "loss", "loss (weighted)", "pooled/b/auc", "dice", "dice (weighted)",
    ]  # fmt: skip
    assert own[6:8] == ["pooled/a/average_precision", "pooled/b/average_precision"]
    assert all(name.endswith("_bound") for name in own[-4:])
    assert next(iter(merged({"loss": 1.0, **labels[0]})["metrics"])) != "pooled/a/auc"


def test_the_order_without_counts_is_as_the_sites_have_it() -> None:
    cells = dict(zip(CELLS, (1, 2, 3, 4), strict=True))
    found = list(merged({**cells, "loss": 1.0})["metrics"])
    assert found[:6] == [*CELLS, "loss", "loss (weighted)"]
    assert found[6] == "pooled/basic/accuracy"


def test_the_reasons_are_bounded() -> None:
    one = {f"count/{number}": [1] for number in range(200)}
    found = merged(one, {name: [1, 2] for name in one})
    assert len(not_merged(found)) == 50


def test_the_name_of_each_pooled_metric_says_which_values_are_better() -> None:
    """Also where the name of a label means the opposite."""
    label = "error/loss of sight"
    counts = {
        **binary_counts([0, 1], [0.1, 0.9], name=label),
        **multiclass_counts([0, 1], [0, 1], classes=2, name=f"{label}/m"),
        **regression_sums([1.0, 2.0], [1.0, 2.5], name=label),
        **dict(zip(CELLS, (1, 2, 3, 4), strict=True)),
        "count/loss": 3,
    }
    found = merged(counts)["metrics"]
    better = {name: direction_of(name) for name in found if not name.endswith("(weighted)")}
    pooled = {name: sign for name, sign in better.items() if name.startswith("pooled/")}
    assert {name.rpartition("/")[2] for name, sign in pooled.items() if sign < 0} == {"brier", "ece", "rmse", "mae"}
    assert {name.rpartition("/")[2] for name, sign in pooled.items() if not sign} == {
        "auc_bound", "average_precision_bound",
    }  # fmt: skip
    assert len(pooled) == 24
    assert better["count/loss"] == 0


@pytest.mark.parametrize("prefix", COMPUTED)
def test_no_site_gives_out_a_metric_whose_name_has_a_meaning_of_its_own(prefix: str) -> None:
    """A rule such as `central/accuracy:max` would otherwise go by what one site claims."""
    found = merged(
        {"accuracy": 0.5, f"{prefix}accuracy": 1.0, "basic/accuracy": 0.5, "count/n": 3},
        {"accuracy": 0.7, "count/n": 4},
    )
    assert f"{prefix}accuracy" not in found["metrics"]
    assert not_merged(found)[f"{prefix}accuracy"] == f"names that begin with {prefix!r} are those of {COMPUTED[prefix]}"
    assert (found["metrics"]["accuracy"], found["metrics"]["basic/accuracy"]) == (0.6, 0.5)
    assert found["metrics"]["count/n"] == 7
