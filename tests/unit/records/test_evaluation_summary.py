"""The summary of an evaluation in Redis has a limit, whatever sites report."""

from __future__ import annotations

from flavor.records.evaluation import MOST_BYTES, EvaluationSummary


def test_the_first_metrics_are_kept_that_have_room() -> None:
    names = [f"{number:03} {'x' * 60}" for number in range(200)]
    of_all = dict.fromkeys(names, 0.5)
    summary = EvaluationSummary(
        1,
        0,
        opened_ms=1,
        sites=3,
        metrics=of_all,
        spread=dict.fromkeys(names, (0.25, 0.75)),
        few=dict.fromkeys(names, 2),
        reporters=dict.fromkeys(names, "0123abcd"),
    )
    text = summary.to_json()
    assert MOST_BYTES - 400 < len(text) <= MOST_BYTES
    kept = EvaluationSummary.from_json(summary.closed_at(2))
    assert list(kept.metrics) == names[: len(kept.metrics)]
    assert kept.spread.keys() == kept.few.keys() == kept.metrics.keys()
    few = EvaluationSummary(1, 0, opened_ms=1, metrics=dict.fromkeys(names[:9], 0.5))
    assert len(EvaluationSummary.from_json(few.closed_at(2)).metrics) == 9
