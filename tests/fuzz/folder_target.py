"""The JSON files of evaluations in a result folder, which may come from somebody else."""

from __future__ import annotations

import json

from flavor.errors import InvalidRecord
from flavor.results.evaluated import Evaluated, as_round
from flavor.results.evaluated_table import described, judged_words, lines_of, table_of
from flavor.results.evaluation_shapes import BestShape, ReportsShape, RulesShape, Shape
from flavor.results.site_measures import SiteMeasures
from tests.fuzz.report_target import one_line

GOOD_EVALUATION = Evaluated(
    run="r",
    round=2,
    number=0,
    model="f" * 64,
    opened_ms=1,
    closed_ms=2,
    expected=("a", "b"),
    sites={"a": SiteMeasures(10, {"acc": 0.5}, {"loss": "NaN"})},
    missing={"b": "late"},
    metrics={"acc": 0.5, "acc (weighted)": 0.5, "pooled/acc": 0.4},
    few={"acc": 1},
    spread={"acc": (0.4, 0.6)},
    left_out={"a": {"count/x": "why"}},
    unread={"a": "why"},
    central=SiteMeasures(5, {"central/acc": 0.1}),
)


def fuzz_evaluation(data: bytes) -> None:
    """An evaluation's file, as it is read, shown and described; and the same bytes as the files beside it."""
    others: tuple[type[Shape], ...] = (BestShape, ReportsShape, RulesShape)
    for shape in others:
        try:
            shape.of_json(data, "x.json")
        except InvalidRecord as error:
            one_line(error)
    try:
        found = Evaluated.from_json(data, "x.json")
    except InvalidRecord as error:
        one_line(error)
        return
    shown = described(found)
    json.dumps(shown)
    judged_words(shown)
    lines_of(found)
    table_of(found)
    as_round(found)
    assert Evaluated.from_json(found.to_json(), "again") is not None
