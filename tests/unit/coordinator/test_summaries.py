"""The coordinator reads each evaluation with a result once, and all again of a server that has others."""

from __future__ import annotations

import pytest

from flavor.coordinator import summaries
from flavor.coordinator.summaries import Summaries
from flavor.records.evaluation import EvaluationSummary


class Listed:
    """`RunStore.evaluated`, and what was asked of it."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def evaluated(self, first: int = 0) -> list[str]:
        return self.texts[first:]


def text(round_: int, value: float = 0.5) -> str:
    return EvaluationSummary(round_, 0, opened_ms=1, metrics={"accuracy": value}).closed_at(2)


def test_each_is_read_once_and_all_of_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = list[str]()

    class Counting(EvaluationSummary):
        @classmethod
        def from_json(cls, text: str) -> EvaluationSummary:
            parsed.append(text)
            return EvaluationSummary.from_json(text)

    monkeypatch.setattr(summaries, "EvaluationSummary", Counting)
    listed = Listed()
    found = Summaries(listed)  # type: ignore[arg-type]
    assert found.read() == []
    for round_ in range(1, 5):
        listed.texts.append(text(round_))
        assert [each.round for each in found.read()] == list(range(1, round_ + 1))
        assert [each.round for each in found.read()] == list(range(1, round_ + 1))
    assert parsed == listed.texts, "each one once"
    for other in ([], [text(1)], [text(1), text(2, 0.7)], [text(each) for each in (9, 8, 7, 6, 5)]):
        listed.texts = other
        assert found.read() == [EvaluationSummary.from_json(each) for each in other]
