"""What a script reports of its progress: checked at the call, and read whatever a site has written."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from flavor.records.reported import LONGEST_MESSAGE, MOST_BYTES, MOST_METRICS, Reported, checked_report
from tests.lazy import Lazy

torch = Lazy("torch")


def test_numbers_of_numpy_and_torch_become_plain_ones() -> None:
    metrics = {"loss": torch.tensor(0.5, requires_grad=True), "f1": np.float32(0.25), "n": np.array([3])}
    reported, wrong = checked_report(np.int64(30), torch.tensor(100), "half way", {**metrics, "d": Decimal("1.5")})
    assert wrong == []
    assert reported == Reported(30, 100, "half way", {"loss": 0.5, "f1": 0.25, "n": 3, "d": 1.5})
    assert {type(value) for value in (reported.done, reported.total, *reported.metrics.values())} <= {int, float}


@pytest.mark.parametrize(
    "done", [None, "3", b"3", -1, math.nan, math.inf, [1], np.array([1, 2]), True, 1 << 4000, object()]
)
def test_what_is_no_number_of_steps_is_refused(done: object) -> None:
    with pytest.raises(ValueError, match="done must be a number, 0 or more, and is"):
        checked_report(done)


@pytest.mark.parametrize("total", [0, -1, "100", math.nan, math.inf])
def test_a_wrong_total_is_left_out_and_named(total: object) -> None:
    reported, wrong = checked_report(3, total, "m", {"loss": 1})
    assert reported == Reported(3, None, "m", {"loss": 1})
    assert len(wrong) == 1
    assert "total must be a number above 0" in wrong[0]


def test_a_missing_metric_is_nothing_wrong_and_one_that_is_no_number_is() -> None:
    metrics = {"nan": math.nan, "inf": np.float32("inf"), "none": None, "text": "a" * 100, "x" * 65: 1, "good": 2}
    reported, wrong = checked_report(1, metrics=metrics)
    assert reported.metrics == {"good": 2}
    assert [line[:20] for line in wrong] == ["the metric 'text' mu", "the name 'xxxxxxxxxx"]


def test_a_report_is_bounded_and_goes_to_json_and_back() -> None:
    many = {f"\U0001f600{number:063}": float(number) for number in range(30)}
    reported, wrong = checked_report(1, 2, "\U0001f600" * 400, many)
    assert len(reported.metrics) == MOST_METRICS
    assert len(reported.message) == LONGEST_MESSAGE
    assert wrong == ["there are more than 20 metrics, and the first 20 are taken"]
    text = reported.to_json()
    assert len(text.encode()) <= MOST_BYTES
    again = Reported.from_json(text)
    assert again is not None
    assert again.message == reported.message, "metrics go before the message does"
    assert 0 < len(again.metrics) < MOST_METRICS
    small = Reported(1.5, 3, "line\nline \udc80", {"loss": 0.5}, 7)
    assert Reported.from_json(small.to_json()) == small
    assert (small.share, Reported(5, 3).share, Reported(5).share) == (0.5, 1.0, None)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[" * 3000, '{"a":' * 800, "null", "[]", "3", '"x"', "{}", '{"done": "3"}', '{"done": -1}',
        '{"done": NaN}', '{"done": Infinity}', '{"done": true}', '{"done": ' + "9" * 4000 + "}", '{"done": null}',
        json.dumps({"done": 1, "message": "m" * MOST_BYTES}),
    ],
)  # fmt: skip
def test_what_is_no_report_is_none(text: str) -> None:
    assert Reported.from_json(text) is None


@pytest.mark.parametrize(
    ("wrong", "read"),
    [
        ({"total": 0}, Reported(1)),
        ({"total": math.nan, "message": 3, "metrics": [], "round": -1}, Reported(1)),
        ({"round": 1e300}, Reported(1)),
        ({"round": "7"}, Reported(1)),
        (
            {"metrics": {"a": 10**400, "b": "x", "c": [], "d": math.inf, "e": True, "f": 2}},
            Reported(1, metrics={"f": 2}),
        ),
        ({"metrics": {f"{n}": n for n in range(30)}}, Reported(1, metrics={f"{n}": n for n in range(MOST_METRICS)})),
        ({"metrics": {"n" * 100: 1}}, Reported(1, metrics={"n" * 64: 1})),
        ({"message": "m" * 1000}, Reported(1, message="m" * LONGEST_MESSAGE)),
        ({"unknown": {}}, Reported(1)),
    ],
)
def test_what_is_wrong_in_a_report_is_left_out(wrong: dict[str, Any], read: Reported) -> None:
    assert Reported.from_json(json.dumps({"done": 1, **wrong})) == read
