"""One site chooses the names of its metrics, and may choose many new ones in each round: others' metrics stay."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from flavor.cli.status_lines import columns_of, summary_of
from flavor.counted import counted
from flavor.metrics.families import families
from flavor.metrics.named import MOST_METRICS, Named
from flavor.metrics.scene import RunScene, Scene
from flavor.records.merging import WEIGHTED
from flavor.records.states import RoundState
from flavor.results.rounds import RoundResult, best_round, merged_info, round_result
from flavor.store.local import LocalStore
from flavor.view.board import Board
from flavor.view.curves import MOST_NAMES, headline
from flavor.view.described import described
from flavor.view.history import History, RoundRow
from flavor.view.history import Source as RowSource
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
    assert curves.best is not None
    assert (curves.best.round, curves.best.value, curves.best.fewer) == (3, pytest.approx(0.3), 5), "of all sites"
    assert history.metric_names()[:2] == ["accuracy", "loss"]
    assert len(history.metric_names()) <= MOST_NAMES

    found = described(driven.runs, driven.url)
    assert found["metric"] == "accuracy"
    best = {"metric": "accuracy", **asdict(curves.best), "rounds": ROUNDS}
    assert found["best"] == best
    assert (best["sites"], best["contributors"]) == (3, 3)
    last = found["last_round"]
    assert (last["sites"]["accuracy"], last["contributors"]) == (2, 3)
    assert all(last["sites"][name] == 1 for name in last["metrics"] if name not in ("accuracy", "loss"))
    assert last["left_out"] + len(last["metrics"]) == 2 + 19, "a name like that of a weighted mean is not merged"
    (line,) = [line.text for line in summary_of(found) if line.text.startswith(f"round {ROUNDS}: ")]
    assert line.startswith("round 8: accuracy 0.8 of 2 of 3 sites (best of 3 compared rounds: 0.3, reported in")
    assert "; not compared: 5 rounds, the newest of them round 8, in which fewer than 3 sites report it)" in line
    further = counted(last["left_out"], "further metric")
    assert line.endswith(f"; the store alone has {further}, as too many are reported")
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


def of_edge_1() -> dict[str, float]:
    """As many metrics as a summary has room for, and more."""
    return {f"acc_{number:02}_{'x' * 50}": 0.0 for number in range(45)}


HONEST = {"accuracy": 0.5, "loss": 0.25}


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("is_first", [True, False], ids=["it is alone at first", "both from the start"])
def test_of_two_sites_neither_displaces_the_metrics_of_the_other(
    url: str, tmp_path: Path, is_kept: bool, is_first: bool
) -> None:
    driven = Driven(url, LocalStore(tmp_path / "store", create=True))
    for number in range(1, 5):
        driven.open(["edge-1", "edge-2"])
        driven.accept("edge-1", 10, of_edge_1())
        if number > 1 or not is_first:
            driven.accept("edge-2", 10, HONEST)
        driven.close(is_kept=is_kept)
    history = History(driven.runs, driven.store)
    rows = history.strip()
    assert all(HONEST.keys() <= row.shown_metrics.keys() for row in rows[is_first:])
    assert sum(name in of_edge_1() for name in rows[-1].shown_metrics) >= 5, "both have a share"
    if not is_first:
        assert headline(rows) == history.metric_names()[0] == "accuracy"
        assert described(driven.runs, driven.url)["best"]["metric"] == "accuracy"
    view = driven.runs.read_round(4)
    assert view is not None
    assert driven.store is not None
    exported = list(round_result(view, merged_info(view, driven.store), {}).metrics)
    assert {"accuracy (weighted)", "loss (weighted)"} < set(exported[:8])


def test_a_site_that_is_alone_in_a_round_does_not_change_the_runs_metric(url: str, tmp_path: Path) -> None:
    driven, named, series = Driven(url, LocalStore(tmp_path / "store", create=True)), Named(), list[str]()
    headlines = []
    for number in range(1, 13):
        alone = "edge-1" if number in (2, 5, 6, 8, 11) else f"edge-{2 + number % 2}"
        driven.open([alone])
        driven.accept(alone, 10, names(number) if alone == "edge-1" else HONEST)
        driven.close()
        found = described(driven.runs, driven.url)
        headlines.append(found["metric"])
        clients: dict[str, object] = {f"edge-{site}": {} for site in (1, 2, 3)}
        series += [name for name in named.look(found | {"clients": clients}) if name not in series]
    assert headlines == ["accuracy"] * 12
    assert {"accuracy", "loss"} <= set(series[:10])
    history = History(driven.runs, driven.store)
    assert history.metric_names()[:2] == ["accuracy", "loss"]
    assert history.curves("accuracy", ()).best is not None


def rows_of(*rounds: tuple[int, dict[str, int]]) -> list[RoundRow]:
    """Rounds with their number of contributors, and the number of those that report each metric."""
    return [
        RoundRow(
            number,
            RoundState.CLOSED,
            RowSource.SUMMARY,
            contributors=sites,
            metrics=dict.fromkeys(counts, 0.0),
            few={name: count for name, count in counts.items() if count < sites},
        )
        for number, (sites, counts) in enumerate(rounds, 1)
    ]


def test_the_runs_metric_goes_once_several_rounds_are_without_it() -> None:
    all_three, alone, others = (3, {"accuracy": 3}), (1, {"evil": 1}), (3, {"auc": 2, "accuracy": 1})
    assert headline(rows_of(all_three, *[others] * 4)) == "accuracy"
    assert headline(rows_of(all_three, *[others] * 5)) == "auc"
    assert headline(rows_of(all_three, *[others] * 4, all_three, *[others] * 4)) == "accuracy"
    assert headline(rows_of(all_three, *[alone] * 3)) == "accuracy"
    assert headline(rows_of(all_three, *[alone] * 200)) == "evil", "it is all that there is"
    assert headline(rows_of(all_three, *[(0, {})] * 200)) == "accuracy", "rounds that cannot be read say nothing"
    assert headline([]) is None


def test_the_best_round_is_that_of_a_metric_which_most_rounds_have() -> None:
    def result(number: int, metrics: dict[str, float]) -> RoundResult:
        return RoundResult(number, 1.0, ["a"], 10, 10, metrics)

    rounds = [result(1, {"evil_acc": 1.0}), result(2, {"accuracy": 0.5}), result(3, {"accuracy": 0.75})]
    name, best = best_round(rounds) or ("", None)
    assert best is not None
    assert (name, best.round, best.value) == ("accuracy", 3, 0.75)
