"""What has happened in a run, round by round, as people and programs read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flavor.errors import RunError
from flavor.records.states import RoundState
from flavor.store.local import LocalStore
from flavor.view.history import History, Outcome, Source
from tests.driven import Driven


@pytest.fixture
def driven(url: str, tmp_path: Path) -> Driven:
    return Driven(url, LocalStore(tmp_path / "store", create=True))


def two_rounds(driven: Driven) -> None:
    """Two rounds of three clients, of which one is refused in the first."""
    driven.open(["a", "b", "c"])
    driven.accept("a", 10, {"loss": 0.5, "auc": 0.25})
    driven.accept("b", 30, {"loss": 0.1})
    driven.refuse("c", "NaN in fc.weight")
    driven.close()
    driven.open(["a", "b", "c"])
    for client, loss in {"a": 0.3, "b": 0.2, "c": 0.7}.items():
        driven.accept(client, 10, {"loss": loss})
    driven.close()


def test_a_run_round_by_round(driven: Driven) -> None:
    history = History(driven.runs, driven.store)
    assert history.strip() == []
    two_rounds(driven)
    first, second = history.strip()
    assert (first.round, first.state, first.expected, first.contributors, first.refused) == (
        1,
        RoundState.CLOSED,
        3,
        2,
        1,
    )
    assert (first.examples, first.attempts, first.openings) == (40, 1, 1)
    assert first.metrics == pytest.approx({"loss": 0.3, "loss (weighted)": 0.2, "auc": 0.25, "auc (weighted)": 0.25})
    assert first.shown_metrics == pytest.approx({"loss": 0.2, "auc": 0.25})
    assert first.seconds is not None
    assert 0 <= first.seconds < 60
    assert (second.round, second.contributors, second.refused) == (2, 3, 0)
    driven.open(["a", "b"])
    driven.accept("a", 7)
    (row,) = history.strip(after=2)
    assert (row.round, row.state, row.expected, row.contributors, row.examples) == (3, RoundState.OPEN, 2, 1, 7)
    assert (row.closed_ms, row.seconds, row.source) == (0, None, Source.ROUND)
    assert [each.round for each in history.strip()] == [1, 2, 3]


def test_one_round_in_detail(driven: Driven) -> None:
    two_rounds(driven)
    history = History(driven.runs, driven.store)
    found = history.timeline(1)
    assert found.gone == ""
    assert [(each.client, each.outcome, each.reason) for each in found.clients] == [
        ("a", Outcome.ACCEPTED, "10 examples"),
        ("b", Outcome.ACCEPTED, "30 examples"),
        ("c", Outcome.REFUSED, "NaN in fc.weight"),
    ]
    assert found.clients[0].metrics["loss"] == 0.5
    assert [each.in_model for each in found.clients] == [True, True, False]
    with pytest.raises(RunError, match="no round 3: the newest is 2"):
        history.timeline(3)


def test_the_curves_of_a_metric(driven: Driven) -> None:
    two_rounds(driven)
    history = History(driven.runs, driven.store)
    assert history.metric_names() == ["loss", "auc"]
    curves = history.curves("loss")
    assert curves.rounds == (1, 2)
    assert curves.plain == pytest.approx((0.3, 0.4))
    assert curves.weighted == pytest.approx((0.2, 0.4))
    assert curves.best == (1, pytest.approx(0.2))
    assert history.curves("auc").plain == (pytest.approx(0.25), None)
    assert history.curves("nothing").plain == (None, None)
