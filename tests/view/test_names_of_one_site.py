"""One site chooses the names of its metrics, and may choose many new ones in each round: others' metrics stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from flavor.cli.status_lines import columns_of, summary_of
from flavor.metrics.families import families
from flavor.metrics.named import MOST_METRICS, Named
from flavor.metrics.scene import RunScene, Scene
from flavor.records.info import WEIGHTED
from flavor.results.rounds import merged_info, round_result
from flavor.store.local import LocalStore
from flavor.view.board import Board
from flavor.view.curves import MOST_NAMES, headline
from flavor.view.described import described
from flavor.view.history import History
from tests.driven import Driven
from tests.view.test_board import until

ROUNDS = 8


def names(round_: int) -> dict[str, float]:
    """What the site reports in a round beside what all report; one name looks like that of a weighted mean."""
    every = [f"{round_:06}_{number:02}_{'x' * 54}" for number in range(19)]
    return {"aaa (weighted)": 9.0, **dict.fromkeys(every, 0.0)}


@pytest.fixture(params=[True, False], ids=["recorded", "by an earlier release"])
def driven(request: pytest.FixtureRequest, url: str, tmp_path: Path) -> Driven:
    """A run in which the site that sorts first reports 20 more metrics from round 4 on."""
    driven = Driven(url, LocalStore(tmp_path / "store", create=True))
    for number in range(1, ROUNDS + 1):
        driven.open(["a", "b", "c"])
        common = {"accuracy": number / 10, "loss": 1 / number}
        driven.accept("a", 10, {**names(number), "loss": 1 / number} if number >= 4 else common)
        driven.accept("b", 10, common)
        driven.accept("c", 10, common)
        driven.close(is_kept=request.param)
    return driven


def test_they_do_not_displace_the_metrics_of_most_sites(driven: Driven) -> None:
    history = History(driven.runs, driven.store)
    rows = history.strip()
    assert [set(list(row.shown_metrics)[:2]) for row in rows] == [{"accuracy", "loss"}] * ROUNDS
    assert headline(rows) == "accuracy"
    assert all(row.is_of_most("accuracy") for row in rows)
    assert not any(
        row.is_of_most(name) for row in rows for name in row.shown_metrics if name not in ("accuracy", "loss")
    )
    view = driven.runs.read_round(ROUNDS)
    assert view is not None
    assert driven.store is not None
    exported = round_result(view, merged_info(view, driven.store), {})
    assert {name.removesuffix(WEIGHTED) for name in list(exported.metrics)[:4]} == {"accuracy", "loss"}
    curves = history.curves("accuracy", ())
    assert curves.weighted == pytest.approx(tuple(number / 10 for number in range(1, ROUNDS + 1)))
    assert curves.best == (ROUNDS, pytest.approx(0.8))
    assert history.metric_names()[:2] == ["accuracy", "loss"]
    assert len(history.metric_names()) <= MOST_NAMES

    found = described(driven.runs, driven.url)
    assert found["metric"] == "accuracy"
    assert found["best"] == {"metric": "accuracy", "round": ROUNDS, "value": pytest.approx(0.8), "rounds": ROUNDS}
    last = found["last_round"]
    assert (last["sites"]["accuracy"], last["contributors"]) == (2, 3)
    assert all(last["sites"][name] == 1 for name in last["metrics"] if name not in ("accuracy", "loss"))
    assert last["left_out"] + len(last["metrics"]) == 23
    (line,) = [line.text for line in summary_of(found) if line.text.startswith(f"round {ROUNDS}: ")]
    assert line.startswith("round 8: accuracy 0.8 (best: 0.8, reported in round 8")
    assert line.endswith(f"; the store alone has {last['left_out']} further metrics, as too many are reported")
    assert "ACCURACY" in [column.head for column in columns_of(found)]


def test_the_page_and_a_scrape_stay_with_the_metric(driven: Driven) -> None:
    named, series = Named(), set[str]()
    board = Board(driven.url, runs=[driven.runs.run])
    board.start()
    try:
        (row,) = until(board, "the metrics", lambda: [row for row in board.runs() if row["metric"] and row["spark"]])
        document = board.document(driven.runs.run)
    finally:
        board.close()
    assert (row["metric"], row["value"]) == ("accuracy", pytest.approx(0.8))
    assert row["spark"] == pytest.approx([number / 10 for number in range(1, ROUNDS + 1)])
    for number in range(50):
        metrics = {"accuracy": 0.5, "loss": 0.5, **names(number)}
        last = {"round": number, "metrics": metrics, "contributors": 3}
        of_round = document | {"last_round": {**last, "sites": dict.fromkeys(names(number), 1)}}
        scene = RunScene(of_round, named=named.look(of_round))
        (family,) = [each for each in families(Scene(0, runs=[scene])) if each.name == "flavor_metric_last"]
        shown = {sample.labels["metric"] for sample in family.samples}
        assert {"accuracy", "loss"} <= shown
        series |= shown
    assert len(series) <= MOST_METRICS
    late = {"new": 1.0, "accuracy": 1.0}
    assert "new" in named.look(document | {"last_round": {"round": 51, "metrics": late, "contributors": 3}})
