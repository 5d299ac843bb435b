"""A Redis that is not there, goes away, and comes back, as it was or empty; runs that are damaged or removed."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from flavor.bus.connection import connect, shown
from flavor.bus.embedded import embedded_server
from flavor.bus.keys import REMOVED
from flavor.bus.keys import RUNS as RUNS_KEY
from flavor.bus.removed import note_removed
from flavor.bus.runs import RunStore
from flavor.bus.subscription import RESYNC
from flavor.config import RunConfig
from flavor.errors import BusUnavailable, DamagedRecord, RunNotFound
from flavor.records.states import RunState
from flavor.store.local import LocalStore
from flavor.view import board_reader
from flavor.view.board import RUNS, Board
from flavor.view.board_reader import MOST_ANEW_S, BoardReader
from flavor.view.followed import Followed
from flavor.view.patch import patched
from flavor.view.published import Published
from tests.driven import Driven

CONFIG = RunConfig(rounds=2, store="s").to_mapping()


def until(board: Board, what: str, holds: Any) -> None:
    version = 0
    for _ in range(300):
        version = board.wait(version, 0.1)
        if holds():
            return
    raise AssertionError(f"{what}: not in time; {board.problem()}")


def test_a_redis_that_was_never_there(tmp_path: Path) -> None:
    with Board(f"unix://{tmp_path}/none") as board:
        with pytest.raises(BusUnavailable, match=r"^Redis cannot be read since \d{4}-.* UTC: Redis at unix://"):
            board.runs()
        with pytest.raises(BusUnavailable, match="cannot be read since"):
            board.document("r")


@pytest.mark.parametrize("tells", [True, False])
def test_it_goes_on_by_itself_once_redis_is_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tells: bool
) -> None:
    with ExitStack() as server, ExitStack() as stack:
        url = server.enter_context(embedded_server(append_only=True, folder=tmp_path))
        RunStore(connect(url), "r", url).create(rounds=2, config=CONFIG)
        board = stack.enter_context(Board(url, tells=tells))
        document, version = board.document("r"), board.version()
        assert board.problem() == ""
        server.close()
        until(board, "it is away", board.problem)
        assert board.problem().startswith("Redis cannot be read since ")
        assert board.version() > version, "those who wait are told"
        assert board.document("r")["run_id"] == document["run_id"], "the last document stays"
        times = {(board.now_ms(), board.document("r")["now_ms"], board.runs()[0]["age_s"]) for _ in range(50)}
        assert len(times) == 1, "its durations stand still"
        assert board.now_ms() == board.read_ms()
        with pytest.raises(BusUnavailable, match="cannot be read since"):
            board.document("other")  # it may be there
        problem, where = board.problem(), f"flavor: Redis at {shown(url)}"
        waits = f"{where} does not answer; waiting for it, without limit"
        told = ""
        while tells and not told.endswith("\n"):
            told += capsys.readouterr().err
        server.enter_context(embedded_server(append_only=True, folder=tmp_path))
        until(board, "it is back", lambda: not board.problem())
        assert problem
        told += capsys.readouterr().err
        assert told.splitlines() == ([waits, f"{where} answers again"] if tells else [])
        runs = RunStore(connect(url), "r", url)
        runs.log("run.waiting", reason="for better times")
        runs.redis.publish(runs.keys.state, "")
        until(board, "what is new is seen", lambda: board.events("r")[-1]["reason"] == "for better times")
        assert board.document("r")["run_id"] == document["run_id"]
        assert [each["event"] for each in board.events("r")] == ["run.created", "run.waiting"]


def test_after_a_cut_subscription_everything_is_read_again(url: str) -> None:
    runs = RunStore(connect(url), "r", url)
    runs.redis.flushall()
    runs.create(rounds=2, config=CONFIG)
    runs.redis.sadd(runs.keys.members, "a")
    runs.redis.hset(runs.keys.client("a").hash, "state", "ready")
    with Board(url) as board:
        assert board.document("r")["clients"]["a"]["state"] == "ready"
        with runs.redis.pipeline() as step:  # what is published in between is lost
            step.hset(runs.keys.client("a").hash, "state", "failed")
            step.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            step.execute()
        until(board, "it is read again", lambda: board.document("r")["clients"]["a"]["state"] == "failed")


def test_a_subscription_that_is_cut_again_and_again_makes_few_looks_at_everything(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site can have it cut, with more in one of its channels than the server keeps for a slow subscriber."""
    runs = RunStore(connect(url), "r", url)
    runs.redis.flushall()
    runs.create(rounds=2, config=CONFIG)
    looks: list[tuple[float, bool]] = []
    now, read = 1000.0, Followed.read

    def counted(followed: Followed, *, anew: bool = False, **more: Any) -> Any:
        looks.append((now, anew))
        return read(followed, anew=anew, **more)

    monkeypatch.setattr(Followed, "read", counted)
    reader = BoardReader(url, Published(), store=None, only=None, left_in="", clock=lambda: now)
    try:
        for step in range(1200):
            now = 1000.0 + step / 10
            reader._look([RESYNC], ())
        anew = [at for at, is_anew in looks if is_anew]
        assert anew[:2] == [1000.0, 1000.1], "the first cut is followed by a look at once"
        assert len(anew) <= 2 + 4 + 120 / MOST_ANEW_S
        assert max(later - at for at, later in itertools.pairwise(anew)) <= MOST_ANEW_S + 0.2
        for woken in ([], [RESYNC]):  # the first one makes the look that is still due
            now += 100.0
            reader._look(woken, ())
        assert looks[-1] == (now, True), "after a calm time, too"
    finally:
        reader.close()


def test_another_run_of_the_name_has_none_of_the_numbers_of_the_first(url: str, tmp_path: Path) -> None:
    first = Driven(url, LocalStore(tmp_path / "first", create=True), run="again")
    first.open(["a"])
    first.accept("a", 10, {"accuracy": 0.9})
    first.close()
    with Board(url) as board:
        until(board, "it has numbers", lambda: board.document("again")["best"])
        before = board.document("again")["run_id"]
        first.runs.redis.flushall()
        other = Driven(url, LocalStore(tmp_path / "other", create=True), run="again")
        other.runs.redis.publish(other.runs.keys.state, "it begins")
        until(board, "the other run", lambda: board.document("again")["run_id"] != before)
        now = board.document("again")
        assert (now["last_round"], now["best"], now["spark"]) == (None, None, [])


def test_it_may_come_back_empty_or_with_another_run_of_the_name(url: str) -> None:
    runs = RunStore(connect(url), "r", url)
    runs.redis.flushall()
    runs.create(rounds=2, config=CONFIG)
    with Board(url) as board:
        first = board.document("r")["run_id"]
        runs.redis.flushall()
        runs.create(rounds=7, config=CONFIG)
        until(board, "it is another run", lambda: board.document("r")["run_id"] != first)
        assert board.document("r")["rounds"] == 7
        assert [each["event"] for each in board.events("r")] == ["run.created"]
        version = board.version()
        rows = {row["run"]: row for row in board.runs()}
        runs.redis.flushall()
        until(board, "it is lost", lambda: [row["state"] for row in board.runs()] == ["lost"])
        with pytest.raises(RunNotFound, match="Redis has lost run 'r', which had not ended: it was last there at 20"):
            board.document("r")
        until(board, "the patches tell it", lambda: (board.patches(RUNS, version) or [])[-1:])
        for _, patch in board.patches(RUNS, version) or []:
            rows = patched(rows, patch)
        assert {name: row["state"] for name, row in rows.items()} == {"r": "lost"}
        assert board.runs()[0]["rounds"] == 7
        runs.create(rounds=3, config=CONFIG)
        until(board, "another run has its name", lambda: [row["state"] for row in board.runs()] == ["waiting"])
        assert board.document("r")["rounds"] == 3


def test_a_run_that_is_removed_is_not_lost(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where it is stopped and removed between two looks, nor once it was given up; another one may be lost."""
    monkeypatch.setattr(board_reader, "QUIET_S", 0.2)
    runs, url, settings = bench.runs, bench.url, {"rounds": 2, "config": CONFIG}
    runs.redis.flushall()
    runs.create(**settings)

    def removed() -> None:
        done = bench.done("flavor", "rm", bench.run)
        done.wait()

    with Board(url) as board:
        assert [row["state"] for row in board.runs()] == ["waiting"]
        note_removed(runs.redis, bench.run, url)
        runs.remove_keys()
        runs.redis.zrem(RUNS_KEY, bench.run)
        until(board, "it is removed, and was not seen to end", lambda: board.runs() == [])
        assert board.removed().keys() == {bench.run}
        runs.create(**settings)
        until(board, "another run has its name", lambda: board.runs() and board.removed() == {})
        runs.redis.flushall()
        until(board, "it is lost", lambda: [row["state"] for row in board.runs()] == ["lost"])
        removed()
        until(board, "it is given up", lambda: board.runs() == [])
        runs.create(**settings)
        until(board, "it is there", board.runs)
        runs.end(RunState.STOPPED, "enough")
        removed()
        until(board, "it is removed", lambda: board.runs() == [])
        assert board.removed().keys() == {bench.run}


def test_a_run_is_lost_although_an_earlier_one_of_its_name_was_removed(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis comes back from a snapshot that was saved between the removal and the new run."""
    monkeypatch.setattr(board_reader, "QUIET_S", 0.2)
    runs, url = bench.runs, bench.url
    runs.redis.flushall()
    note_removed(runs.redis, bench.run, url)
    saved = {name: when_s - 0.1 for name, when_s in runs.redis.zrange(REMOVED, 0, -1, withscores=True)}
    runs.create(rounds=2, config=CONFIG)

    def comes_back() -> None:
        with runs.redis.pipeline(transaction=True) as step:
            step.flushall()
            step.zadd(REMOVED, saved)
            step.execute()

    with Board(url) as board:
        assert [row["state"] for row in board.runs()] == ["waiting"]
        comes_back()
        until(board, "it is lost", lambda: [row["state"] for row in board.runs()] == ["lost"])
        listed_at = board._reader._listed_at
        until(board, "Redis was read again", lambda: board._reader._listed_at > listed_at + 0.2)
        assert [row["state"] for row in board.runs()] == ["lost"]
        assert board.removed() == {}
        note_removed(runs.redis, bench.run, url)
        until(board, "it is given up", lambda: board.runs() == [])
        assert board.removed().keys() == {bench.run}


def has_settled(board: Board, run: str) -> bool:
    """Whether the board has no cause to look at the run again."""
    followed = board._reader.followed(run)
    return followed is not None and followed._aside_key is not None and not followed.wants


def test_a_finished_run_whose_keys_somebody_deletes_is_gone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name stays in the list of runs, and nothing is published."""
    monkeypatch.setattr(board_reader, "QUIET_S", 0.2)
    kept, gone = Driven(url), Driven(url)
    for each in (kept, gone):
        each.runs.end(RunState.FINISHED, "all rounds are closed")
    with Board(url) as board:
        until(board, "both are there", lambda: {row["run"] for row in board.runs()} >= {kept.runs.run, gone.runs.run})
        until(board, "all of it was read", lambda: has_settled(board, gone.runs.run))
        gone.runs.redis.delete(*gone.runs.redis.scan_iter(f"flavor:{{{gone.runs.run}}}:*"))
        until(board, "it is gone", lambda: gone.runs.run not in {row["run"] for row in board.runs()})
        with pytest.raises(RunNotFound):
            board.document(gone.runs.run)
        assert board.document(kept.runs.run)["state"] == "finished"


def test_a_damaged_run_hides_no_other(url: str) -> None:
    redis = connect(url)
    redis.flushall()
    for name in ("good", "bad"):
        RunStore(redis, name, url).create(rounds=2, config=CONFIG)
    with Board(url) as board:
        assert [row["state"] for row in board.runs()] == ["waiting", "waiting"]
        bad = RunStore(redis, "bad", url)
        redis.hset(bad.keys.state, "round", "many")
        redis.publish(bad.keys.state, "")
        until(board, "it is damaged", lambda: {row["state"] for row in board.runs()} == {"waiting", "damaged"})
        assert board.problem() == ""
        with pytest.raises(DamagedRecord, match="'bad'"):
            board.document("bad")
        assert board.document("good")["state"] == "waiting"
        redis.hset(bad.keys.state, "round", "0")
        redis.publish(bad.keys.state, "")
        until(board, "it is mended", lambda: {row["state"] for row in board.runs()} == {"waiting"})
        assert board.document("bad")["state"] == "waiting"


def test_only_the_runs_that_are_named(url: str) -> None:
    redis = connect(url)
    redis.flushall()
    with Board(url, runs=["one"]) as board:
        assert board.runs() == []
        for name in ("one", "two"):
            RunStore(redis, name, url).create(rounds=2, config=CONFIG)
        until(board, "a run that begins later is seen at once", lambda: len(board.runs()) == 1)
        assert board.runs()[0]["run"] == "one"
        with pytest.raises(RunNotFound):
            board.document("two")


@pytest.mark.parametrize("kind", ["members", "log", "round", "refusals"])
def test_a_key_of_another_type_hides_no_other_run(url: str, kind: str) -> None:
    redis = connect(url)
    redis.flushall()
    bad, good = Driven(url, run="bad"), Driven(url, run="good")
    for each in (bad, good):
        redis.sadd(each.runs.keys.members, "a")
        redis.hset(each.runs.keys.client("a").hash, "state", "ready")
        each.open(["a"])
    with Board(url) as board:
        assert [row["state"] for row in board.runs()] == ["running", "running"]
        keys = bad.runs.keys
        key = {"members": keys.members, "log": keys.log, "round": keys.round(1), "refusals": keys.refusals}[kind]
        redis.delete(key)
        redis.set(key, "x")
        redis.publish(keys.state, "x")
        until(board, "it is damaged", lambda: {row["state"] for row in board.runs()} == {"running", "damaged"})
        good.accept("a")
        until(board, "the other run goes on", lambda: board.document("good")["in"] == 1)
        assert board.problem() == ""


def test_names_that_are_asked_for_are_not_kept(url: str) -> None:
    with Board(url) as board:
        board.runs()
        for number in range(100):
            with pytest.raises(RunNotFound):
                board.document(f"no-{number}")
        assert not board._reader._seen_at


def test_metrics_that_cannot_be_read_are_said(url: str) -> None:
    redis = connect(url)
    redis.flushall()
    bad = Driven(url, run="bad")
    bad.open(["a"])
    redis.set(bad.runs.keys.closed, "x")
    with Board(url) as board:
        until(board, "why", lambda: any("no metrics are shown: " in each for each in board.document("bad")["absent"]))
        redis.delete(bad.runs.keys.closed)
        until(board, "they can", lambda: not any("no metrics" in each for each in board.document("bad")["absent"]))
