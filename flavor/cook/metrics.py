"""Counts of a site's predictions, from which flavor computes the metrics of all sites together.

    from flavor.cook.metrics import binary_counts
    from flavor.cook.utils import SaveInfoJson

    SaveInfoJson({"metadata": …, "metrics": {**binary_counts(y, probabilities), "loss": loss}})

The merged information then has `pooled/auc`, `pooled/accuracy` and so on: the metrics of the examples of all sites, as
if these lay at one place. A mean of the sites' own AUCs is another number. `flavor.records.pooling` says which counts
give which metrics. Sites may have one class only, or no examples.

Arrays may be of numpy, torch, pandas or lists; masked examples do not count. Each function raises `InvalidInfo` (a
`ValueError`) with one line that says what is wrong, and where. Importing this module takes as long as importing numpy.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flavor.errors import InvalidInfo
from flavor.records.counts import MOMENTS, MOST_NUMBERS, PREFIX, SAME
from flavor.records.pooling import BASIC
from flavor.records.possible_counts import CALIBRATION_BINS

__all__ = ["binary_counts", "multiclass_counts", "regression_sums"]

_ROUNDING = 1e-6
"""So far beyond 0 and 1 a probability may be by rounding of 32-bit numbers: it counts as 0 or 1."""
_LONGEST_NAME = 64

_Numbers = NDArray[np.float64]
_Mask = NDArray[np.bool_]
Counts = dict[str, list[int | float]]
"""To be unpacked into `metrics` of `SaveInfoJson`."""


def binary_counts(y: Any, score: Any, *, bins: int = 1000, threshold: float = 0.5, name: str = "") -> Counts:
    """Count the scores of both classes, for pooled accuracy, precision, recall, specificity, F1, AUC and others.

    `y` [n] has the labels, 0 and 1 (bool, int or float). `score` [n] has the probability of class 1, from 0 to 1: bin k
    of `bins` is [k / bins, (k + 1) / bins), the last one with 1. A score outside is refused, unless it is rounded by
    less than 1e-6. A score of `threshold` or more predicts class 1, where the threshold is rounded to the type of
    `score` first, as numpy and torch do: a 32-bit score of 0.7 is not below a threshold of 0.7. All sites need the same
    `bins` and `threshold`: what differs is not merged, and the merged information says so.

    `name` tells several labels apart: `pooled/NAME/auc`. More bins make the AUC more exact, and tell more about single
    patients: 1000 bins take up to 10 kB of the 64 kB that an info.json may have.
    """
    where = _place("binary_counts", name)
    bins = _whole_number(where, "bins", bins, 1, MOST_NUMBERS)
    if not hasattr(threshold, "__float__") or not 0 <= float(threshold) <= 1:
        raise InvalidInfo(f"{where}: threshold must be a number from 0 to 1, and is {str(threshold)[:40]}")
    labels, scores = _pairs(where, ("y", y), ("score", score))
    _check_all(where, "y", labels, (labels == 0) | (labels == 1), "labels are 0 and 1")
    is_probability = (scores >= -_ROUNDING) & (scores <= 1 + _ROUNDING)
    _check_all(
        where, "score", scores, is_probability, "probabilities from 0 to 1 are needed: apply the sigmoid or softmax"
    )
    scores = np.clip(scores, 0.0, 1.0)
    positive = labels == 1
    predicted = scores >= _in_type_of(score, float(threshold))
    by_bin = _bin_of(scores, bins)
    by_tenth = _bin_of(scores, CALIBRATION_BINS)
    errors = scores - labels
    tp, fp = int(np.sum(predicted & positive)), int(np.sum(predicted & ~positive))
    fn, tn = int(np.sum(~predicted & positive)), int(np.sum(~predicted & ~positive))
    path = _path(where, name, "binary")
    return {
        f"{path}/positives": _counted(by_bin[positive], bins),
        f"{path}/negatives": _counted(by_bin[~positive], bins),
        f"{path}/confusion": [tp, fp, fn, tn],
        f"{path}/confusion{SAME}": [float(threshold)],
        f"{path}/squared_error": [len(scores), float(np.sum(errors * errors))],
        f"{path}/calibration": [
            *_counted(by_tenth, CALIBRATION_BINS),
            *_counted(by_tenth[positive], CALIBRATION_BINS),
            *(float(np.sum(scores[by_tenth == tenth])) for tenth in range(CALIBRATION_BINS)),
        ],
    }


def multiclass_counts(y: Any, predicted: Any, *, classes: int, name: str = "") -> Counts:
    """Count the confusion matrix of `classes` classes, for pooled accuracy, balanced accuracy and macro metrics.

    `y` [n] has the labels, whole numbers from 0 to `classes` - 1. `predicted` has labels [n], or probabilities or
    logits [n, classes], of which the highest counts, the first of equals. All sites need the same classes in one order:
    a number of classes that differs is not merged, and the merged information says so. `name` is as in `binary_counts`.
    """
    where = _place("multiclass_counts", name)
    classes = _whole_number(where, "classes", classes, 2, int(MOST_NUMBERS**0.5))
    said, mask = _numbers(where, "predicted", predicted)
    if said.ndim == 2 and said.shape[1] == classes:
        mask = np.any(mask, axis=1, keepdims=True)
        _check_all(where, "predicted", said, ~np.isnan(said) | mask, "a number is needed")
        said = np.argmax(said, axis=1, keepdims=True).astype(np.float64)
    elif said.ndim == 2 and said.shape[1] != 1:
        raise InvalidInfo(
            f"{where}: predicted has the shape {said.shape}: labels [n] or probabilities [n, {classes}] are needed"
        )
    labels, chosen = _pairs(where, ("y", y), ("predicted", np.ma.MaskedArray(said, mask)))
    for what, values in (("y", labels), ("predicted", chosen)):
        is_label = (values >= 0) & (values < classes) & (values == np.floor(values))
        _check_all(where, what, values, is_label, f"labels are whole numbers from 0 to {classes - 1}")
    cells = labels.astype(np.int64) * classes + chosen.astype(np.int64)
    return {f"{_path(where, name, 'multiclass')}/confusion": _counted(cells, classes * classes)}


def regression_sums(y: Any, predicted: Any, *, name: str = "") -> Counts:
    """Add up errors and moments, for pooled RMSE, MAE and R².

    `y` [n] has the true values, and `predicted` [n] the predicted ones, all finite, in the same unit at all sites.
    `name` is as in `binary_counts`.
    """
    where = _place("regression_sums", name)
    true, said = _pairs(where, ("y", y), ("predicted", predicted))
    for what, values in (("y", true), ("predicted", said)):
        _check_all(where, what, values, np.abs(values) <= 1e100, "finite numbers are needed, of 1e+100 at most")
    n, mean, apart = len(true), 0.0, 0.0
    if n:
        mean = float(np.mean(true))
        mean += float(np.mean(true - mean))  # what rounding has lost
        distances = true - mean
        apart = float(np.sum(distances * distances))
    errors = said - true
    path = _path(where, name, "regression")
    return {
        f"{path}/errors": [n, float(np.sum(np.abs(errors))), float(np.sum(errors * errors))],
        f"{path}/y{MOMENTS}": [n, mean, apart],
    }


# -- what a caller may give


def _place(function: str, name: str) -> str:
    return f"{function}({name[:_LONGEST_NAME]!a})" if isinstance(name, str) and name else function


def _path(where: str, name: Any, kind: str) -> str:
    """Return the beginning of the names of these counts. Raises `InvalidInfo` for a name that cannot be their part."""
    if name == "":
        return f"{PREFIX}{kind}"
    if not isinstance(name, str) or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise InvalidInfo(f"{where}: name must be a text of at most {_LONGEST_NAME} characters that can be seen")
    if not all(part.strip() for part in name.split("/")) or name == BASIC:
        raise InvalidInfo(f"{where}: name {name!r} cannot be used: name the label, as in name='pneumonia'")
    return f"{PREFIX}{name}/{kind}"


def _whole_number(where: str, what: str, value: Any, least: int, most: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if not least <= number <= most or isinstance(value, bool):
        raise InvalidInfo(f"{where}: {what} must be a whole number from {least} to {most}, and is {str(value)[:40]}")
    return number


def _numbers(where: str, what: str, value: Any) -> tuple[_Numbers, _Mask]:
    """Return an array of 64-bit floats, and which of its elements are masked. Raises `InvalidInfo` for what is none."""
    try:
        if hasattr(value, "detach"):  # of torch: perhaps on a GPU, perhaps of a kind that numpy lacks
            value = value.detach().cpu()
            value = value.double() if value.is_floating_point() else value
        mask = np.ma.getmaskarray(value) if isinstance(value, np.ma.MaskedArray) else None
        array = np.asarray(np.ma.getdata(value) if mask is not None else value)
        has_text = array.dtype.kind == "O" and any(isinstance(each, str | bytes) for each in array.flat)
        if array.dtype.kind in "USTMmc" or has_text:
            raise TypeError(f"it has elements of the kind {array.dtype}")
        numbers = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InvalidInfo(f"{where}: {what} is no array of numbers: {str(error).splitlines()[0][:120]}") from None
    return numbers, np.zeros(numbers.shape, bool) if mask is None else np.asarray(mask)


def _pairs(where: str, *given: tuple[str, Any]) -> tuple[_Numbers, _Numbers]:
    """Return two arrays of one length, without the examples that are masked in one of them, and without NaN."""
    arrays, masks = [], []
    for what, value in given:
        numbers, mask = _numbers(where, what, value)
        if numbers.ndim == 2 and numbers.shape[1] == 1:
            numbers, mask = numbers[:, 0], mask[:, 0]
        if numbers.ndim != 1:
            advice = (
                "give one label at a time, each with its own name, or ravel() both where each element is an example"
            )
            if what == "score" and numbers.ndim == 2 and numbers.shape[1] == 2:
                advice = "the probability of class 1 is needed: give score[:, 1]"
            raise InvalidInfo(
                f"{where}: {what} has the shape {numbers.shape}, and one number for each example is needed: {advice}"
            )
        arrays.append(numbers)
        masks.append(mask)
    (first, second), (one, other) = arrays, given
    if len(first) != len(second):
        raise InvalidInfo(f"{where}: {one[0]} has {len(first)} examples, and {other[0]} {len(second)}")
    counts = ~(masks[0] | masks[1])
    for (what, _), numbers in zip(given, arrays, strict=True):
        _check_all(where, what, numbers, ~np.isnan(numbers) | ~counts, "leave out or mask examples without a value")
    return first[counts], second[counts]


def _check_all(where: str, what: str, values: _Numbers, is_good: _Mask, needed: str) -> None:
    """Raise `InvalidInfo` that shows the first value that is not good."""
    if is_good.all():
        return
    at = int(np.argmin(is_good.reshape(len(values), -1).all(axis=1)))
    row, good = values[at : at + 1].ravel(), is_good[at : at + 1].ravel()
    number = int(np.sum(~is_good))
    more = f" (and {number - 1} more)" if number > 1 else ""
    shown = "NaN" if np.isnan(bad := float(row[int(np.argmin(good))])) else f"{bad:.9g}"
    raise InvalidInfo(f"{where}: {what}[{at}] of {len(values)} is {shown}{more}: {needed}")


# -- counting


def _in_type_of(given: Any, number: float) -> float:
    """Return a number as it is after rounding to the floating-point type of `given`, an array or a tensor.

    So a comparison with it is one of that type. Lists, and arrays of integers, are of 64-bit floats here.
    """
    if hasattr(given, "detach"):  # of torch
        return float(given.detach().cpu().new_tensor(number)) if given.is_floating_point() else number
    type_ = np.asarray(np.ma.getdata(given) if isinstance(given, np.ma.MaskedArray) else given).dtype
    is_float = type_.kind in "fV"  # V: types of other libraries, as bfloat16
    return float(np.array([number]).astype(type_)[0]) if is_float else number


def _bin_of(scores: _Numbers, bins: int) -> NDArray[np.int64]:
    """Return the bin of each score from 0 to 1: the last one whose lower edge, k / bins, is not above the score.

    floor(score · bins) would be another one where the product is rounded: 0.29 · 100 is less than 29.
    """
    return np.searchsorted(np.arange(bins) / bins, scores, side="right") - 1


def _counted(places: NDArray[np.int64], number: int) -> list[int | float]:
    found: list[int | float] = np.bincount(places, minlength=number).tolist()
    return found
