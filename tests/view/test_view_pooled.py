"""Pooled metrics and counts where people look at a run: what is kept, what it is shown by, and what is left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flavor.cli.status_lines import columns_of, summary_of
from flavor.cook.metrics import binary_counts
from flavor.metrics.families import families
from flavor.metrics.named import Named
from flavor.metrics.scene import RunScene, Scene
from flavor.records.states import RoundState
from flavor.results.plot import panels
from flavor.results.rounds import RoundResult, best_round, merged_info, round_result, site_info
from flavor.store.local import LocalStore
from flavor.view.board import Board
from flavor.view.curves import headline, metric_names
from flavor.view.described import described
from flavor.view.history import History, RoundRow, Source
from tests.driven import Driven
from tests.view.test_board import until

ROUNDS = 3


def reported(round_: int, *, first: bool) -> dict[str, Any]:
    """What a site reports: its scores get better, and its counts come before its loss or after it."""
    counts = {
        **binary_counts([0, 0, 1, 1], [0.3, 0.5, 0.25 + 0.1 * round_, 0.9]),
        "count/missed": round_,
    }
    loss = {"loss": 1 / round_}
    return {**counts, **loss} if first else {**loss, **counts}


@pytest.fixture(params=[True, False], ids=["recorded", "by an earlier release"])
def is_kept(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def made(url: str, tmp_path: Path, *, first: bool, is_kept: bool) -> Driven:
    driven = Driven(url, LocalStore(tmp_path / "store", create=True))
    for number in range(1, ROUNDS + 1):
        driven.open(["a", "b"])
        for site in ("a", "b"):
            driven.accept(site, 10, reported(number, first=first))
        driven.close(is_kept=is_kept)
    return driven


def results(driven: Driven) -> list[RoundResult]:
    found = []
    for number in range(1, ROUNDS + 1):
        view, store = driven.runs.read_round(number), driven.store
        assert view is not None
        assert store is not None
        infos = {site: site_info(view, store, site) for site in view.contributors}
        found.append(round_result(view, merged_info(view, store), infos))
    return found


@pytest.mark.parametrize("first", [True, False], ids=["counts first", "loss first"])
def test_the_script_decides_by_its_order_what_a_run_is_shown_by(
    url: str, tmp_path: Path, first: bool, is_kept: bool
) -> None:
    driven = made(url, tmp_path, first=first, is_kept=is_kept)
    rows = History(driven.runs, driven.store).strip()
    chosen = "pooled/auc" if first else "loss"
    assert headline(rows) == chosen
    found = described(driven.runs, driven.url)
    assert (found["metric"], found["best"]["metric"], found["best"]["round"]) == (chosen, chosen, ROUNDS)
    best = best_round(results(driven))
    assert best is not None
    assert (best[0], best[1].round) == (chosen, ROUNDS)
    last = list(found["last_round"]["metrics"])
    assert set(last[:2]) == {"pooled/auc", "loss"}
    assert last[-3:] == ["pooled/auc_bound", "pooled/average_precision_bound", "count/missed"]
    assert "sites" not in found["last_round"], "all sites report them"
    heads = [column.head for column in columns_of(found)]
    assert ("LOSS" in heads) != first
    assert "POOLED/AUC" not in heads, "no single site has it"
    assert any(line.text.startswith(f"round {ROUNDS}: {chosen} ") for line in summary_of(found))


def test_lists_are_neither_in_redis_nor_in_rows_nor_in_tables(url: str, tmp_path: Path, is_kept: bool) -> None:
    driven = made(url, tmp_path, first=True, is_kept=is_kept)
    hashes = list(driven.runs.redis.scan_iter(_type="hash"))
    texts = [str(driven.runs.redis.hgetall(key)) for key in hashes]
    assert any("count/missed" in text for text in texts), "of single sites"
    assert not any("count/binary" in text for text in texts)
    assert not any("count/binary" in text for text in driven.runs.summaries())
    for row in History(driven.runs, driven.store).strip():
        assert [name for name in row.metrics if name.startswith("count/")] == ["count/missed"]
    for result in results(driven):
        assert [name for name in result.metrics if name.startswith("count/")] == ["count/missed"]
        for site in result.sites:
            assert [name for name in site.metrics if not name.startswith("basic/")] == ["count/missed", "loss"]
        json.dumps(result.metrics, allow_nan=False)
    assert panels(results(driven))[:2] == ["pooled/auc", "loss"]


def test_a_pooled_curve_has_one_line_and_asks_no_site(url: str, tmp_path: Path, is_kept: bool) -> None:
    driven = made(url, tmp_path, first=True, is_kept=is_kept)
    history = History(driven.runs, driven.store)
    curves = history.curves("pooled/auc")
    assert curves.plain == curves.weighted == pytest.approx((0.75, 0.75, 1.0))
    assert curves.best is not None
    assert (curves.best.round, curves.best.value) == (ROUNDS, 1.0)
    assert (curves.sites, curves.left_out, curves.is_complete) == ({}, 0, True)
    assert history.curves("pooled/auc", ("a", "b"), most_sites=1).left_out == 0
    assert history.metric_names()[-1] == "count/missed"
    assert history.curves("count/missed").weighted == (2, 4, 6)
    assert history.curves("count/missed").best is None
    assert history.curves("pooled/auc_bound").best is None


def test_no_run_is_shown_by_a_count_or_the_bound_of_an_error() -> None:
    """Also where a user's aggregator writes them first."""
    beside = {"pooled/auc_bound": 0.1, "count/missed": 3.0}
    for contributors in (1, 2):
        row = RoundRow(1, RoundState.CLOSED, Source.SUMMARY, contributors=contributors, metrics={**beside, "x": 0.5})
        assert headline([row]) == "x"
        assert list(row.shown_metrics) == ["x", *beside]
        assert metric_names([row]) == ["x", *beside]
        assert headline([replace(row, metrics=beside)]) is None


def test_the_board_and_a_scrape_have_them(url: str, tmp_path: Path) -> None:
    driven = made(url, tmp_path, first=True, is_kept=True)
    board = Board(driven.url, runs=[driven.runs.run])
    board.start()
    try:
        (row,) = until(board, "the metrics", lambda: [row for row in board.runs() if row["metric"] and row["spark"]])
        document = board.document(driven.runs.run)
    finally:
        board.close()
    assert (row["metric"], row["value"]) == ("pooled/auc", 1.0)
    scene = RunScene(document, named=Named().look(document))
    (family,) = [each for each in families(Scene(0, runs=[scene])) if each.name == "flavor_metric_last"]
    shown = {sample.labels["metric"]: sample.value for sample in family.samples}
    assert (shown["pooled/auc"], shown["count/missed"]) == (1.0, 6)
