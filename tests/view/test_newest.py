"""The numbers that are shown of a run: the same wherever they are read, and however long the run is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from flavor.cli.status_frame import Screen, found_of, run_frame
from flavor.cli.status_lines import columns_of, summary_of
from flavor.cli.status_watch import _ChosenMetric
from flavor.protocol import SPEAKS
from flavor.records.moved import Moved
from flavor.records.pulse import Doing, Pulse
from flavor.records.states import RunState
from flavor.results.best import BestRound
from flavor.store.local import LocalStore
from flavor.view.board import Board
from flavor.view.described import described
from flavor.view.document import left_s_of, row_of
from flavor.view.followed import Followed
from flavor.view.history import History
from tests.driven import Driven


@pytest.fixture
def driven(url: str, tmp_path: Path) -> Driven:
    return Driven(url, LocalStore(tmp_path / "store", create=True))


def followed(driven: Driven) -> Followed:
    """The run as a board follows it, with all that it reads aside."""
    made = Followed(driven.runs.redis, driven.runs.run, driven.url, store=None)
    made.read()
    made.look_aside()
    return made


ALONE = {"sites": 1, "contributors": 1, "usual": 1, "fewer": 0, "newest_fewer": 0, "compared": 130, "others": 0}


def test_a_round_without_a_site_s_value_is_not_compared_and_says_so(url: str) -> None:
    """A site's NaN made the mean of the two others the best."""
    driven = Driven(url)
    for number, auc in enumerate((0.5, 0.6, 0.9, 0.7), 1):
        driven.open(["a", "b"])
        driven.accept("a", 10, {"auc": auc})
        driven.accept("b", 10, {"auc": None if number == 3 else auc})
        driven.close()
        if number == 3:
            found = described(driven.runs, url)
            (line,) = (each.text for each in summary_of(found) if each.text.startswith("round 3"))
            assert line.startswith(
                "round 3: auc 0.9 of 1 of 2 sites (best of 2 compared rounds: 0.6, reported in round 2,"
            )
            assert line.endswith("; not compared: round 3, in which fewer than 2 sites report it)")
            assert row_of(followed(driven).read().document)["value_of"] == [1, 2]
    found = described(driven.runs, url)
    assert (found["best"]["round"], found["best"]["sites"], found["best"]["newest_fewer"]) == (4, 2, 3)
    assert followed(driven).read().document["best"] == found["best"]
    curves = History(driven.runs, None).curves("auc", ())
    assert (curves.reporting, curves.contributors) == ((2, 2, 1, 2), (2, 2, 2, 2))
    assert curves.best is not None
    assert curves.best.round == 4
    watched = _ChosenMetric(cast(Board, SimpleNamespace(history=lambda run: History(driven.runs, None))), "r", "auc")
    assert watched.of({**found, "metric": "loss", "best": None})["best"] == found["best"]


def test_rounds_of_other_sites_are_not_compared_wherever_they_are_read(url: str, tmp_path: Path) -> None:
    """Also a pruned round, and evaluations. The sites of two rounds are equally many."""
    driven = Driven(url, LocalStore(tmp_path / "store", create=True))
    values = {"a": 0.9, "b": 0.5, "c": 0.3}
    for number, sites in enumerate(("bc", "ab", "bc"), 1):
        driven.open(list(sites))
        for site in sites:
            driven.accept(site, 10, {"auc": values[site] + number / 100})
        driven.close()
        driven.judge({site: (10, {"auc": values[site] + number / 100}) for site in sites})
    driven.runs.redis.delete(driven.runs.keys.round(1), driven.runs.keys.round(2))
    found = described(driven.runs, url)
    assert (found["best"]["round"], found["best"]["others"], found["best"]["compared"]) == (3, 1, 2)
    (line,) = (each.text for each in summary_of(found) if each.text.startswith("round 3"))
    assert line.endswith("; not compared: round 2, in which other sites report it)")
    assert followed(driven).read().document["best"] == found["best"]
    judged = History(driven.runs, None).judged_curves("auc").best
    assert judged is not None
    assert (judged.round, judged.without) == (3, "not compared: round 2, in which other sites report it")


def test_of_a_run_whose_models_are_judged_each_line_says_which_mean_it_is_of(url: str) -> None:
    driven = Driven(url, select="auc:max")
    driven.open(["a", "b"])
    for client, examples, auc in (("a", 10, 0.5), ("b", 30, 0.9)):
        driven.accept(client, examples, {"auc": auc})
    driven.close()
    lines = [each.text for each in summary_of(described(driven.runs, url))]
    assert any(line.startswith("round 1: auc 0.8 ") for line in lines), lines
    driven.judge({"a": (10, {"auc": 0.5}), "b": (30, {"auc": 0.9})})
    lines = [each.text for each in summary_of(described(driven.runs, url))]
    assert any(line.startswith("round 1, weighted means: auc 0.8 ") for line in lines), lines
    assert any(line.startswith("judged: the model of round 1 by 2 sites, plain means: auc 0.7 (") for line in lines)
    assert any(
        line.startswith("best judged model: that of round 1, auc 0.7 (plain mean) by 2 sites ") for line in lines
    )


def test_one_round_with_the_most_sites_is_best_and_is_said_to_be_the_only_one_compared(url: str) -> None:
    driven = Driven(url)
    for number, auc in enumerate((0.5, 0.9), 1):
        driven.open(["a", "b"])
        driven.accept("a", 10, {"auc": auc})
        driven.accept("b", 10, {"auc": None if number == 2 else auc})
        driven.close()
    (line,) = (each.text for each in summary_of(described(driven.runs, url)) if each.text.startswith("round 2"))
    assert line.startswith("round 2: auc 0.9 of 1 of 2 sites (best: 0.5, reported in round 1,")
    assert line.endswith("fewer than 2 sites report it, so that only round 1 is compared)")


def test_the_best_round_is_the_best_of_all_rounds(url: str) -> None:
    driven = Driven(url)
    for number in range(1, 131):
        driven.open(["a"])
        driven.accept("a", 10, {"auc": 0.9 if number == 3 else 0.5 + number / 1000})
        driven.close()
    best = {"metric": "auc", "round": 3, "value": 0.9, "rounds": 130, **ALONE}
    found = described(driven.runs, url)
    assert found["best"] == best
    assert followed(driven).read().document["best"] == best
    assert History(driven.runs, None).curves("auc", ()).best == BestRound(3, 0.9, **ALONE)
    assert any("(best: 0.9, reported in round 3" in line.text for line in summary_of(found))
    driven.runs.redis.lpop(driven.runs.keys.closed, 20)
    driven.runs.redis.delete(*(driven.runs.keys.round(number) for number in range(1, 21)))
    found = described(driven.runs, url)
    assert (found["best"]["round"], found["best"]["rounds"]) == (130, 110), "no store has the first rounds"
    assert any("(best of the 110 rounds that can be read: 0.63" in line.text for line in summary_of(found))
    watched = _ChosenMetric(cast(Board, SimpleNamespace(history=lambda run: History(driven.runs, None))), "r", "auc")
    shown = {**found, "metric": "loss", "best": None}
    assert watched.of(shown)["best"] == found["best"], "the metric that is watched is of the same rounds"
    driven.runs.redis.lpop(driven.runs.keys.closed, 100)
    driven.runs.redis.delete(*(driven.runs.keys.round(number) for number in range(21, 121)))
    another = {**shown, "run_id": "that of another run of the name"}
    assert watched.of(another)["best"]["rounds"] == 10


@pytest.mark.parametrize(("name", "others"), [("loss", 30), ("n" * 70, 0)], ids=["many metrics", "a long name"])
def test_a_site_that_reports_much_has_its_value_of_the_metric_that_is_shown(
    url: str, tmp_path: Path, name: str, others: int
) -> None:
    """Redis keeps the first of its metrics, and it was shown as a site that reports nothing."""
    driven = Driven(url, LocalStore(tmp_path / "store", create=True))
    driven.runs.redis.sadd(driven.runs.keys.members, "a", "b")
    for _ in range(2):
        driven.open(["a", "b"])
        driven.accept("a", 10, {f"m{number:02d}": 1.0 for number in range(others)} | {name: 0.25})
        driven.accept("b", 10, {name: 0.75})
        driven.close()
    made = Followed(driven.runs.redis, driven.runs.run, driven.url, store=driven.store.url)
    made.read()
    made.look_aside()
    found = made.read().document
    assert found["metric"] == name
    assert [found["clients"][site]["metrics"][name] for site in ("a", "b")] == [0.25, 0.75]


def says(driven: Driven, client: str, state: str, *, moved: Moved | None = None) -> None:
    """The client's edge is there, or says goodbye."""
    keys, redis = driven.runs.keys.client(client), driven.runs.redis
    redis.hset(keys.hash, mapping={"state": state, **SPEAKS, "round": "0"})
    if moved is not None:
        redis.hset(keys.hash, mapping=Pulse(Doing.TRAINING, 1, 1, moved=moved).to_hash())
    if state in ("ready", "joined"):
        redis.set(keys.lease, "x", px=30_000)
    else:
        redis.delete(keys.lease)
    redis.sadd(driven.runs.keys.members, client)


def test_the_time_left_is_that_of_the_rounds_to_go(url: str) -> None:
    driven = Driven(url, rounds=10, min_clients=2)
    for client in "ab":
        says(driven, client, "ready")
    for _ in range(3):
        driven.open(["a", "b"])
        driven.accept("a")
        driven.accept("b")
        driven.runs.redis.hincrby(driven.runs.keys.round(driven.round), "opened_ms", -60_000)
        driven.close()
    seen = followed(driven)
    between = seen.read().document
    closed_ms = between["closed_ms"]
    for after_s in (0, 60, 119):
        assert left_s_of(between, closed_ms + 1000 * after_s) == pytest.approx(7 * 60, abs=1)
    says(driven, "b", "joined")
    held = seen.read(anew=True).document
    assert held["held"], held["waits_for"]
    assert (held["ends_ms"], left_s_of(held, closed_ms)) == (None, None), "nobody knows when b is ready"
    says(driven, "b", "ready")
    driven.open(["a", "b"])
    document = seen.read(anew=True).document
    opened_ms = document["opened_ms"]
    assert left_s_of(document, opened_ms) == pytest.approx(7 * 60, abs=1)
    assert left_s_of(document, opened_ms + 30_000) == pytest.approx(6.5 * 60, abs=1)
    for after_s in (60, 119):
        left_s = left_s_of(document, opened_ms + after_s * 1000)
        assert left_s == pytest.approx(6 * 60, abs=1), "six rounds have not begun, as long as the fourth is only late"
    for after_s in (122, 6000):
        assert left_s_of(document, opened_ms + after_s * 1000) is None, "nothing is known of a round that may hang"
    driven.runs.redis.delete(driven.runs.keys.coordinator)
    gone = seen.read(anew=True).document
    assert (gone["ends_ms"], left_s_of(gone, opened_ms)) == (None, None), "nobody opens the next one"


def test_a_last_round_that_is_late_has_no_time_left(url: str) -> None:
    driven = Driven(url, rounds=2)
    says(driven, "a", "ready")
    driven.open(["a"])
    driven.accept("a")
    driven.runs.redis.hincrby(driven.runs.keys.round(1), "opened_ms", -60_000)
    driven.close()
    driven.open(["a"])
    document = followed(driven).read().document
    for after_s, shown in ((0, "about 1 min left"), (59.9, ""), (90, "")):
        now_ms = document["opened_ms"] + int(after_s * 1000)
        found = found_of({**document, "left_s": left_s_of(document, now_ms)}, now_ms)
        told = "\n".join(line.plain for line in run_frame(found, [], Screen(200, 40, now_ms)))
        assert shown in told, told
        assert bool(shown) == ("left" in told), told


def test_a_site_that_is_refused_keeps_its_examples_and_has_no_time_for_the_round(url: str) -> None:
    driven = Driven(url)
    seen = followed(driven)
    for client in "ab":
        says(driven, client, "ready")
    for round_ in range(1, 5):
        driven.open(["a", "b"])
        driven.accept("a", 10)
        if round_ == 1:
            driven.accept("b", 30)
        else:
            driven.refuse("b")
        rows = seen.read(anew=True).document["clients"]
        assert rows["a"]["last_s"] is not None
        assert (rows["b"]["last_s"] is None) == (round_ > 1), "its time would be that of an earlier round"
        assert rows["b"]["median_s"] is not None
        driven.close()
        for shown in (described(driven.runs, url), followed(driven).read().document):
            assert [client["samples"] for client in shown["clients"].values()] == [10, 30], round_


def test_what_stays_when_the_edges_have_left(url: str) -> None:
    driven = Driven(url, rounds=1)
    says(driven, "a", "ready", moved=Moved(1200, 3400, 5))
    driven.open(["a"])
    driven.accept("a")
    driven.close()
    driven.runs.end(RunState.FINISHED, "all rounds are closed")
    says(driven, "a", "left")
    found = described(driven.runs, url)
    (client,) = found["clients"].values()
    assert (client["sent_bytes"], client["received_bytes"], client["moved_since_ms"]) == (1200, 3400, 5)
    view = driven.runs.read_round(1)
    assert view is not None
    assert view.closed_ms is not None
    assert found["open_s"] == (view.closed_ms - view.opened_ms) / 1000
    document = followed(driven).read().document
    assert found_of(document, view.closed_ms + 10_000)["open_s"] == found["open_s"]
    assert document["clients"]["a"]["sent_bytes"] == 1200


def test_a_value_of_an_earlier_round_names_it(url: str) -> None:
    driven = Driven(url)
    for client in "ab":
        says(driven, client, "ready")
    for number in (1, 2):
        driven.open(["a", "b"])
        driven.accept("a", 10, {"auc": 0.5 + number / 10})
        if number == 1:
            driven.accept("b", 10, {"auc": 0.8})
            driven.close()
    driven.refuse("b")
    found = described(driven.runs, url)
    rows = {name: (client["metrics"], client["metrics_round"]) for name, client in found["clients"].items()}
    assert rows == {"a": ({"auc": 0.7}, 2), "b": ({"auc": 0.8}, 1)}
    board = followed(driven).read().document
    assert [client["metrics_round"] for client in board["clients"].values()] == [2, 1]
    auc = next(column for column in columns_of(found) if column.head == "AUC")
    assert auc.cells == {"a": "0.7", "b": "0.8 (round 1)"}
