"""Hashes of old evaluations go from Redis, and what they had is read from the signed records in the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flavor.coordinator.old_evaluations import KEPT_ASKED, OldEvaluations, forget_asked
from flavor.errors import LocalFault, RunError
from flavor.ledger.archive import Archive
from flavor.ledger.manifest import RunRecord
from flavor.records.evaluation import AUTOMATIC, CENTRAL
from flavor.records.subject import Subject, SubjectKind
from flavor.results.evaluated import Evaluated
from flavor.results.metric_of_sites import metrics_of
from flavor.results.read_evaluated import chosen_among, summaries, whole_of
from flavor.store.local import LocalStore
from flavor.trackers.source import EvaluationSource
from flavor.view.history import History
from tests.driven import TOKEN, Driven
from tests.faults.servers import moved_away

NAME = "central/accuracy"


@pytest.fixture
def driven(server: str, tmp_path: Path) -> Driven:
    found = Driven(server, LocalStore(tmp_path / "store", create=True), select="accuracy:max")
    view = found.runs.read()
    Archive(found.store, view.run).begin(RunRecord(run=view.run, run_id=view.run_id, rounds=1000, config=view.config))
    return found


def judged(driven: Driven, accuracy: float, *, sites: int = 2, number: int = AUTOMATIC) -> None:
    """The model of the newest round is judged by these sites, and one more has failed."""
    each = {f"s{site}": (10 + site, {"accuracy": accuracy + site / 1000, "other": 1.0}) for site in range(sites)}
    driven.judge(each, {"gone": "it handed in no result in time"}, number=number)


def closed(driven: Driven) -> None:
    driven.open(["s0"])
    driven.accept("s0")
    driven.close()


def there(driven: Driven) -> list[tuple[int, int]]:
    """The evaluations whose hashes, or verdicts, Redis has."""
    keys = driven.runs.redis.keys(f"{driven.runs.keys.prefix}round:*:evaluation:*")
    return sorted({tuple(map(int, key.split("}:")[1].split(":")[1:4:2])) for key in keys})  # type: ignore[misc]


def whole(driven: Driven, round_: int) -> Evaluated:
    return whole_of(driven.runs, chosen_among(driven.runs.run, summaries(driven.runs), round_), lambda: driven.store)


def test_redis_keeps_what_is_needed(driven: Driven) -> None:
    """The best model, the newest of each kind, and what is not over; also where another coordinator goes on."""
    for round_ in range(1, 13):
        closed(driven)
        judged(driven, 0.9 if round_ == 3 else 0.5)
        if round_ in (2, 5, 7):
            driven.open_evaluation([], number=CENTRAL)
        if round_ in (2, 5):
            driven.judge_centrally(100, {NAME: 0.5}, round_)
    driven.runs.give_up_evaluation(TOKEN, driven.runs.read_evaluation(7, CENTRAL), "no aggregator")
    old = OldEvaluations(driven.runs, driven.store)
    old.forget(8)
    kept = [(3, AUTOMATIC), (5, CENTRAL), *((round_, AUTOMATIC) for round_ in range(9, 13))]
    assert there(driven) == kept
    before = driven.runs.redis.keys("*")
    old.forget(8)
    OldEvaluations(driven.runs, driven.store).forget(8)
    assert sorted(driven.runs.redis.keys("*")) == sorted(before)
    closed(driven)
    judged(driven, 0.95)
    old.forget(8)
    assert there(driven) == [*kept[1:], (13, AUTOMATIC)], "another model is the best"


def test_an_evaluation_that_is_not_over_or_has_no_record_in_the_store_stays(driven: Driven) -> None:
    for round_ in range(1, 6):
        closed(driven)
        driven.open_evaluation(["s0"]) if round_ == 2 else judged(driven, 0.9 - round_ / 10)
    lost = driven.runs.read_evaluation(3, AUTOMATIC).manifest
    driven.store.delete([lost.path])
    old = OldEvaluations(driven.runs, driven.store)
    old.forget(4)
    assert there(driven) == [(1, AUTOMATIC), (2, AUTOMATIC), (3, AUTOMATIC), (5, AUTOMATIC)]
    driven.runs.give_up_evaluation(TOKEN, driven.runs.read_evaluation(2, AUTOMATIC), "its sites are gone")
    old.forget(4)
    assert there(driven) == [(1, AUTOMATIC), (3, AUTOMATIC), (5, AUTOMATIC)]


def test_what_readers_show_of_an_old_evaluation_is_what_redis_had(driven: Driven) -> None:
    for accuracy in (0.5, 0.9):
        closed(driven)
        judged(driven, accuracy)
        driven.open_evaluation([], number=CENTRAL)
        driven.judge_centrally(100, {NAME: accuracy}, driven.round)
    view, store, runs = driven.runs.read(), driven.store, driven.runs

    def shown() -> tuple[object, ...]:
        history, source = History(runs, store), EvaluationSource()
        assert source.read(runs, store, view)
        page = history.evaluation(1, AUTOMATIC)
        rows = history.evaluations()["rows"]
        return whole(driven, 1), page, [{**row, "merged": None} for row in rows], source.found, history.reports(1, 0)

    before = shown()
    OldEvaluations(runs, store).forget(1)
    assert there(driven) == [(2, AUTOMATIC), (2, CENTRAL)]
    assert shown() == before
    part = whole_of(runs, chosen_among(runs.run, summaries(runs), 1), lambda: store, most=1)
    (accuracy,) = (each for each in metrics_of(part) if each.name == "accuracy")
    assert (accuracy.lowest, accuracy.highest, accuracy.worst, accuracy.unknown) == (0.5, 0.501, None, 1)
    with pytest.raises(RunError, match="and its record cannot be read from the run's store"):
        whole_of(runs, chosen_among(runs.run, summaries(runs), 1), lambda: None)
    back = moved_away(Path(store.url.removeprefix("file://")), leave=True)
    with pytest.raises(LocalFault, match="is the share mounted"):
        whole(driven, 1)
    back()
    path = next(path for path in store.list(f"runs/{runs.run}/evaluations/") if "0001-0-manifest" in path)
    store.delete([path])
    with pytest.raises(RunError, match="and its record cannot be read from the run's store"):
        whole(driven, 1)


@pytest.mark.parametrize("is_old", [False, True], ids=["", "opened by an earlier release"])
def test_of_what_somebody_asks_for_the_newest_stay_and_no_number_comes_twice(driven: Driven, is_old: bool) -> None:
    closed(driven)
    judged(driven, 0.5, number=1)
    model = replace(driven.runs.read().global_model, state=None)
    for _ in range(KEPT_ASKED + 5):
        number = driven.runs.next_number(0)
        subject = Subject(SubjectKind.UPDATE, 1, "a")
        driven.runs.open_evaluation(
            TOKEN, 0, number, expected=["s0"], skipped=[], timeout_s=9, reason="", model=model, subject=subject
        )
        view = driven.runs.read_evaluation(0, number)
        driven.runs.give_up_evaluation(TOKEN, view, "its site is gone")
    newest = KEPT_ASKED + 5
    if is_old:
        driven.runs.redis.delete(driven.runs.keys.asked)
        assert driven.runs.next_number(0) == newest + 1
        assert driven.runs.next_number(1) == 2
        driven.runs.note_asked({(1, 1): 1, **{(0, number): number for number in range(1, newest + 1)}})
    forget_asked(driven.runs, driven.store, but=[(0, 3)])
    of_no_round = [(0, 3), *((0, number) for number in range(6, newest + 1))]
    assert there(driven) == [*of_no_round, (1, 1)]
    assert list(driven.runs.asked()) == [(1, 1), *of_no_round]
    driven.runs.redis.config_resetstat()
    assert driven.runs.next_number(0) == newest + 1
    calls = {name: each["calls"] for name, each in driven.runs.redis.info("commandstats").items()}
    assert (calls["cmdstat_hget"], calls["cmdstat_exists"]) == (1, 1), "however many there were before"
    assert driven.runs.next_number(1) == 2


def test_those_that_an_earlier_release_has_asked_for_are_found_by_their_results(driven: Driven) -> None:
    closed(driven)
    for number in range(1, KEPT_ASKED + 4):
        judged(driven, 0.5, number=number, sites=1)
    driven.runs.redis.delete(driven.runs.keys.asked)
    forget_asked(driven.runs, driven.store)
    assert there(driven) == [(1, number) for number in range(4, KEPT_ASKED + 4)]
    assert driven.runs.next_number(1) == KEPT_ASKED + 4
    assert whole(driven, 1).number == KEPT_ASKED + 3
