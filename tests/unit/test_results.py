"""What people read of rounds: tables, the best round, the plot."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from flavor.results.plot import plot_metrics
from flavor.results.rounds import RoundResult, SiteResult, best_of, for_people, scalars
from flavor.results.tables import Tables


def result(number: int, metrics: dict[str, float], sites: dict[str, dict[str, float]] | None = None) -> RoundResult:
    made = [SiteResult(site, 10, 100, given) for site, given in (sites or {}).items()]
    return RoundResult(number, 1.0, list(sites or {}), 10, 100, metrics, made)


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_metric_never_repeats_a_column_and_never_is_a_formula(tmp_path: Path) -> None:
    names = ["round", "round (metric)", "=cmd()", "Grüße", "-x"]
    rounds = [result(1, dict.fromkeys(names, 0.5), {"a": dict.fromkeys(["site", "=cmd()"], 0.5)})]
    Tables(tmp_path).write(rounds, 1)
    heads = rows(tmp_path / "metrics.csv")[0]
    assert heads[5:] == ["round (metric)", "round (metric) (metric)", "'=cmd()", "Grüße", "'-x"]
    assert rows(tmp_path / "metrics-sites.csv")[0] == ["round", "site", "examples", "bytes", "site (metric)", "'=cmd()"]
    assert len(set(heads)) == len(heads)


def test_a_value_that_is_missing_leaves_its_cell_empty(tmp_path: Path) -> None:
    given = scalars({"auc": math.nan, "loss": None, "f1": 0.5, "ok": True, "matrix": [1, 2], "far": math.inf})
    assert given == {"f1": 0.5}
    rounds = [result(1, {"auc": 0.5, "f1": 0.5}, {"a": given, "b": {"auc": 0.25}})]
    Tables(tmp_path).write(rounds, 1)
    assert rows(tmp_path / "metrics-sites.csv")[1:] == [
        ["1", "a", "10", "100", "0.5", ""],
        ["1", "b", "10", "100", "", "0.25"],
    ]


def test_tables_grow_and_are_written_anew_when_a_metric_comes_in(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    rounds = [result(1, {"f1": 0.5})]
    tables.write(rounds, 1)
    rounds.append(result(2, {"f1": 0.6}))
    tables.write(rounds, 1)
    assert [row[0] for row in rows(tmp_path / "metrics.csv")] == ["round", "1", "2"]
    rounds.append(result(3, {"auc": 0.7}))
    tables.write(rounds, 1)
    assert [row[5:] for row in rows(tmp_path / "metrics.csv")] == [["f1", "auc"], ["0.5", ""], ["0.6", ""], ["", "0.7"]]


@pytest.mark.parametrize(
    ("name", "best"), [("val_auc", (2, 0.9)), ("train/loss", (1, 0.2)), ("accuracy loss", None), ("epochs", None)]
)
def test_the_best_round_is_known_by_a_metrics_name(name: str, best: tuple[int, float] | None) -> None:
    assert best_of(name, {1: 0.2, 2: 0.9, 3: 0.9}) == best
    assert best_of(name, {}) is None


def test_the_confusion_matrix_and_plain_means_are_not_for_people() -> None:
    assert for_people({"f1": 0.1, "f1 (weighted)": 0.2}) == {"f1": 0.2}
    assert for_people({"basic/confusion_tp": 3, "f1": 0.1}) == {"f1": 0.1}


def test_a_plot_is_drawn_of_whatever_a_metric_is_called(tmp_path: Path) -> None:
    names = {"$\\frac{$": 0.5, "Grüße 精度": 0.5, "x" * 300: 0.1}
    assert plot_metrics("r", [result(1, names, {f"s{number}": names for number in range(40)})], tmp_path / "m.png")
    assert plot_metrics("r", [result(1, {})], tmp_path / "n.png")
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
