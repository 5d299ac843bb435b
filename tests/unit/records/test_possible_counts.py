"""Counts of a site that cannot be those of any examples are not pooled."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flavor.cook.metrics import binary_counts, multiclass_counts, regression_sums
from flavor.records.counts import PREFIX
from flavor.records.info import CONFUSION
from flavor.records.pooling import pooled
from flavor.records.possible_counts import impossible

_GOOD: dict[str, dict[str, Any]] = {
    "binary": binary_counts([0, 1, 1], [0.1, 0.4, 1.0], bins=4),
    "multiclass": multiclass_counts([0, 1, 1], [0, 0, 1], classes=2),
    "regression": regression_sums([1.0, 2.0, 4.0], [1.0, 3.0, 3.5]),
}
_CALIBRATION = _GOOD["binary"]["count/binary/calibration"]


def of(kind: str, metrics: dict[str, Any]) -> dict[str, str]:
    path = f"{PREFIX}{kind}/"
    return impossible(kind, {name.removeprefix(path): value for name, value in metrics.items()})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("binary/squared_error", [2.5, 1.0], "it has 2.5: numbers of examples are whole"),
        ("binary/squared_error", [3, -1.0], "it has -1.0: sums of this kind are not negative"),
        ("binary/squared_error", 3, "a list is needed"),
        ("binary/squared_error", [3, 3.01], "3.01 as the sum of 3 squares, of which none is more than 1"),
        (
            "binary/squared_error",
            [400, 1.0],
            "it is of 400 examples, and of the same label calibration of 3, confusion",
        ),
        ("binary/confusion", [100, 0, 0, 0], "it is of 100 examples, and of the same label squared_error of 3"),
        ("binary/calibration", [1, *_CALIBRATION[1:10], 3, *_CALIBRATION[11:]], "3 positive examples of 1 in bin 0"),
        ("binary/calibration", [*_CALIBRATION[:20], 1.5, *_CALIBRATION[21:]], "1.5 as the sum of 0 scores"),
        ("binary/calibration", [*_CALIBRATION[:29], -0.5], "-0.5 as the sum of 1 scores"),
        ("binary/positives", [0, -1, 0, 1], "it has -1"),
        ("multiclass/confusion", [1, 1.5, 0, 1], "it has 1.5"),
        ("regression/errors", [2.5, 1, 1], "it has 2.5"),
        ("regression/y.moments", [2, 1.5, 1.25], "it is of 2 values, and the errors of 3"),
        ("regression/errors", [3, 30.0, 1.0], "30.0 as the sum of 3 errors, and 1.0 as that of their squares"),
        ("regression/errors", [0, 1.0, 1.0], "sums of no examples"),
        ("regression/y.moments", [3, 2.0, -1.0], "it has -1.0"),
    ],
)
def test_what_cannot_be_is_not_pooled(name: str, value: Any, said: str) -> None:
    kind, _, figure = name.partition("/")
    metrics = {**_GOOD[kind], f"{PREFIX}{name}": value}
    assert said in of(kind, metrics)[figure]
    for sites in ([metrics], [_GOOD[kind], metrics]):
        made = pooled(sites, CONFUSION)
        assert said in made.reasons[f"{PREFIX}{name}"]
        without = pooled([_GOOD[kind]], CONFUSION).metrics.keys() - made.metrics.keys()
        assert without, "the metrics of this figure"


def test_figures_of_two_sites_that_agree_only_in_their_sums_give_no_r2() -> None:
    first, second = regression_sums([1.0, 2.0], [1.5, 2.0]), regression_sums([1.0, 2.0, 5.0], [1.5, 2.0, 4.0])
    key = "count/regression/errors"
    first[key], second[key] = second[key], first[key]
    made = pooled([first, second], CONFUSION)
    assert set(made.metrics) == {"pooled/mae", "pooled/rmse"}
    assert made.reasons["count/regression/y.moments"] == "of a site: it is of 2 values, and the errors of 3"


@pytest.mark.parametrize(
    ("counts", "wrong"),
    [
        ({"confusion": [1, 0, 0, 1], "squared_error": [3, 1.0]}, set()),
        ({"confusion": [3, 0, 0, 1], "squared_error": [3, 1.0]}, {"confusion"}),
        ({"confusion": [3, 0, 0, 1]}, set()),
        ({"confusion": [3, 0, 0, 1], "positives": [3, 0]}, set()),
        ({"positives": [1, 1], "negatives": [1, 0], "squared_error": [3, 1.0]}, set()),
        (
            {"positives": [1, 1], "negatives": [1, 1], "squared_error": [3, 1.0]},
            {"positives", "negatives", "squared_error"},
        ),
        (
            {"positives": [1, 1], "negatives": [1, 1], "squared_error": [3, 1.0], "confusion": [1, 1, 1, 0]},
            {"positives", "negatives"},
        ),
        ({"positives": [1, 1], "negatives": [3], "squared_error": [3, 1.0]}, {"positives", "negatives"}),
        ({"squared_error": [3.0, 3.0], "confusion": [3.0, 0, 0, 0]}, set()),
    ],
)
def test_counts_of_one_binary_label_are_of_as_many_examples(counts: dict[str, Any], wrong: set[str]) -> None:
    """The confusion matrix of a model that abstains is of fewer."""
    assert impossible("binary", counts).keys() == wrong


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1, width=32), st.floats(-1e9, 1e9)), max_size=30))
def test_all_that_the_functions_make_is_possible(made: list[tuple[bool, float, float]]) -> None:
    y, score, value = ([each[at] for each in made] for at in range(3))
    assert of("binary", binary_counts(y, score, bins=5)) == {}
    assert of("multiclass", multiclass_counts(y, [each > 0.5 for each in score], classes=2)) == {}
    assert of("regression", regression_sums(value, score)) == {}
    written = {name: [float(each) for each in counts] for name, counts in binary_counts(y, score, bins=5).items()}
    assert of("binary", written) == {}, "other languages write 3.0"
