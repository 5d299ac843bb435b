"""Counts of a site's predictions: what is taken, and what is refused in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flavor.cook.metrics import binary_counts, multiclass_counts, regression_sums
from flavor.errors import InvalidInfo
from flavor.records.counts import MOST_NUMBERS
from flavor.records.info import MAX_BYTES, checked_info, info_bytes
from tests.lazy import Lazy

torch = Lazy("torch")

Y, SCORE = [0, 1, 1, 0], [0.125, 0.5, 1.0, 0.75]
INFO = {"metadata": {"epoch": 1, "datasetSize": 4, "importance": 1.0}}


def test_binary_counts_are_what_the_table_says() -> None:
    found = binary_counts(Y, SCORE, bins=4)
    assert found == {
        "count/binary/positives": [0, 0, 1, 1],
        "count/binary/negatives": [1, 0, 0, 1],
        "count/binary/confusion": [2, 1, 0, 1],
        "count/binary/confusion.same": [0.5],
        "count/binary/squared_error": [4, 0.125**2 + 0.5**2 + 0.75**2],
        "count/binary/calibration": [
            *(0, 1, 0, 0, 0, 1, 0, 1, 0, 1),
            *(0, 0, 0, 0, 0, 1, 0, 0, 0, 1),
            *(0.0, 0.125, 0.0, 0.0, 0.0, 0.5, 0.0, 0.75, 0.0, 1.0),
        ],
    }
    assert next(iter(binary_counts(Y, SCORE, name="val/nodule"))) == "count/val/nodule/binary/positives"


def test_the_other_counts_are_what_the_table_says() -> None:
    assert multiclass_counts([0, 1, 1, 2], [0, 1, 2, 2], classes=3) == {
        "count/multiclass/confusion": [1, 0, 0, 0, 1, 1, 0, 0, 1]
    }
    assert regression_sums([1.0, 3.0], [2.0, 1.0], name="age") == {
        "count/age/regression/errors": [2, 3.0, 5.0],
        "count/age/regression/y.moments": [2, 2.0, 2.0],
    }


def test_what_the_functions_return_is_taken_by_an_info() -> None:
    counts = {**binary_counts(Y, SCORE), **multiclass_counts(Y, Y, classes=2, name="m"), **regression_sums(Y, SCORE)}
    checked = checked_info({**INFO, "metrics": {**counts, "loss": 0.5}})
    assert checked["metrics"].items() >= counts.items()
    assert checked["metrics"]["basic/confusion_tp"] == -1, "a script with counts need not give the four"
    assert all(type(number) in (int, float) for value in counts.values() for number in value)
    many = np.random.default_rng(0).random(100_000)
    large = {**INFO, "metrics": {**binary_counts(many > 0.5, many), **binary_counts(many > 0.5, many, name="b")}}
    assert len(info_bytes(checked_info(large))) < MAX_BYTES


@pytest.mark.parametrize(
    "kind",
    [
        list,
        np.array,
        lambda values: np.array(values, dtype=np.float16),
        lambda values: np.array(values)[:, None],
        lambda values: torch.tensor(values),  # noqa: PLW0108 - which imports torch
        lambda values: torch.tensor([float(value) for value in values], requires_grad=True),
        lambda values: torch.tensor(values).bfloat16() if isinstance(values[0], float) else torch.tensor(values).bool(),
        lambda values: np.ma.array([*values, np.nan], mask=[False] * 4 + [True]),
        lambda values: np.array(values, dtype=object),
        lambda values: [torch.tensor(value) for value in values],
    ],
)
def test_arrays_of_all_kinds_are_taken(kind: Callable[[list[Any]], Any]) -> None:
    assert binary_counts(kind(Y), kind(SCORE)) == binary_counts(Y, SCORE)
    assert regression_sums(kind(Y), kind(SCORE)) == regression_sums(Y, SCORE)
    assert multiclass_counts(kind(Y), kind(Y), classes=2) == multiclass_counts(Y, Y, classes=2)


def test_series_of_pandas_are_taken() -> None:
    pandas = pytest.importorskip("pandas")
    y, score = pandas.Series(Y, dtype="Int64"), pandas.Series(SCORE, index=[7, 3, 2, 1])
    assert binary_counts(y, score) == binary_counts(Y, SCORE)
    with pytest.raises(InvalidInfo, match=r"y is no array of numbers|y\[1\] of 2 is NaN"):
        binary_counts(pandas.Series([0, None], dtype="Int64"), [0.1, 0.2])


def test_masked_examples_do_not_count() -> None:
    hidden = np.ma.array([0.1, np.nan, 0.9], mask=[False, True, False])
    assert binary_counts([0, 1, 1], hidden) == binary_counts([0, 1], [0.1, 0.9])
    rows = np.ma.array([[0.9, 0.1], [np.nan, 1.0]], mask=[[False, False], [True, False]])
    assert multiclass_counts([0, 1], rows, classes=2) == multiclass_counts([0], [0], classes=2)
    assert binary_counts(np.ma.array([0, 7], mask=[False, True]), [0.5, 0.5]) == binary_counts([0], [0.5])


def test_probabilities_that_are_rounded_beyond_their_range_are_taken() -> None:
    assert binary_counts([1, 0], [1.0000001, -1e-9]) == binary_counts([1, 0], [1.0, 0.0])


def test_the_highest_of_several_classes_counts_and_the_first_of_equals() -> None:
    logits = [[-3.0, 2.0, 2.0], [5.0, 0.0, -np.inf]]
    assert multiclass_counts([1, 0], logits, classes=3) == multiclass_counts([1, 0], [1, 0], classes=3)


NAN = float("nan")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: binary_counts([0, 1, 1], [0.5, NAN, NAN]),
            "score[1] of 3 is NaN (and 1 more): leave out or",
        ),
        (lambda: binary_counts([0, NAN], [0.5, 0.5]), "y[1] of 2 is NaN"),
        (lambda: binary_counts([0, 2], [0.5, 0.5]), "y[1] of 2 is 2: labels are 0 and 1"),
        (lambda: binary_counts([-1, 1], [0.5, 0.5]), "y[0] of 2 is -1: labels are 0 and 1"),
        (lambda: binary_counts([0, 1], [0.5, 3.5]), "score[1] of 2 is 3.5: probabilities from 0 to 1 are needed"),
        (lambda: binary_counts([0, 1], [0.5, np.inf]), "score[1] of 2 is inf"),
        (lambda: binary_counts([0, 1], [0.5]), "y has 2 examples, and score 1"),
        (lambda: binary_counts([0, 1], [[0.5, 0.5]] * 2), "score has the shape (2, 2), and one number"),
        (lambda: binary_counts([0, 1], [[0.5, 0.5]] * 2), "give score[:, 1]"),
        (lambda: binary_counts(np.zeros((3, 14)), np.zeros((3, 14))), "give one label at a time"),
        (lambda: binary_counts(["a", "b"], [0.5, 0.5]), "y is no array of numbers"),
        (lambda: binary_counts(np.array(["1", 0], object), [0.5, 0.5]), "y is no array of numbers"),
        (lambda: binary_counts([10**400, 0], [0.5, 0.5]), "y is no array of numbers"),
        (lambda: binary_counts([[0], [0, 1]], [0.5, 0.5]), "y is no array of numbers"),
        (lambda: binary_counts([], [], bins=0), "bins must be a whole number from 1 to 10000, and is 0"),
        (lambda: binary_counts([], [], bins=True), "bins must be a whole number"),
        (lambda: binary_counts([], [], threshold=NAN), "threshold must be a number from 0 to 1"),
        (lambda: binary_counts([], [], name="a//b"), "name 'a//b' cannot be used"),
        (lambda: binary_counts([], [], name="basic"), "name 'basic' cannot be used"),
        (lambda: binary_counts([], [], name="a\nb"), "name must be a text"),
        (lambda: binary_counts([], [], name=3), "name must be a text"),  # type: ignore[arg-type]
        (lambda: binary_counts([0, 1], [0.5, 2.0], name="nodule"), "binary_counts('nodule'): score[1]"),
        (lambda: multiclass_counts([0, 3], [0, 1], classes=3), "y[1] of 2 is 3: labels are whole numbers from 0 to 2"),
        (lambda: multiclass_counts([0, 1], [0.5, 1], classes=3), "predicted[0] of 2 is 0.5: labels are whole numbers"),
        (lambda: multiclass_counts([0, 1], [[0.5, 0.5]] * 2, classes=3), "probabilities [n, 3] are needed"),
        (lambda: multiclass_counts([0, 1], [[0.1, 0.2, NAN]] * 2, classes=3), "predicted[0] of 2 is NaN (and 1 more)"),
        (lambda: multiclass_counts([0], [0], classes=1000), "classes must be a whole number from 2 to 100"),
        (lambda: regression_sums([1.0, np.inf], [1.0, 2.0]), "y[1] of 2 is inf: finite numbers are needed"),
        (lambda: regression_sums([1.0], [NAN]), "predicted[0] of 1 is NaN"),
        (lambda: regression_sums([1j], [1.0]), "y is no array of numbers"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(InvalidInfo) as caught:
        call()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_its_import_loads_numpy_and_nothing_heavy() -> None:
    code = (
        "import sys, flavor.cook.metrics\n"
        "heavy = {'redis', 'rq', 'torch', 'pydantic', 'click', 'scipy', 'pandas', 'sklearn', 'flavor.bus'}\n"
        "print(sorted(heavy & set(sys.modules)), 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] True\n"


def test_a_list_of_a_hundred_classes_is_the_longest() -> None:
    assert len(multiclass_counts([99], [0], classes=100)["count/multiclass/confusion"]) == MOST_NUMBERS


@pytest.mark.parametrize("bins", [7, 10, 20, 100, 1000, 9999])
def test_a_score_at_the_edge_of_a_bin_lies_in_the_bin_above(bins: int) -> None:
    """0.29 * 100 is 28.999999999999996."""
    edges = [at / bins for at in range(bins)]
    found = binary_counts([1] * bins, edges, bins=bins)
    assert found["count/binary/positives"] == [1] * bins
    below = np.nextafter(np.array(edges[1:]), 0)
    assert binary_counts([1] * (bins - 1), below, bins=bins)["count/binary/positives"] == [*[1] * (bins - 1), 0]


@pytest.mark.parametrize(
    "made",
    [
        lambda scores: np.array(scores, np.float32),
        lambda scores: np.array(scores, np.float16),
        lambda scores: np.ma.masked_array(np.array(scores, np.float32), [False] * len(scores)),
        lambda scores: torch.tensor(scores, dtype=torch.float32),
        lambda scores: torch.tensor(scores, dtype=torch.bfloat16, requires_grad=True),
        lambda scores: scores,
    ],
    ids=["float32", "float16", "masked", "torch.float32", "torch.bfloat16", "list"],
)
def test_scores_are_compared_with_the_threshold_in_their_own_type(made: Callable[[list[float]], Any]) -> None:
    """0.7 is below 0.7 where one of both is rounded to 32 bits."""
    for at in (0.1, 0.3, 0.6, 0.7, 0.9):
        scores = made([at, at - 0.01])
        assert binary_counts([1, 1], scores, threshold=at)["count/binary/confusion"] == [1, 0, 1, 0]
        if hasattr(scores, "dtype") and not isinstance(scores, np.ma.MaskedArray):
            assert (scores >= at).tolist() == [True, False]
