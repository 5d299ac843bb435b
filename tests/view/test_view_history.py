"""What has happened in a run, round by round, as people and programs read it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flavor.cli.status_frame import found_of
from flavor.cli.status_lines import summary_of
from flavor.coordinator.client_log import ClientLog
from flavor.coordinator.late_updates import LateUpdates
from flavor.errors import RunError, StoreUnavailable
from flavor.ledger.recover import recover
from flavor.records.info import info_bytes
from flavor.records.measured import Measured, PhaseStart
from flavor.records.merging import WEIGHTED
from flavor.records.moved import Moved
from flavor.records.pulse import Doing
from flavor.records.states import RoundState, RunState
from flavor.records.summary import RoundSummary, kept_metrics
from flavor.results.rounds import merged_info, round_result
from flavor.store.local import LocalStore
from flavor.view import site_values, strip
from flavor.view.curves import merged_curves, with_sites
from flavor.view.described import described
from flavor.view.document import document_of, left_s_of
from flavor.view.history import History, Outcome, Source
from flavor.view.newest import Newest, NewestReader
from flavor.view.observer import Lines
from flavor.view.snapshot import take_snapshot
from flavor.view.strip import RoundRow
from tests.driven import TOKEN, Driven, info
from tests.unit.forged_run import ForgedRun


@pytest.fixture
def driven(url: str, tmp_path: Path) -> Driven:
    return Driven(url, LocalStore(tmp_path / "store", create=True))


def two_rounds(driven: Driven) -> None:
    """Two rounds of three clients, of which one is refused in the first."""
    driven.open(["a", "b", "c"])
    driven.accept("a", 10, {"loss": 0.5, "auc": 0.25})
    driven.accept("b", 30, {"loss": 0.1})
    driven.refuse("c", "NaN in fc.weight")
    driven.close()
    driven.open(["a", "b", "c"])
    for client, loss in {"a": 0.3, "b": 0.2, "c": 0.7}.items():
        driven.accept(client, 10, {"loss": loss})
    driven.close()


def commands(driven: Driven) -> int:
    """How many commands the server has run so far, without those that count them."""
    stats = driven.runs.redis.info("commandstats")
    return sum(each["calls"] for name, each in stats.items() if name != "cmdstat_info")


@pytest.mark.parametrize("is_kept", [True, False], ids=["recorded", "by an earlier release"])
def test_a_run_round_by_round(driven: Driven, is_kept: bool) -> None:
    history = History(driven.runs, driven.store)
    assert history.strip() == []
    driven.open(["a", "b", "c"])
    driven.accept("a", 10, {"loss": 0.5, "auc": 0.25})
    driven.accept("b", 30, {"loss": 0.1})
    driven.refuse("c", "NaN in fc.weight")
    (row,) = history.strip()
    assert (row.state, row.contributors, row.refused, row.examples) == (RoundState.OPEN, 2, 1, 40)
    driven.close(is_kept=is_kept)
    (first,) = history.strip()
    view = driven.runs.read_round(1)
    assert view is not None
    assert first.source is (Source.SUMMARY if is_kept else Source.ROUND)
    assert (first.round, first.state) == (1, RoundState.CLOSED)
    assert (first.expected, first.contributors, first.refused, first.examples) == (3, 2, 1, 40)
    assert (first.opened_ms, first.aggregating_ms, first.closed_ms) == (
        view.opened_ms,
        view.aggregating_ms,
        view.closed_ms,
    )
    assert (first.attempts, first.openings, first.bytes) == (1, 1, 6)
    assert first.metrics == pytest.approx({"loss": 0.3, "loss (weighted)": 0.2, "auc": 0.25, "auc (weighted)": 0.25})
    assert first.shown_metrics == pytest.approx({"loss": 0.2, "auc": 0.25})
    assert first.spread == ({"loss": (0.1, 0.5), "auc": (0.25, 0.25)} if is_kept else {})
    assert first.seconds == (first.closed_ms - first.opened_ms) / 1000
    driven.open(["a", "b"])
    driven.accept("a", 7)
    (row,) = history.strip(after=1)
    assert (row.round, row.state, row.expected, row.contributors, row.examples) == (2, RoundState.OPEN, 2, 1, 7)
    assert (row.closed_ms, row.seconds, row.source) == (0, None, Source.ROUND)
    assert [each.round for each in history.strip()] == [1, 2]
    current = driven.runs.read_round(2)
    driven.accept("b", 3)
    assert history.strip(after=1, current=current)[0].contributors == 1, "it was not read again"
    assert history.strip(after=1)[0].contributors == 2


def test_asking_again_costs_what_is_new(driven: Driven) -> None:
    """Two hundred rounds cost as many commands as three, and the second time as few as one."""
    history = History(driven.runs, driven.store)
    costs = []
    for rounds in (3, 200):
        while driven.round < rounds:
            driven.open(["a"])
            driven.accept("a")
            driven.close()
        for asked in (History(driven.runs, driven.store), history, history):
            before = commands(driven)
            asked.strip()
            costs.append(commands(driven) - before)
    assert set(costs) == {2}, costs
    assert [row.round for row in history.strip(after=198)] == [199, 200]
    driven.open(["a"])
    before = commands(driven)
    history.strip(after=200)
    assert commands(driven) - before == 5, "the open round is read as well"


def test_one_round_in_detail(driven: Driven) -> None:
    two_rounds(driven)
    history = History(driven.runs, driven.store)
    found = history.timeline(1)
    assert found.gone == ""
    assert [(each.client, each.outcome, each.reason) for each in found.clients] == [
        ("a", Outcome.ACCEPTED, "10 examples"),
        ("b", Outcome.ACCEPTED, "30 examples"),
        ("c", Outcome.REFUSED, "NaN in fc.weight"),
    ]
    assert found.clients[0].metrics["loss"] == 0.5
    assert [each.in_model for each in found.clients] == [True, True, False]
    assert [(each.examples, each.bytes) for each in found.clients] == [(10, 3), (30, 3), (None, None)]
    with pytest.raises(RunError, match="no round 3: the newest is 2"):
        history.timeline(3)
    with pytest.raises(RunError, match="no round 0"):
        history.timeline(0)


def test_a_slow_site_trains_on_and_its_update_names_its_task(driven: Driven) -> None:
    history = History(driven.runs, driven.store)

    def found(round_: int) -> list[tuple[str, Outcome, int, int]]:
        clients = history.timeline(round_).clients
        return [(each.client, each.outcome, each.task_round, each.staleness) for each in clients]

    driven.open(["a", "b", "c"], since={})
    assert found(1)[1:] == [("b", Outcome.NONE, 1, 0), ("c", Outcome.NONE, 1, 0)], "it may hand in yet"
    driven.accept("a")
    driven.close()
    assert found(1)[1:] == [("b", Outcome.TRAINS_ON, 1, 0), ("c", Outcome.TRAINS_ON, 1, 0)]
    driven.open(["a", "b"], since={"b": 1})
    assert found(1)[1:] == [("b", Outcome.TRAINS_ON, 1, 0), ("c", Outcome.NONE, 1, 0)], "the task of c was given up"
    assert found(2) == [("a", Outcome.NONE, 2, 0), ("b", Outcome.TRAINS_ON, 1, 1)]
    driven.accept("a")
    driven.accept("b")
    driven.close()
    assert found(2) == [("a", Outcome.ACCEPTED, 2, 0), ("b", Outcome.ACCEPTED, 1, 1)]
    assert [(round_, each.task_round, each.staleness) for round_, each in history.client("b")] == [(2, 1, 1)]
    driven.open(["a", "b"], since={})
    driven.accept("a")
    driven.close()
    driven.runs.end(RunState.FINISHED, "all rounds are closed")
    assert found(3)[1] == ("b", Outcome.NONE, 3, 0), "what it trains on counts in no round"


def test_phases_stand_within_the_round_and_end_where_the_next_begins(driven: Driven) -> None:
    """A site may write any time: it is shown within the round, as the server's own clock has it."""
    driven.open(["honest", "liar", "silent"])
    opened_ms = driven.runs.now_ms()
    starts = [
        PhaseStart(Doing.DOWNLOADING, 5),
        PhaseStart(Doing.TRAINING, opened_ms + 1),
        PhaseStart(Doing.UPLOADED, 2**52),
    ]
    driven.accept("honest", measured=Measured(starts[1:2], Moved(11, 22)))
    driven.refuse("liar", measured=Measured(starts))
    history = History(driven.runs, driven.store)
    now = {each.client: each for each in history.timeline(1).clients}
    assert now["silent"].outcome is Outcome.NONE
    assert now["silent"].phases == ()
    key = driven.runs.keys.client("silent").hash
    pulse = {"doing": "training", "doing_round": "1", "doing_ms": str(opened_ms)}
    driven.runs.redis.hset(key, mapping=pulse)
    (span,) = next(each for each in history.timeline(1).clients if each.client == "silent").phases
    assert (span.doing, span.start_ms, span.end_ms) == (Doing.TRAINING, opened_ms, None)
    view = driven.runs.read_round(1)
    phases = NewestReader(driven.runs, history).read(view, None).phases
    now_ms = driven.runs.now_ms()
    assert [word for word, _ in phases["liar"]] == ["downloading", "training", "uploaded"]
    assert all(now_ms - 60_000 < start_ms <= now_ms for each in phases.values() for _, start_ms in each)
    driven.close()
    found = {each.client: each for each in history.timeline(1).clients}
    (row,) = history.strip()
    assert (found["honest"].sent_bytes, found["honest"].received_bytes) == (11, 22)
    ((doing, start_ms, end_ms),) = [(s.doing, s.start_ms, s.end_ms) for s in found["honest"].phases]
    assert (doing, start_ms) == (Doing.TRAINING, min(opened_ms + 1, row.closed_ms))
    assert end_ms is not None
    assert start_ms <= end_ms <= row.closed_ms
    liar = found["liar"].phases
    assert [span.doing for span in liar] == [Doing.DOWNLOADING, Doing.TRAINING, Doing.UPLOADED]
    for span in liar:
        assert span.end_ms is not None
        assert row.opened_ms <= span.start_ms <= span.end_ms <= row.closed_ms
    assert [span.end_ms for span in liar[:-1]] == [span.start_ms for span in liar[1:]]


def test_a_late_update_has_its_phases(driven: Driven) -> None:
    """Of all sites, it is the slow one of whom people want to know what took it so long."""
    driven.open(["a", "b"])
    driven.accept("a")
    driven.aggregate()
    late = LateUpdates(driven.runs, ClientLog(driven.runs, Lines(lambda _: None)))
    view = driven.runs.read_round(1)
    assert view is not None
    late.expect(view)
    phases = (PhaseStart(Doing.TRAINING, view.opened_ms), PhaseStart(Doing.UPLOADED, driven.runs.now_ms()))
    handed_in = replace(driven.update("b", 5, {}), measured=Measured(phases, Moved(3, 4)))
    driven.runs.redis.hset(driven.runs.keys.client("b").update(1), mapping=handed_in.to_hash())
    late.refuse(1, "b")
    found = {each.client: each for each in History(driven.runs, driven.store).timeline(1).clients}["b"]
    assert (found.outcome, found.sent_bytes, found.received_bytes) == (Outcome.REFUSED, 3, 4)
    assert [span.doing for span in found.phases] == [Doing.TRAINING, Doing.UPLOADED]
    assert "late" in found.reason


def test_one_client_over_the_rounds(driven: Driven) -> None:
    starts = (PhaseStart(Doing.TRAINING, 10_000), PhaseStart(Doing.UPLOADED, 12_500))
    for number in range(1, 5):
        driven.open(["a", "b"])
        driven.accept("b", 10)
        if number == 2:
            driven.refuse("a", "too large")
        else:
            driven.accept(
                "a", number, {"loss": 0.5}, Measured((starts[0], PhaseStart(Doing.UPLOADED, 10_000 + 1000 * number)))
            )
        driven.close()
    history = History(driven.runs, driven.store)
    before = commands(driven)
    found = history.client("a")
    assert commands(driven) - before < 20
    assert [(round_, each.outcome, each.examples) for round_, each in found] == [
        (1, Outcome.ACCEPTED, 1),
        (2, Outcome.REFUSED, None),
        (3, Outcome.ACCEPTED, 3),
        (4, Outcome.ACCEPTED, 4),
    ]
    assert [each.in_model for _, each in found] == [True, False, True, True]
    assert (found[1][1].reason, found[0][1].metrics["loss"]) == ("too large", 0.5)
    assert [round_ for round_, _ in history.client("a", most=2)] == [3, 4]
    assert history.client("nobody-here") == []


def test_the_curves_of_a_metric(driven: Driven) -> None:
    two_rounds(driven)
    history = History(driven.runs, driven.store)
    for client in "abc":
        driven.runs.redis.sadd(driven.runs.keys.members, client)
    assert history.metric_names() == ["loss", "auc"]
    curves = history.curves("loss")
    assert curves.rounds == (1, 2)
    assert curves.plain == pytest.approx((0.3, 0.4))
    assert curves.weighted == pytest.approx((0.2, 0.4))
    assert (curves.lowest, curves.highest) == ((0.1, 0.2), (0.5, 0.7))
    best = curves.best
    assert best is not None
    assert (best.round, best.value) == (2, pytest.approx(0.4)), "of three sites, and not of two"
    assert curves.sites == {"a": (0.5, 0.3), "b": (0.1, 0.2), "c": (None, 0.7)}
    assert (curves.is_complete, curves.left_out) == (True, 0)
    assert history.curves("auc").plain == (pytest.approx(0.25), None)
    assert history.curves("auc").sites == {"a": (0.25, None)}
    assert history.curves("nothing").plain == (None, None)
    chosen = history.curves("loss", ["c", "x", "c"])
    assert chosen.sites == {"c": (None, 0.7), "x": (None, None)}
    few = history.curves("loss", most_sites=1)
    assert (list(few.sites), few.left_out) == (["a"], 2)
    before = commands(driven)
    assert history.curves("loss", ["c", "x"]).sites == chosen.sites
    assert commands(driven) - before == 2, "what is closed is not read again"
    assert history.curves("loss", []).sites == {}


def test_what_redis_no_longer_has_comes_from_the_store(driven: Driven) -> None:
    """As a run of an earlier release: nothing was measured, and no summary kept."""
    for loss in (0.5, 0.25):
        driven.open(["a", "b"])
        driven.accept("a", 10, {"loss": loss}, None)
        driven.accept("b", 30, {"loss": 2 * loss}, None)
        driven.close(is_kept=False)
    driven.runs.redis.sadd(driven.runs.keys.members, "a", "b")
    history = History(driven.runs, driven.store)
    curves = history.curves("loss")
    assert curves.sites == {"a": (0.5, 0.25), "b": (1.0, 0.5)}
    assert (curves.lowest, curves.highest, curves.is_complete) == ((0.5, 0.25), (1.0, 0.5), True)
    found = history.timeline(2)
    assert found.gone.startswith("phases were not recorded")
    assert [each.metrics["loss"] for each in found.clients] == [0.25, 0.5]
    without = History(driven.runs, None)
    assert [(row.source, row.examples, row.metrics) for row in without.strip()] == [(Source.ROUND, 40, {})] * 2
    assert without.curves("loss").sites == {}
    assert not without.curves("loss").is_complete


def test_a_pruned_round_keeps_its_row_and_says_what_is_gone(driven: Driven) -> None:
    two_rounds(driven)
    driven.runs.forget_round(1, ["a", "b", "c"], whole=True)
    assert not list(driven.runs.redis.scan_iter(f"{driven.runs.keys.round(1)}*".replace("{", "\\{")))
    history = History(driven.runs, driven.store)
    assert [(row.round, row.refused, row.source) for row in history.strip()] == [
        (1, 1, Source.SUMMARY),
        (2, 0, Source.SUMMARY),
    ]
    found = history.timeline(1)
    assert found.clients == ()
    assert "gone from Redis" in found.gone
    curves = history.curves("loss", ["a"])
    assert (curves.sites, curves.is_complete) == ({"a": (None, 0.3)}, False)
    assert curves.plain == pytest.approx((0.3, 0.4))


def test_a_result_folder_still_has_what_redis_and_the_store_have_pruned(driven: Driven, tmp_path: Path) -> None:
    two_rounds(driven)
    driven.runs.forget_round(1, ["a", "b", "c"], whole=True)
    kept = tmp_path / "info" / "round-0001"
    kept.mkdir(parents=True)
    for site, loss in (("a", 0.2), ("b", 0.4)):
        (kept / f"{site}.json").write_bytes(info_bytes(info(10, {"loss": loss})))
    (tmp_path / "info" / "secret.json").write_bytes(info_bytes(info(10, {"loss": 7.0})))
    history = History(driven.runs, driven.store, folder=tmp_path)
    curves = history.curves("loss", ["a", "b"])
    assert (curves.sites["a"], curves.sites["b"][0], curves.is_complete) == ((0.2, 0.3), 0.4, True)
    curves = history.curves("loss", ["a", "../secret", "c"])
    assert (curves.sites["a"], curves.sites["../secret"]) == ((0.2, 0.3), (None, None))
    assert not curves.is_complete, "nobody has what c reported"
    assert History(driven.runs, None, folder=tmp_path).curves("loss", ["a"]).sites == {"a": (0.2, 0.3)}


def test_a_slow_store_gives_what_it_can(driven: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call ends in time, and the next one goes on; a store that is away is asked again."""
    for _ in range(4):
        driven.open(["a"])
        driven.accept("a", 10, {"loss": 0.5}, None)
        driven.close(is_kept=False)
    now = [0.0]
    values = site_values.SiteValues(driven.runs, driven.store, clock=lambda: now[0])
    read, away = site_values.site_info, [False]

    def slow(*args: object) -> object:
        now[0] += 1.5
        if away[0]:
            raise StoreUnavailable("away")
        return read(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(site_values, "site_info", slow)
    assert values.of("loss", ["a"], [1, 2, 3, 4]) == ({3: (0.5,), 4: (0.5,)}, {3, 4})
    away[0] = True
    assert values.of("loss", ["a"], [1, 2, 3, 4])[1] == {3, 4}
    away[0] = False
    assert values.of("loss", ["a"], [1, 2, 3, 4]) == (dict.fromkeys(range(1, 5), (0.5,)), {1, 2, 3, 4})


def test_a_run_that_was_rebuilt_is_read_again(url: str, tmp_path: Path) -> None:
    forged = ForgedRun(tmp_path / "store", metrics={"a": {"loss": 0.5}, "b": {"loss": 0.25}})
    forged.begin()
    for number in (1, 2):
        forged.close(forged.manifest(number))
    driven = Driven(url, run=forged.name)
    two_rounds(driven)
    history = History(driven.runs, forged.store)
    assert [row.refused for row in history.strip()] == [1, 0]
    driven.runs.redis.delete(driven.runs.keys.coordinator)
    recover(forged.archive, driven.runs, url=url, replace=True, tell=lambda _: None)
    assert len(driven.runs.summaries()) == 2, "those of the lost history are gone"
    rows = history.strip()
    assert [(row.round, row.refused, row.examples, row.source) for row in rows] == [
        (1, 0, 30, Source.SUMMARY),
        (2, 0, 30, Source.SUMMARY),
    ]
    assert rows[0].metrics == pytest.approx({"loss": 0.375, "loss (weighted)": 1 / 3})
    assert history.curves("loss", ["a", "b"]).sites == {"a": (0.5, 0.5), "b": (0.25, 0.25)}
    assert history.timeline(1).gone.startswith("phases were not recorded")
    driven.runs.forget_round(1, ["a", "b"], whole=True)
    pruned = history.timeline(1)
    assert pruned.gone == "phases and refusals were pruned: this is what the manifest has", "metrics are in the store"
    assert [each.metrics["loss"] for each in pruned.clients] == [0.5, 0.25]
    for site, which in (("a", "some"), ("b", "single")):
        for each in tmp_path.glob(f"store/**/{site}/**/*info*"):
            each.unlink()
        assert history.timeline(1).gone.endswith(
            f", and the metrics of {which} sites were pruned, too, or cannot be read"
        )
    assert [(each.client, each.examples) for each in pruned.clients] == [("a", 10), ("b", 20)]
    driven.runs.remove_keys()


def test_another_run_of_the_name_is_another_history(url: str, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store", create=True)
    driven = Driven(url, store, run="again")
    driven.open(["a"])
    driven.accept("a", 10, {"loss": 0.5})
    driven.close(is_kept=False)
    history = History(driven.runs, store)
    assert [row.examples for row in history.strip()] == [10]
    assert history.curves("loss", ["a"]).sites == {"a": (0.5,)}
    driven.runs.remove_keys()
    other = Driven(url, store, run="again")
    other.open(["a"])
    other.accept("a", 20, {"loss": 0.25})
    other.close(is_kept=False)
    assert [row.examples for row in history.strip()] == [20]
    assert history.curves("loss", ["a"]).sites == {"a": (0.25,)}
    other.runs.remove_keys()


def test_a_server_that_came_back_older_is_read_again(driven: Driven) -> None:
    two_rounds(driven)
    history = History(driven.runs, driven.store)
    assert [row.contributors for row in history.strip()] == [2, 3]
    keys = driven.runs.keys
    other = RoundSummary(2, 5, contributors=7).closed_at(9)
    driven.runs.redis.rpop(keys.closed)
    driven.runs.redis.rpush(keys.closed, other)
    assert [row.contributors for row in history.strip()] == [2, 7]
    driven.runs.redis.delete(keys.closed)
    assert [(row.contributors, row.source) for row in history.strip()] == [(2, Source.ROUND), (3, Source.ROUND)]


def test_a_summary_that_cannot_be_read_costs_only_itself(driven: Driven) -> None:
    two_rounds(driven)
    driven.runs.redis.lset(driven.runs.keys.closed, 0, "[damaged")
    history = History(driven.runs, driven.store)
    assert [(row.round, row.source, row.refused) for row in history.strip()] == [
        (1, Source.ROUND, 1),
        (2, Source.SUMMARY, 0),
    ]
    assert len(history.strip()) == 2


def test_rounds_that_neither_has_are_said_to_be_unknown_and_looked_for_again(driven: Driven) -> None:
    two_rounds(driven)
    keys = driven.runs.keys
    driven.runs.redis.delete(keys.closed)
    driven.runs.redis.rename(keys.round(1), "aside")
    now = [0.0]
    read = strip.Strip(driven.runs, driven.store, clock=lambda: now[0])
    read.look()
    assert [(row.round, row.source) for row in read.rows()] == [(1, Source.NONE), (2, Source.ROUND)]
    driven.runs.redis.rename("aside", keys.round(1))
    read.look()
    assert read.rows()[0].source is Source.NONE
    now[0] += 61
    read.look()
    assert (read.rows()[0].source, read.rows()[0].contributors) == (Source.ROUND, 2)


def test_a_look_at_a_slow_store_ends_in_time_and_the_next_goes_on(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        driven.open(["a"])
        driven.accept("a", 10, {"loss": 0.5}, None)
        driven.close(is_kept=False)
    now, read = [0.0], strip.merged_info

    def slow(*args: object) -> object:
        now[0] += 1.5
        return read(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(strip, "merged_info", slow)
    rows = strip.Strip(driven.runs, driven.store, clock=lambda: now[0])
    rows.look()
    none, known = Source.NONE, Source.ROUND
    assert [row.source for row in rows.rows()] == [none, none, known, known]
    rows.look()
    assert [row.source for row in rows.rows()] == [known] * 4


def test_what_is_kept_of_a_round_is_small(driven: Driven) -> None:
    two_rounds(driven)
    assert all(len(text) < 500 for text in driven.runs.summaries())
    text = driven.runs.redis.hget(driven.runs.keys.measured(1), "a")
    assert text is not None
    assert len(text) < 400
    assert list(json.loads(text)) == ["judged_ms", "phases", "moved", "metrics"]


def test_both_means_of_a_metric_are_kept_or_none(driven: Driven) -> None:
    """Names of up to 80 characters are kept; a plain mean never stands in the place of a weighted one."""
    name, too_long = "m" * 80, "n" * 81
    driven.open(["a", "b"])
    driven.accept("a", 10, {name: 1.0, too_long: 1.0, "loss": 1.0})
    driven.accept("b", 30, {name: 2.0, too_long: 2.0, "loss": 2.0})
    driven.close()
    history = History(driven.runs, driven.store)
    assert (history.curves(name, ()).plain, history.curves(name, ()).weighted) == ((1.5,), (1.75,))
    assert history.curves(too_long, ()).weighted == (None,)
    (row,) = history.strip()
    assert (sorted(row.shown_metrics), row.left_out) == (["loss", name], 1)
    driven.runs.redis.sadd(driven.runs.keys.members, "a", "b")
    curves = history.curves(name)
    assert (curves.sites, curves.is_complete) == ({"a": (1.0,), "b": (2.0,)}, True), "the store has long names"
    curves = History(driven.runs, None).curves(name)
    assert (curves.sites, curves.is_complete) == ({}, False)
    odd = RoundSummary(1, 2, metrics=kept_metrics({"alone": 1.0, **merged(30)})).to_json()
    for names in (json.loads(odd)["metrics"], kept_metrics(merged(30), 39), kept_metrics(merged(30), 40)):
        plain = {each for each in names if not each.endswith(WEIGHTED)}
        assert plain - {"alone"} == {each.removesuffix(WEIGHTED) for each in names if each.endswith(WEIGHTED)}


def merged(number: int) -> dict[str, float]:
    names = [f"{each:02}{'x' * 78}" for each in range(number)]
    return {each: 1.0 for name in names for each in (name, name + WEIGHTED)}


def test_metrics_beyond_those_that_redis_keeps_come_from_the_store(driven: Driven) -> None:
    """A site may report more than 20; one that is called like a weighted mean hides no other."""
    metrics = {f"m{number:02}": float(number) for number in range(24)} | {"x (weighted)": 5.0}
    driven.open(["a", "b"])
    driven.accept("a", 10, metrics)
    driven.accept("b", 10, {"m00": 1.0, "m23": 1.0, "y (weighted)": 5.0})
    driven.close()
    driven.runs.redis.sadd(driven.runs.keys.members, "a", "b")
    assert driven.runs.measured(1)["a"].left_out >= 5
    assert driven.runs.measured(1)["b"].left_out == 0
    history = History(driven.runs, driven.store)
    curves = history.curves("m23")
    assert (curves.sites, curves.is_complete) == ({"a": (23.0,), "b": (1.0,)}, True)
    curves = History(driven.runs, None).curves("m23")
    assert (curves.sites, curves.is_complete) == ({"b": (1.0,)}, False)
    newest = NewestReader(driven.runs, history).read(driven.runs.read_round(1), None)
    assert newest.sites["b"] == {"m00": 1.0, "m23": 1.0}, "the means are flavor's to name"
    found = described(driven.runs, driven.url, metric="m22")
    (line,) = [line.text for line in summary_of(found) if line.text.startswith("round 1: ")]
    assert line.endswith("; no 'm22' is known of this round, or not kept")
    assert f"the store alone has {found['last_round']['left_out']} further metrics" in line


def test_no_value_is_the_lowest_in_a_round_of_which_that_of_a_site_is_not_known() -> None:
    merged = merged_curves("m", [RoundRow(number, RoundState.CLOSED, Source.ROUND) for number in (1, 2)])
    values = {1: (0.5, None), 2: (0.5, 0.7)}
    curves = with_sites(merged, ["a", "b"], values, are_all=True, left_out=0, whole=[2])
    assert (curves.lowest, curves.highest, curves.is_complete) == ((None, 0.5), (None, 0.7), False)


def test_a_round_in_which_the_run_had_ended_tells_all_of_it(driven: Driven) -> None:
    """Its opening and its phases are when they were, the pause is no time of it, and a refusal stays."""
    driven.open(["a", "c"])
    runs = driven.runs
    key, opened_ms = runs.keys.round(1), runs.now_ms() - 100_000
    runs.redis.hset(key, "opened_ms", opened_ms)
    phases = [PhaseStart(Doing.TRAINING, opened_ms + 1_000), PhaseStart(Doing.UPLOADED, opened_ms + 5_000)]
    driven.accept("a", measured=Measured(phases))
    driven.refuse("c", "NaN in fc.weight")
    runs.end(RunState.STOPPED, "for lunch", token=TOKEN)
    ended_ms = opened_ms + 20_000
    runs.redis.hset(runs.keys.state, "ended_ms", ended_ms)
    config = runs.read().config
    runs.resume(TOKEN, 1, config=config, changed=[], closed=0, spoiled=[], timeout_s=600, reason="it was stopped")
    told, snapshot = described(runs, driven.url), take_snapshot(runs)
    assert 20 <= told["open_s"] < 40
    shown = document_of(snapshot, Newest(pace_s=600.0))
    assert found_of(shown, snapshot.now_ms)["open_s"] == pytest.approx(told["open_s"], abs=5), "`--watch` says the same"
    assert shown["worked_from_ms"] == opened_ms + shown["paused_ms"]
    rounds_s = 600.0 * (snapshot.run.rounds - 1)
    left_s = left_s_of(shown, snapshot.now_ms)
    assert left_s == pytest.approx(rounds_s + 600.0 - told["open_s"], abs=5), "the 80 s of the pause are not done"
    history = History(runs, driven.store)
    assert history.strip()[0].refused == 1
    driven.accept("c")
    (row,) = history.strip()
    assert (row.refused, row.openings, row.opened_ms) == (1, 2, opened_ms)
    driven.close()
    (row,) = history.strip()
    view = runs.read_round(1)
    assert view is not None
    assert (row.source, row.refused, row.openings, row.opened_ms) == (Source.SUMMARY, 1, 2, opened_ms)
    assert row.seconds == pytest.approx(20, abs=10), "without the 80 s of the pause"
    found = history.timeline(1)
    assert found.pauses == ((ended_ms, ended_ms + row.paused_ms),)
    a, c = found.clients
    assert [(span.doing, span.start_ms) for span in a.phases] == phases
    assert (c.outcome, c.refused_before, a.refused_before) == (Outcome.ACCEPTED, "NaN in fc.weight", "")
    assert driven.store is not None
    assert round_result(view, merged_info(view, driven.store), {}).seconds == row.seconds, "metrics.csv has the same"
    ((_, of_c),) = history.client("c")
    assert of_c.refused_before == "NaN in fc.weight"
