"""What people read of rounds: tables, the best round, the plot."""

from __future__ import annotations

import contextlib
import csv
import math
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from flavor.errors import InvalidInfo
from flavor.records.objects import ObjectRef
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.states import RoundState, RunState
from flavor.results.best import BestRound, MergedValue, best_of
from flavor.results.computed_columns import told_apart
from flavor.results.plot import Plotted, draw, panels, plot_metrics
from flavor.results.rounds import RoundResult, SiteResult, best_round, for_people, merged_info, scalars
from flavor.results.table_columns import MOST_COLUMNS, Rank, Ranks, TableColumns, ruled_columns
from flavor.results.tables import FIXED_OF_SITES, Tables
from flavor.store.local import LocalStore
from flavor.trackers.files import CsvTracker
from flavor.trackers.tracker import ClosedRound
from flavor.view.curves import merged_curves
from flavor.view.strip import RoundRow, Source

TABLES = ("metrics.csv", "metrics-sites.csv")


def result(number: int, metrics: dict[str, float], sites: dict[str, dict[str, float]] | None = None) -> RoundResult:
    made = [SiteResult(site, 10, 100, given) for site, given in (sites or {}).items()]
    return RoundResult(number, 1.0, list(sites or {}), 10, 100, metrics, made)


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_metric_never_repeats_a_column_and_never_is_a_formula(tmp_path: Path) -> None:
    names = ["round", "round (metric)", "=cmd()", "Grüße", "-x"]
    rounds = [result(1, dict.fromkeys(names, 0.5), {"a": dict.fromkeys(["site", "=cmd()"], 0.5)})]
    Tables(tmp_path).write(rounds)
    heads = rows(tmp_path / "metrics.csv")[0]
    assert heads[5:] == ["round (metric)", "round (metric) (metric)", "'=cmd()", "Grüße", "'-x"]
    assert rows(tmp_path / "metrics-sites.csv")[0][6:] == ["site (metric)", "'=cmd()"]
    assert len(set(heads)) == len(heads)


def test_a_table_of_an_earlier_release_without_the_rounds_of_tasks_is_exported_into(tmp_path: Path) -> None:
    """What the run no longer has stays as it was in the file."""
    table, sites = tmp_path / "t.csv", tmp_path / "t-sites.csv"
    stale = replace(result(5, {"loss": 0.5}), clients=["a"], sites=[SiteResult("a", 10, 100, {"loss": 0.5}, 3, 2)])
    for lacks in (slice(4, 6), slice(0)):
        Tables(tmp_path, merged=table.name, sites=sites.name).write([stale])
        old = rows(sites)
        for line in old:
            del line[lacks]
        with sites.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(old)
        tracker = CsvTracker(table, print)
        tracker.begin(RunView("r", RunState.RUNNING, 5, 5, {"rounds": 5, "store": "s"}, "", None, 1, None))
        unread = replace(stale, metrics={}, sites=[replace(stale.sites[0], metrics={})])
        tracker.write([ClosedRound(unread, 1, "", is_whole=False)])
        assert rows(sites) == [[*FIXED_OF_SITES, "loss"], ["5", "a", "10", "100", "3", "2", "0.5"]]


def test_a_metric_that_is_called_like_a_number_of_sites_has_a_column_of_its_own(tmp_path: Path) -> None:
    """Also in the rounds in which that number is not there."""
    names = ["auc", "auc (sites)", "auc (sites) (weighted)", "auc (sites) (metric)", "auc (lowest)"]
    first = result(1, dict(zip(names, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True)), {})
    rounds = [first, replace(first, round=2, few={"auc": 1, "auc (sites)": 2})]
    Tables(tmp_path).write(rounds)
    heads, *lines = rows(tmp_path / "metrics.csv")
    own = ["auc (sites) (metric)", "auc (sites) (metric) (weighted)", "auc (sites) (metric) (metric)", "auc (lowest)"]
    assert heads[5:] == ["auc", *own, "auc (sites)", "auc (sites) (sites)"]
    assert [line[5:] for line in lines] == [
        ["0.1", "0.2", "0.3", "0.4", "0.5", "", ""],
        ["0.1", "0.2", "0.3", "0.4", "0.5", "1", "2"],
    ]
    assert told_apart(rounds[1].metrics_and_sites) == (first.metrics, rounds[1].few)


def test_a_name_that_a_file_cannot_hold_or_a_terminal_should_not_be_shown_is_spelled_out(tmp_path: Path) -> None:
    """Of a run of a release that took such names; two of one spelling keep a column each."""
    names = dict.fromkeys(["\ud800x", "\x1b[31m\u202eacc", "\\ud800x"], 0.5)
    rounds = [result(1, names, {"a": names})]
    Tables(tmp_path).write(rounds)
    for file in TABLES:
        assert rows(tmp_path / file)[0][-3:] == ["\\ud800x", "\\x1b[31m\\u202eacc", "\\ud800x (metric)"]
    assert plot_metrics(Plotted("r", rounds), tmp_path / "m.png")


def test_a_site_with_new_names_in_each_round_fills_a_table_and_no_more(tmp_path: Path) -> None:
    said: list[str] = []
    tables, rounds, files = Tables(tmp_path, said.append), list[RoundResult](), [*map(tmp_path.joinpath, TABLES)]
    with contextlib.ExitStack() as stack:
        for number in range(1, 9):
            given = {f"m{number}-{index}": 1.0 for index in range(252)}
            rounds.append(result(number, {"acc": 0.5, **given}, {"a": {"acc": 0.5}, "b": given}))
            tables.write(rounds)
            if number == 5:
                held = [stack.enter_context(file.open()) for file in files]
        assert [os.fstat(file.fileno()).st_nlink for file in held] == [1, 1], "appended to, and not written anew"
    for file, fixed in zip(files, (5, 6), strict=True):
        table = rows(file)
        assert {len(row) for row in table} == {fixed + MOST_COLUMNS}
        assert table[-1][0] == "8"
    assert [line.split(" has ")[0].rpartition("/")[2] for line in said] == ["metrics.csv", "metrics-sites.csv"]
    assert all("since round 5: 'm5-" in line for line in said), said


def test_what_a_full_disk_kept_from_a_table_is_in_it_later(tmp_path: Path) -> None:
    tables, rounds = Tables(tmp_path), [result(1, {"f1": 0.5})]
    tables.write(rounds)
    (tmp_path / "metrics.csv").rename(tmp_path / "kept")
    (tmp_path / "metrics.csv").mkdir()
    rounds.append(result(2, {"f1": 0.6}))
    with pytest.raises(OSError, match="directory"):
        tables.write(rounds)
    (tmp_path / "metrics.csv").rmdir()
    tables.write(rounds)
    assert [row[0] for row in rows(tmp_path / "metrics.csv")] == ["round", "1", "2"]


def test_the_panels_are_of_what_most_sites_report() -> None:
    mine = {f"m{index}": 1.0 for index in range(100)}
    rounds = [result(number, {**mine, "acc": 0.5}, {"a": mine | {"acc": 1}, "b": {"acc": 1}}) for number in (1, 2)]
    assert panels(rounds)[0] == "acc"
    assert len(panels(rounds)) == 24
    like_a_mean = result(1, {"acc": 0.5}, {"a": {"acc": 1.0, "f1 (weighted)": 1e300}, "b": {"acc": 1.0}})
    assert panels([like_a_mean]) == ["acc"], "a site's own metric of such a name is no mean over the sites"


def test_the_plot_has_each_site_the_merged_curve_and_the_best_round() -> None:
    pytest.importorskip("matplotlib")
    values = {1: 0.5, 2: 0.9, 3: 0.7}
    rounds = [
        result(
            number,
            {"auc": value + 0.05, "auc (weighted)": value, "steps": value, "loss": math.nan if number == 2 else value},
            {"a": {"auc": value - 0.1, "steps": value}, "b": {"auc": value + 0.1}},
        )
        for number, value in values.items()
    ]
    figure = draw(Plotted("r", rounds))
    of = {axes.get_title(loc="left"): axes for axes in figure.axes}
    curves = [[round(float(y), 9) for y in line.get_ydata()] for line in of["auc"].lines]
    assert curves == [[0.4, 0.8, 0.6], [0.6, 1.0, 0.8], [0.5, 0.9, 0.7], [0.55, 0.95, 0.75], [0.9]]
    assert list(of["auc"].lines[-1].get_xdata()) == [2]
    assert of["auc"].get_title(loc="right") == "best: 0.9 in round 2", "by the weighted mean"
    assert of["loss"].get_title(loc="right") == "best: 0.5 in round 1"
    assert of["steps"].get_title(loc="right") == "", "its name does not say what is good"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["a", "b", "mean, weighted by examples", "plain mean", "best round, by the thick line"]


def named(best: tuple[str, BestRound] | None) -> tuple[str, int, float] | None:
    return best and (best[0], best[1].round, best[1].value)


def test_a_round_of_which_a_site_reports_no_value_is_not_the_best_round(tmp_path: Path) -> None:
    """The mean without the worst site is better, and was the best."""
    pytest.importorskip("matplotlib")
    values = {1: 0.7, 2: 0.9, 3: 0.8}
    rounds = [
        replace(
            result(number, {"auc": value, "auc (weighted)": value}, {key: {} for key in "abc"}),
            few={"auc": 2} if number == 2 else {},
        )
        for number, value in values.items()
    ]
    best = best_round(rounds)
    assert named(best) == ("auc", 3, 0.8)
    assert best is not None
    assert best[1].without == "not compared: round 2, in which fewer than 3 sites report it"
    (axes,) = draw(Plotted("r", rounds)).axes
    assert axes.get_title(loc="right") == "best: 0.8 in round 3"
    assert [list(line.get_xdata()) for line in axes.lines][-2:] == [[2], [3]], "its value is marked as not of all sites"
    Tables(tmp_path).write(rounds)
    table = rows(tmp_path / "metrics.csv")
    assert [row[-1] for row in table] == ["auc (sites)", "", "2", ""]


def test_rounds_are_compared_that_the_most_sites_report() -> None:
    def best(*sites: int) -> tuple[int, str]:
        found = best_of({n: MergedValue(1 / n, each, 4) for n, each in enumerate(sites, 1)}, -1)
        assert found is not None
        return found.round, found.without

    assert best(3, 3, 3) == (3, ""), "a site that never reports it is not waited for"
    assert best(4, 3) == (
        1,
        "not compared: round 2, in which fewer than 4 sites report it, so that only round 1 is compared",
    )
    few = "not compared: 2 rounds, the newest of them round 5, in which fewer than 4 sites report it"
    assert best(4, 4, 3, 4, 1) == (4, few)
    often = "not compared: 5 rounds, the newest of them round 7, in which fewer than 3 sites report it"
    assert best(3, 2, 2, 3, 2, 2, 2) == (4, often), "a site that reports no value in most rounds"
    late = "not compared: 3 rounds, the newest of them round 3, in which fewer than 4 sites report it"
    assert best(2, 2, 2, 4, 4) == (5, late), "sites that came later"
    alone = ", in which fewer than 4 sites report it, so that only round 2 is compared"
    assert best(2, 4, 3) == (2, f"not compared: 2 rounds, the newest of them round 3{alone}")


def test_rounds_of_other_sites_are_not_compared() -> None:
    """Each site gets better in each round, and the mean of the two best sites was the best round."""

    def best(*rounds: str) -> tuple[int, str]:
        offsets = {"a": 0.5, "b": 0.4, "c": 0.2}
        made = []
        for number, sites in enumerate(rounds, 1):
            metrics = {site: {"auc": offsets[site] + number / 50} for site in sites}
            merged = {"auc": sum(each["auc"] for each in metrics.values()) / len(metrics)}
            made.append(result(number, merged, metrics))
        found = best_round(made)
        assert found is not None
        return found[1].round, found[1].without

    two = "not compared: 2 rounds, the newest of them round 4, in which other sites report it"
    assert best("bc", "ab", "bc", "ab", "bc") == (5, two), "the sites of most rounds"
    assert best("ab", "ab", "bc", "cb") == (4, two.replace("round 4", "round 2")), "in any order; the newest of equals"
    mixed = "not compared: 2 rounds, the newest of them round 4, in which fewer than 2 sites or other ones report it"
    assert best("ab", "c", "ab", "bc") == (3, mixed)
    alone = "not compared: 2 rounds, the newest of them round 2, in which other sites report it"
    assert best("ab", "ac", "bc") == (3, f"{alone}, so that only round 3 is compared")


def test_rounds_are_compared_by_the_sites_that_report_the_metric(tmp_path: Path) -> None:
    """Not by those that are there: a and b lack it in one round each."""
    pytest.importorskip("matplotlib")
    everyone = {key: {"auc": 0.5} for key in "abc"}
    rounds = [
        replace(result(number, {"auc": value}, {**everyone, lacking: {}}), few={"auc": 2})
        for number, (lacking, value) in enumerate((("a", 0.3), ("b", 0.9), ("a", 0.4)), 1)
    ]
    best = best_round(rounds)
    assert best is not None
    assert (best[1].round, best[1].others) == (3, 1)
    (axes,) = draw(Plotted("r", rounds)).axes
    assert axes.get_title(loc="right") == "best: 0.4 in round 3"
    (axes,) = draw(Plotted("r", rounds[1:])).axes
    assert axes.get_title(loc="right") == "", "no two rounds are of the same sites"


def test_rounds_of_sites_that_are_not_known_are_not_compared() -> None:
    """A table of rounds has no lists of counts, by which a pooled metric is known to be of a site."""
    rounds = [
        replace(result(number, {"pooled/auc": value}, {key: {"x": 1.0} for key in "abc"}), few={"pooled/auc": 2})
        for number, value in enumerate((0.5, 0.75, 0.625), 1)
    ]
    best = best_round(rounds)
    assert best is not None
    assert (best[1].round, best[1].compared) == (3, 1)
    same = [replace(each, reporters={"": "abc", "pooled/auc": "ab"}) for each in rounds]
    best = best_round(same)
    assert best is not None
    assert (best[1].round, best[1].compared) == (2, 3)


def test_the_first_round_is_not_the_best_one_because_all_sites_are_in_it_alone() -> None:
    """As in an asynchronous run: all four are in round 1, and the model of that round is the worst."""
    fast, every = "abc", "abcd"
    who = {number: every if number in (1, 6) else fast if number % 5 else "bcd" for number in range(1, 13)}
    values = {number: MergedValue(number / 100, len(sites), len(sites), sites) for number, sites in who.items()}
    found = best_of(values, 1)
    assert found is not None
    assert (found.round, found.usual, found.compared) == (12, 3, 8)
    assert found.without == "not compared: 4 rounds, the newest of them round 10, in which other sites report it"
    often = best_of({**values, 9: replace_sites(values[9], every)}, 1)
    assert often is not None
    assert (often.round, often.usual, often.compared) == (9, 4, 3), "a quarter of the rounds"


def replace_sites(value: MergedValue, sites: str) -> MergedValue:
    return value._replace(sites=len(sites), contributors=len(sites), reporters=sites)


def test_a_run_s_best_round_is_by_the_first_metric_that_says_what_is_good() -> None:
    rounds = [result(1, {"x": 1.0, "loss": 0.5, "auc": 0.9}), result(2, {"x": 2.0, "loss": 0.4, "auc": 0.8})]
    assert named(best_round(rounds)) == ("loss", 2, 0.4)
    weighted = best_round([result(1, {"auc": 0.4, "auc (weighted)": 0.5})])
    assert named(weighted) == ("auc", 1, 0.5), "the weighted means count"
    assert best_round([result(1, {"x": 1.0})]) is None
    assert best_round([]) is None


def test_a_value_that_is_missing_leaves_its_cell_empty(tmp_path: Path) -> None:
    given = scalars({"auc": math.nan, "loss": None, "f1": 0.5, "ok": True, "matrix": [1, 2], "far": math.inf})
    assert given == {"f1": 0.5}
    rounds = [result(1, {"auc": 0.5, "f1": 0.5}, {"a": given, "b": {"auc": 0.25}})]
    Tables(tmp_path).write(rounds)
    assert rows(tmp_path / "metrics-sites.csv")[1:] == [
        ["1", "a", "10", "100", "", "", "0.5", ""],
        ["1", "b", "10", "100", "", "", "", "0.25"],
    ]


def test_tables_grow_and_are_written_anew_when_a_metric_comes_in(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    rounds = [result(1, {"f1": 0.5})]
    tables.write(rounds)
    rounds.append(result(2, {"f1": 0.6}))
    tables.write(rounds)
    assert [row[0] for row in rows(tmp_path / "metrics.csv")] == ["round", "1", "2"]
    rounds.append(result(3, {"auc": 0.7}))
    tables.write(rounds)
    assert [row[5:] for row in rows(tmp_path / "metrics.csv")] == [["f1", "auc"], ["0.5", ""], ["0.6", ""], ["", "0.7"]]


def test_where_it_is_not_known_what_is_good_no_round_is_the_best() -> None:
    values = {1: MergedValue(0.2), 2: MergedValue(0.9), 3: MergedValue(0.9)}
    found = [best_of(values, better) for better in (1, -1, 0)]
    assert [best and (best.round, best.value) for best in found] == [(2, 0.9), (1, 0.2), None]
    assert best_of({}, 1) is None
    by_rounding = {1: MergedValue(0.3), 2: MergedValue(0.1 + 0.2), 3: MergedValue(0.3 - 1e-16)}
    assert [best.round for better in (1, -1) if (best := best_of(by_rounding, better))] == [1, 1]


def test_on_the_operator_s_own_data_the_rounds_of_any_sites_are_compared() -> None:
    """No site has a part in such a value. Of what sites report, round 3 is not compared, which lacks a site."""
    rounds = [
        result(number, {"accuracy": number / 10, "central/accuracy": number / 10}, {site: {} for site in sites})
        for number, sites in enumerate(("abc", "abc", "ab"), 1)
    ]
    both = [
        best_of({each.round: each.of_sites(name, each.metrics[name]) for each in rounds}, 1)
        for name in ("accuracy", "central/accuracy")
    ]
    assert [(found.round, found.of, found.without) for found in both if found] == [
        (2, "", "not compared: round 3, in which fewer than 3 sites report it"),
        (3, "", ""),
    ]
    rows = [
        RoundRow(number, RoundState.CLOSED, Source.ROUND, metrics=dict(each.metrics), contributors=len(each.clients))
        for number, each in enumerate(rounds, 1)
    ]
    curves = merged_curves("central/accuracy", rows)
    assert (curves.reporting, curves.contributors) == ((1, 1, 1), (1, 1, 1))
    assert curves.best is not None
    assert (curves.best.round, curves.best.fewer) == (3, 0)
    assert merged_curves("accuracy", rows).contributors == (3, 3, 2)


def test_the_confusion_matrix_and_plain_means_are_not_for_people() -> None:
    assert for_people({"f1": 0.1, "f1 (weighted)": 0.2}) == {"f1": 0.2}
    assert for_people({"basic/confusion_tp": 3, "f1": 0.1}) == {"f1": 0.1}
    added = {"f1": 0.1, "held_out": 0.7, "f1 (weighted)": 0.2}
    assert for_people(added) == {"f1": 0.2, "held_out": 0.7}, "which a user's aggregator has added"


def test_a_plot_is_drawn_of_whatever_a_metric_is_called(tmp_path: Path) -> None:
    names = {"$\\frac{$": 0.5, "Grüße 精度": 0.5, "x" * 300: 0.1}
    assert plot_metrics(
        Plotted("r", [result(1, names, {f"s{number}": names for number in range(40)})]), tmp_path / "m.png"
    )
    assert plot_metrics(Plotted("r", [result(1, {})]), tmp_path / "n.png")
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("data", [b"[" * 200_000, b"[]", b"5", b"{", b"{}", b'{"metadata": [], "metrics": {}}'])
def test_merged_information_that_is_none_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "info.json").write_bytes(data)
    opened = RoundView.opened(1, ("a",), opened_ms=1, deadline_ms=9)
    with pytest.raises(InvalidInfo, match=r"^info\.json: no merged client information: "):
        merged_info(replace(opened, info=ObjectRef("info.json", "")), LocalStore(tmp_path))


@pytest.mark.parametrize("ruled", [(), ("rare",)])
def test_one_site_displaces_no_metric_that_others_report(tmp_path: Path, ruled: tuple[str, ...]) -> None:
    """Also not in later rounds; what most sites report stands before all others, and the metrics of rules before it."""
    said: list[str] = []
    tables, rounds = Tables(tmp_path, said.append), list[RoundResult]()
    flood = {f"a{number:04}": 1.0 for number in range(2000)}
    for number, first in enumerate((flood, {"acc": 0.1}, {"x (sites)": 1.0}), 1):
        sites = {"a": {**first, "acc": 0.1}, "b": {"own": 1.0, "acc": 0.9}, "c": {"acc": 0.9, "rare": 1.0}}
        merged = {**first, "acc": 0.6, "acc (weighted)": 0.6, "own": 1.0, "rare": 1.0, "pooled/auc": 0.9}
        few = {**dict.fromkeys((*first, "own", "rare"), 1), "acc": 3}
        rounds.append(replace(result(number, merged, sites), few=few))
        tables.write(rounds, ruled)
    merged, of_sites = ([*rows(tmp_path / name)] for name in TABLES)
    fixed = len(FIXED_OF_SITES)
    assert [len(merged[0]), len(of_sites[0])] == [5 + MOST_COLUMNS, fixed + MOST_COLUMNS]
    common = ["acc", "acc (weighted)", "pooled/auc"]
    by_rule = ["rare", "rare (sites)"] if ruled else []
    assert merged[0][5 : 8 + len(by_rule)] == [*by_rule, *common]
    assert of_sites[0][fixed : fixed + 1 + len(ruled)] == [*ruled, "acc"]
    assert {"own", "rare"} <= set(of_sites[0])
    assert {"own", "own (sites)", "rare", "rare (sites)"} <= set(merged[0])
    assert len(said) == 2
    assert "each site has its share" in said[1]
    assert [row[fixed + len(ruled)] for row in of_sites[1:]] == ["0.1", "0.9", "0.9"] * 3


def test_sites_with_many_metrics_of_their_own_share_a_table_and_it_changes_no_more() -> None:
    columns, ranks = TableColumns(), {site: Rank(reporters=(site,)) for site in "abc"}
    for _ in range(2):
        for site in "abc":
            for number in range(2000):
                columns.take(f"{site}{number}", ranks[site])
        before = columns.names
    assert columns.names == before
    assert sorted(Counter(name[0] for name in before).values()) == [341, 341, 342]
    for number in range(2000):
        columns.take(f"of most {number}", Rank(is_common=True))
    assert columns.names == [f"of most {number}" for number in range(MOST_COLUMNS)]
    assert columns.take("loss", Rank(is_ruled=True)) == f"of most {MOST_COLUMNS - 1}"
    assert columns.names[0] == "loss"


@pytest.mark.parametrize("bad", ["a-bad", "z-bad"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_site_that_names_the_metrics_of_others_takes_none_of_their_columns(bad: str, is_first: bool) -> None:
    """The order of the names does not matter, of sites or of metrics, also once further sites want columns."""
    own = {site: [f"{site} {number}" for number in range(20)] for site in ("s1", "s2", "s3")}
    copied = sorted(name for names in own.values() for name in names)
    many = [f"x{number:04}" for number in range(1100)]
    reported = {**own, bad: [*copied, *many] if is_first else [*many, *copied]}
    columns = TableColumns()
    for late in ({}, {"s4": [f"s4 {number}" for number in range(400)], "s5": ["s5 0"]}):
        each = SimpleNamespace(few={}, reported=dict(sorted({**reported, **late}.items())))
        ranks = Ranks(each, [])
        for names in each.reported.values():
            for name in names:
                columns.take(name, ranks.of(name))
        assert {*copied, *(name for names in late.values() for name in names)} <= set(columns.names)
        assert len(columns.names) == MOST_COLUMNS


def test_a_column_is_kept_for_the_site_that_it_is_the_only_one_of() -> None:
    """The richest site's last column is another site's only one: a column that the richest alone has goes instead."""
    columns = TableColumns()
    for number in range(MOST_COLUMNS - 1):
        columns.take(f"x{number}", Rank(reporters=("bad",)))
    columns.take("own", Rank(reporters=("bad",)))
    columns.take("own", Rank(reporters=("bad", "honest")))
    assert columns.take("new", Rank(reporters=("late",))) == f"x{MOST_COLUMNS - 2}"
    assert "own" in columns.names


def test_the_metrics_of_rules_have_the_names_that_sites_use() -> None:
    rules = {"rounds": 5, "store": "s", "select": "worst/acc:max", "stop_when": ["central/pooled/auc>=0.9", "f1<1"]}
    assert ruled_columns(rules) == {"acc", "auc", "f1"}
