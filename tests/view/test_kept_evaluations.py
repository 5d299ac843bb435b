"""A result folder after `flavor recover`: what it has of evaluations stays, also where the store lacks it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from flavor.records.evaluation import AUTOMATIC
from flavor.results.evaluation_files import EvaluationFiles
from flavor.results.read_evaluated import from_folder, summaries
from flavor.store.local import LocalStore
from flavor.store.paths import run_record_path
from tests.driven import Driven
from tests.reported import written

SITES = {"c1": (10, {"accuracy": 0.5}), "c2": (30, {"accuracy": 0.9}), "c3": (20, {"accuracy": 0.7})}


class Judged(Driven):
    """A run whose only model three sites have judged, each with a report beside its metrics."""

    def __init__(self, server: str, folder: Path) -> None:
        super().__init__(server, LocalStore(folder / "store", create=True))
        record = folder / "store" / run_record_path(self.runs.run)
        record.parent.mkdir(parents=True)
        record.write_text("{}")
        self.out, self.objects = folder / "out", folder / "store"
        self.out.mkdir()
        self.open(["c1"])
        self.accept("c1", 10, {})
        self.close()
        table = {"tables": [{"title": "Overall", "labels": ["auc"], "values": [0.8]}]}
        self.judge(SITES, reports={site: written(folder / site, table, examples=of) for site, (of, _) in SITES.items()})

    def write(self) -> list[str]:
        """Write the folder as a coordinator that has just started, and return what it tells."""
        told: list[str] = []
        assert self.store is not None
        EvaluationFiles(self.out, told.append).update(self.runs, self.store, self.runs.read(), is_last=True)
        return told

    def rebuild(self) -> None:
        """Have Redis name the time at which the worker signed the evaluation, as `flavor recover` does.

        Of results that cannot be read, it then has no metrics.
        """
        (summary,) = summaries(self.runs)
        signed_ms = summary.closed_ms - 40
        view = self.runs.read_evaluation(1, AUTOMATIC)
        assert view is not None
        bare = {site: replace(each, metrics={}).to_json() for site, each in view.verdicts.items()}
        self.runs.redis.hset(self.runs.keys.evaluation_verdicts(1, AUTOMATIC), mapping=bare)
        self.runs.redis.hset(self.runs.keys.evaluation(1, AUTOMATIC), "closed_ms", signed_ms)
        self.runs.redis.lset(self.runs.keys.evaluated, 0, replace(summary, closed_ms=0).closed_at(signed_ms))

    def result(self, site: str) -> Path:
        """The result of a site in the store."""
        (path,) = self.objects.rglob(f"*result-{site}-*.json")
        return path

    def spoil(self, site: str) -> bytes:
        """Have a site change its result in the store; return what it was."""
        path = self.result(site)
        was = path.read_bytes()
        path.unlink()
        path.write_text("{}")
        return was

    def values(self) -> dict[str, str]:
        """What the folder's table has of each site."""
        with (self.out / "evaluations-sites.csv").open(newline="", encoding="utf-8") as file:
            return {each["site"]: each["accuracy"] for each in csv.DictReader(file)}


@pytest.fixture
def run(server: str, tmp_path: Path) -> Judged:
    return Judged(server, tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_byte_changes_where_a_site_has_changed_its_result_since(run: Judged) -> None:
    assert run.write() == []
    before = contents(run.out)
    run.spoil("c2")
    run.rebuild()
    assert run.write() == []
    assert contents(run.out) == before
    assert len(before) == 5, "two tables; the merged information, the sites' values, their reports"


def test_what_the_store_has_again_is_added_to_what_the_folder_has(run: Judged) -> None:
    c1, c2 = run.result("c1"), run.result("c2")
    whole = run.spoil("c2")
    (told,) = run.write()
    assert "it lacks what c2 has measured" in told
    assert list(from_folder(run.out).unread) == ["c2"]
    c2.write_bytes(whole)
    c1.unlink()
    run.rebuild()
    assert run.write() == []
    assert run.values() == {"c1": "0.5", "c2": "0.9", "c3": "0.7"}
    assert from_folder(run.out).unread == {}
    before = contents(run.out)
    c2.unlink()
    assert run.write() == []
    assert contents(run.out) == before


def test_reports_of_more_sites_stay(run: Judged) -> None:
    run.spoil("c1")
    run.write()
    reports = next(path for path in run.out.rglob("*-reports.json"))
    before = reports.read_bytes()
    run.spoil("c2")
    run.rebuild()
    (told,) = run.write()
    assert "it lacks what c1 has measured" in told
    assert run.values() == {"c1": "0.5", "c2": "0.9", "c3": "0.7"}, "those of c1 are the first ones, which Redis had"
    assert list(from_folder(run.out).unread) == ["c1"]
    assert reports.read_bytes() == before


def test_an_evaluation_that_was_opened_anew_takes_the_place_of_the_lost_one(run: Judged) -> None:
    run.write()
    keys = run.runs.keys
    run.runs.redis.delete(keys.evaluated, keys.evaluation(1, AUTOMATIC), keys.evaluation_verdicts(1, AUTOMATIC))
    run.judge({"c1": (10, {"accuracy": 0.4})}, {"c2": "it is gone"})
    assert run.write() == []
    assert run.values() == {"c1": "0.4"}
    assert from_folder(run.out).missing == {"c2": "it is gone"}
