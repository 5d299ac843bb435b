"""What the store has of an evaluation, as a page reads it: who has signed it, what sites report, and their images."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from flavor.errors import DigestMismatch, RunError, StoreUnavailable
from flavor.records.evaluation import AUTOMATIC, CENTRAL, EvaluationSummary
from flavor.store.local import LocalStore
from flavor.store.paths import taken_image, taken_report
from flavor.view import reports
from flavor.view.history import History
from flavor.view.reports import EvaluationReports
from tests.driven import Driven
from tests.infos import png
from tests.reported import results_of_a_site, written

SITES = ("c1", "c2", "c3")


@pytest.fixture
def run(server: str, tmp_path: Path) -> Driven:
    """c1 and c2 report, c3 does not, and c4 is refused."""
    run = Driven(server, LocalStore(tmp_path / "store", create=True))
    run.open(["c1"])
    run.accept("c1", 10, {})
    run.close()
    of = {
        site: written(tmp_path / site, results_of_a_site(0.1 * at), {"slice.png": png(5 + at, 4)})
        for at, site in enumerate(SITES[:2])
    }
    run.written = of  # type: ignore[attr-defined]
    run.judge({site: (10, {"accuracy": 0.5}) for site in SITES}, {"c4": "its report is wrong"}, reports=of)
    return run


def summary(run: Driven) -> EvaluationSummary:
    return EvaluationSummary.from_json(run.runs.evaluated()[0])


def spoil(run: Driven, path: str) -> None:
    assert run.store is not None
    file = Path(run.store.url.removeprefix("file://")) / path
    file.chmod(0o600)
    file.write_bytes(b"x" * file.stat().st_size)


def digest_of_image(run: Driven, site: str) -> str:
    return str(run.written[site].report.images[0].digest)  # type: ignore[attr-defined]


def test_reports_are_merged_where_they_agree_and_by_site(run: Driven) -> None:
    history = History(run.runs, run.store)
    found = history.reports(1, AUTOMATIC)
    assert (found["sites"], found["missing"], found["is_complete"], found["silent"]) == (["c1", "c2"], {}, True, "")
    assert (found["read"], found["of"]) == (3, 3)
    assert (found["signed_by"], found["unsigned"]) == (run.key.public.fingerprint, "")
    merged = found["merged"]
    assert merged["tables"][0]["values"] == [pytest.approx(0.75), pytest.approx(0.85)]
    assert merged["heatmaps"][0]["values"] == [[210, 10], [24, 120]]
    assert [(each["kind"], each["sites"]) for each in merged["apart"]] == [
        (kind, ["c1", "c2"]) for kind in ("heatmaps", "plots", "images")
    ]
    own = history.report_of_site(1, AUTOMATIC, "c2")
    assert (own["site"], own["results"]["tables"][0]["values"]) == ("c2", [pytest.approx(0.8), pytest.approx(0.9)])
    assert history.report_image(1, AUTOMATIC, "c2", digest_of_image(run, "c2")) == (png(6, 4), "image/png")


def test_what_was_not_accepted_or_is_not_there_is_not_shown(run: Driven) -> None:
    history = History(run.runs, run.store)
    for site, why in (("c4", "has no result"), ("nobody", "has no result"), ("c3", "has written no result.json")):
        with pytest.raises(RunError, match=why):
            history.report_of_site(1, AUTOMATIC, site)
        with pytest.raises(RunError, match=why):
            history.report_image(1, AUTOMATIC, site, digest_of_image(run, "c1"))
    with pytest.raises(RunError, match="has no such image"):
        history.report_image(1, AUTOMATIC, "c1", digest_of_image(run, "c2"))
    with pytest.raises(RunError, match="has no evaluation 5 of the model of round 1: there are 0"):
        history.reports(1, 5)


def test_bytes_that_were_changed_in_the_store_are_not_shown(run: Driven) -> None:
    history = History(run.runs, run.store)
    image = digest_of_image(run, "c1")
    spoil(run, taken_image(run.runs.run, 1, AUTOMATIC, "c1", image, ".png"))
    with pytest.raises(DigestMismatch):
        history.report_image(1, AUTOMATIC, "c1", image)
    of_c1 = run.written["c1"]  # type: ignore[attr-defined]
    spoil(run, taken_report(run.runs.run, 1, AUTOMATIC, "c1", of_c1.digest))
    view = run.runs.read_evaluation(1, AUTOMATIC)
    assert view is not None
    assert view.manifest is not None
    spoil(run, view.manifest.path)
    found = EvaluationReports(run.runs, run.store).read(summary(run))
    assert (found["sites"], list(found["missing"])) == (["c2"], ["c1"])
    assert found["signed_by"] == ""
    assert "changed in the store" in found["unsigned"]
    assert found["is_complete"]


def test_a_slow_store_is_read_a_part_at_a_time(run: Driven) -> None:
    ticks = count()
    slow = EvaluationReports(run.runs, run.store, clock=lambda: 1.5 * next(ticks))
    found = [slow.read(summary(run)) for _ in range(4)]
    assert [each["read"] for each in found] == [1, 2, 3, 3]
    assert [each["is_complete"] for each in found] == [False, False, True, True]
    assert [each["merged"] is None for each in found] == [True, True, False, False]


class Away:
    """A store that fails while it `is_away`, and counts what is read."""

    def __init__(self, store: LocalStore) -> None:
        self._store, self.is_away, self.reads = store, False, 0

    def __getattr__(self, name: str) -> Any:
        self.reads += 1
        if self.is_away and name.startswith("read"):
            raise StoreUnavailable("the bucket does not answer")
        return getattr(self._store, name)


def test_a_store_that_is_away_is_told_and_all_is_read_once(run: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.store is not None
    store = Away(run.store)
    found = EvaluationReports(run.runs, store)  # type: ignore[arg-type]
    store.is_away = True
    away = found.read(summary(run))
    assert (away["silent"], away["is_complete"], away["merged"]) == ("the bucket does not answer", False, None)
    store.is_away = False
    assert found.read(summary(run))["is_complete"]
    reads = store.reads
    store.is_away = True
    monkeypatch.setattr(run.runs, "read_evaluation", None)
    again = found.read(summary(run))
    assert (again["is_complete"], again["sites"], store.reads) == (True, ["c1", "c2"], reads)
    without = History(Driven(run.url, None).runs, None)
    with pytest.raises(RunError):
        without.reports(1, AUTOMATIC)


def test_without_a_store_the_page_says_so(run: Driven) -> None:
    found = History(run.runs, None).reports(1, AUTOMATIC)
    assert (found["silent"], found["is_complete"]) == ("the page has no access to the run's store", False)
    with pytest.raises(RunError, match="--store"):
        History(run.runs, None).report_of_site(1, AUTOMATIC, "c1")


def test_the_stores_url_is_told_unless_a_package_made_it(run: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.store is not None
    assert History(run.runs, run.store).reports(1, AUTOMATIC)["store"] == run.store.url
    monkeypatch.setattr(run.store, "url", "ipfs://user:secret@host/fl")
    assert History(run.runs, run.store).reports(1, AUTOMATIC)["store"] == ""
    assert History(run.runs, None).reports(1, AUTOMATIC)["store"] == ""


def test_more_than_can_be_merged_is_shown_by_site(run: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "_MOST_VALUES", 100)
    found = History(run.runs, run.store).reports(1, AUTOMATIC)
    assert (found["merged"], found["sites"]) == (None, ["c1", "c2"])
    assert found["unmerged"] == "the sites report more than 100 values: choose a site"


def test_the_operators_own_data_has_its_record_alone(run: Driven) -> None:
    run.open_evaluation([], number=CENTRAL)
    run.judge_centrally(50, {"central/accuracy": 0.6}, 1)
    found = History(run.runs, run.store).reports(1, CENTRAL)
    assert (found["signed_by"], found["sites"], found["of"], found["is_complete"]) == (
        run.key.public.fingerprint,
        [],
        0,
        True,
    )
