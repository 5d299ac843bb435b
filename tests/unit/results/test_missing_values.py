"""What is said of a round whose sites do not report all metrics."""

from __future__ import annotations

import math
from typing import Any

from flavor.records.info import CONFUSION
from flavor.results.reading import RoundReading


def test_a_site_without_a_value_that_others_report_is_named_once() -> None:
    """The merged value is then that of the others: better without the worst site."""
    said: list[str] = []
    reading = RoundReading("out", said.append)

    def told(round_: int, **infos: dict[str, Any]) -> list[str]:
        said.clear()
        cells = dict.fromkeys(CONFUSION)
        reading._tell_valueless(round_, {site: {"metrics": {**cells, **metrics}} for site, metrics in infos.items()})
        return list(said)

    full = {"auc": 0.5, "loss": 1.0}
    assert told(1, a=full, b=full, c={**full, "own": 1.0}) == [], "one site's own metric lacks at none"
    (line,) = told(2, a=full, b={"auc": None, "loss": 1.0}, c=full)
    assert line == (
        "round 2: b reports no finite number as auc (None, NaN, infinite, or left out): the round's value is of 2 of "
        "3 sites. This line is not repeated for later rounds"
    )
    assert told(3, a=full, b={"auc": math.nan, "loss": 1.0}, c=full) == []
    (line,) = told(4, a=full, b={"auc": 0.5}, c=full)
    assert line.startswith("round 4: b reports no finite number as loss ("), "another metric of the site, left out"
    (line,) = told(5, a={**full, "own": None}, b=full, c=full)
    assert "a reports no finite number as own" in line, "one that it reports as none"
    many = {f"m{number:03d}": None for number in range(300)}
    (line,) = told(6, a={**full, **many}, b=full, c=full)
    assert "m000, m001, m002, m003 and 95 more metrics" in line
    assert told(7, a={**full, "another": None}, b=full, c=full) == [], "a site chooses the names, and their number"
