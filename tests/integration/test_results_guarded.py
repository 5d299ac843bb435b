"""Results of a run in which a site has handed in, or left in the store, what no table takes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.ledger.recover import recover
from flavor.results.folder import ResultFolder
from flavor.store.paths import clients_folder
from tests.unit.forged_run import ForgedRun, overwrite


def ended(made: ForgedRun, url: str, out: Path) -> tuple[list[str], list[str]]:
    """The results of a finished run, looked at when it is over: what was said, and the first columns of the table."""
    redis = connect(url)
    redis.flushall()
    runs, said = RunStore(redis, made.name, url), list[str]()
    recover(made.archive, runs, url=url, tell=print)
    folder = ResultFolder(out, said.append, is_own=True)
    results = folder.end(runs, made.store)
    assert json.loads((out / "summary.json").read_text())["state"] == results.state == "finished"
    assert list(out.glob("global_model.*")) or any("final global model" in line for line in said)
    with (out / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return said, [row[0] for row in csv.reader(file)]


def run_of(tmp_path: Path, **changes: object) -> ForgedRun:
    metrics = {"a": {"acc": 0.5, **changes.pop("named", {})}, "b": {"acc": 0.75}}  # type: ignore[dict-item]
    made = ForgedRun(tmp_path / "s", metrics=metrics, **changes)  # type: ignore[arg-type]
    made.config["checkpoint"] = "opaque"
    return made.complete()


def test_a_name_that_an_earlier_release_took_costs_that_sites_cells(tmp_path: Path, url: str) -> None:
    said, rounds = ended(run_of(tmp_path, named={"\ud800x": 1.0}), url, tmp_path / "out")
    assert rounds == ["round", "1", "2", "3"]
    (line,) = [line for line in said if "what a reported" in line]
    assert line.startswith("3 rounds, 1 to 3: what a reported cannot be used, so ")
    assert "has characters that cannot be seen" in line
    table = (tmp_path / "out/metrics-sites.csv").read_text()
    assert "0.75" in table
    assert "0.5" not in table


def test_a_round_whose_line_cannot_be_made_stops_no_other(tmp_path: Path, url: str) -> None:
    said, rounds = ended(run_of(tmp_path, merged=b'{"metrics": []}'), url, tmp_path / "out")
    assert rounds == ["round", "1", "2", "3"]
    (line,) = [line for line in said if line.startswith("round 2: ")]
    assert "the merged information in the store is not what was recorded, so" in line


def test_information_that_a_site_changed_is_told_with_its_name(tmp_path: Path, url: str) -> None:
    made = run_of(tmp_path)
    for path in (made.folder / clients_folder("r") / "a").glob("*-info-*"):
        overwrite(path, b"{}")
    next((made.folder / clients_folder("r") / "b").glob("0002-info-*")).unlink()
    said, rounds = ended(made, url, tmp_path / "out")
    assert rounds == ["round", "1", "2", "3"]
    assert any(
        line.startswith("3 rounds, 1 to 3: what a reported was changed in the store after it was accepted (its SHA-256")
        for line in said
    ), said
    assert any(line.startswith("round 2: what single sites reported is no longer in the store") for line in said), said


def test_what_of_all_sites_of_a_round_is_gone_is_one_round(tmp_path: Path, url: str) -> None:
    """It was counted once for each site: 57 rounds, 1 to 19."""
    made = run_of(tmp_path)
    for path in (made.folder / clients_folder("r")).glob("*/*-info-*"):
        path.unlink()
    said, _ = ended(made, url, tmp_path / "out")
    assert any(line.startswith("3 rounds, 1 to 3: what single sites reported is no longer") for line in said), said


def test_a_plot_that_cannot_be_drawn_is_a_line(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/metrics.png").mkdir()
    said, rounds = ended(run_of(tmp_path), url, tmp_path / "out")
    assert rounds == ["round", "1", "2", "3"]
    assert any("metrics.png cannot be drawn: IsADirectoryError" in line for line in said), said
