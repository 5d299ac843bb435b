"""The page of a real run: what happens in Redis is seen in the browser, also after Redis was away."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from flavor.bus.embedded import embedded_server
from flavor.cook.metrics import binary_counts
from flavor.page.server import Place
from flavor.page.shown import shown_board
from flavor.protocol import SPEAKS
from flavor.records.states import RunState
from flavor.records.verdict import Verdict
from flavor.store.local import LocalStore
from flavor.view.board import Board
from tests.driven import TOKEN, Driven
from tests.page.conftest import Window, expect
from tests.page.made_up import HOSTILE, LONG


def joins(run: Driven, client: str, **said: str) -> None:
    """An edge has its lease, and the coordinator admits it."""
    keys = run.runs.keys.client(client)
    run.runs.redis.set(keys.lease, "x")
    run.runs.redis.hset(keys.hash, mapping={"state": "ready", **SPEAKS, "round": "0", **said})
    run.runs.admit(TOKEN, client, "its trainer is ready")
    run.runs.redis.publish(keys.state, "ready")


def is_refused(run: Driven, client: str, reason: str) -> None:
    """A client hands in an update, which a worker refuses."""
    key = run.runs.keys.client(client).update(run.round)
    run.runs.redis.hset(key, mapping={"path": client, "digest": client, "size": "12", "try": "t"})
    run.runs.redis.publish(key, "1")
    assert run.runs.judge(run.round, client, Verdict(False, reason, try_id="t"))


def test_from_redis_to_the_page_and_back_after_an_outage(tmp_path: Path, place: Place, window: Window) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    with Serving(folder) as redis:
        run = Driven(redis.url, LocalStore(tmp_path / "store", create=True), "mammo", rounds=9, min_clients=2)
        with Board(redis.url) as board, shown_board(redis.url, board, place):
            page: Any = window.open(place.address, "/run/mammo")
            expect(page.get_by_text("No site has joined yet.")).to_be_visible()
            for client in ("site-1", "site-2", "site-3"):
                joins(run, client, host=HOSTILE)
            expect(page.locator(".sites .item")).to_have_count(3)
            run.open(["site-1", "site-2"])
            expect(page.locator(".stand .round")).to_have_text("round 1 of 9")
            expect(page.locator(".waits")).to_have_text("Round 1: 0 of 2 updates accepted, waiting for site-1, site-2")
            first = page.locator(".sites .item").filter(has_text="site-1").locator(".state .word")
            expect(first).to_have_text("training")
            run.accept("site-1", 120, {"val_auc": 0.8})
            expect(first).to_have_text("accepted")
            is_refused(run, "site-2", LONG)
            second = page.locator(".sites .item").filter(has_text="site-2")
            expect(second.locator(".state .word")).to_have_text("refused")
            expect(second.locator(".why")).to_have_text(LONG)
            expect(page.locator(".events .log li").first).to_contain_text("round 1: site-2: the update is refused")
            run.accept("site-2", 80, {"val_auc": 0.7})
            run.close()
            expect(page.locator(".rounds .note")).to_have_text("1 round closed")
            expect(page.locator(".model .note")).to_have_text("val_auc 0.76 in round 1")  # (120 · 0.8 + 80 · 0.7) / 200
            expect(page.locator(".gains")).to_have_text("Model: val_auc 0.76, the best so far, reported in round 1.")
            run.open(["site-1", "site-2"])
            expect(page.locator(".stand .round")).to_have_text("round 2 of 9")
            redis.stop()
            away = page.get_by_role("alert")
            expect(away).to_contain_text("Redis")
            expect(away).to_contain_text("goes on by itself")
            expect(page.locator(".sites .item")).to_have_count(3)
            expect(page.locator("#live")).to_have_text(re.compile(r"◐ as of \d\d:\d\d:\d\d$"))
            where = "performance.getEntriesByType('resource').find((each) => each.name.endsWith('/js/clock.js')).name"
            stands = f"async () => {{ const c = await import({where}); return [c.now(), Date.now()]; }}"
            (then, at), (still, later) = page.evaluate(stands), page.evaluate(stands)
            while later - at < 50:
                still, later = page.evaluate(stands)
            assert still == then == board.read_ms()
            redis.start()
            expect(away).to_be_hidden()
            expect(page.locator("#live")).to_have_text("● live")
            assert page.evaluate(stands)[0] > then
            run.accept("site-1", 120, {"val_auc": 0.9})
            expect(first).to_have_text("accepted")
            page.locator(".strip").press("Home")
            page.locator(".strip").press("Enter")
            expect(page.locator(".timeline .lanes")).to_have_count(2)
            page.goto(place.address)
            expect(page.locator(".run")).to_contain_text("1 of 2 updates accepted, waiting for site-2")
            expect(page.locator(".run .round")).to_have_text("round 2 of 9")
            page.goto(f"{place.address}queue")
            expect(page.locator(".workers")).to_contain_text(re.compile("No aggregator listens"))


def test_a_run_that_cannot_be_read_is_told_with_the_key_and_what_to_do(
    tmp_path: Path, place: Place, window: Window
) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    with Serving(folder) as redis:
        store = LocalStore(tmp_path / "store", create=True)
        sound, bad = (Driven(redis.url, store, run, rounds=9, min_clients=2) for run in ("sound", "bad"))
        for run in (sound, bad):
            for client in ("site-1", "site-2"):
                joins(run, client)
        key = bad.runs.keys.members
        bad.runs.redis.rename(key, "aside")
        bad.runs.redis.set(key, "x")
        with Board(redis.url) as board, shown_board(redis.url, board, place):
            page: Any = window.open(place.address)
            expect(page.locator(".sum")).to_have_text("1 run needs attention · 1 run in progress · 0 ended · 1 damaged")
            page.goto(f"{place.address}run/bad")
            problem = page.get_by_role("alert")
            advice = f": {key}: another program has written the key: delete it; `flavor recover` rebuilds a run from"
            expect(problem).to_contain_text(advice)
            expect(problem).to_contain_text("The page goes on by itself once the run can be read.")
            expect(problem).not_to_contain_text("from before")
            expect(page.locator(".stand .title")).to_contain_text("damaged")
            expect(page.locator("#live")).to_have_text("◐ not read")
            bad.runs.redis.rename("aside", key)
            expect(page.locator(".sites .item")).to_have_count(2)
            expect(problem).to_be_hidden()
            expect(page.locator("#live")).to_have_text("● live")
            expect(page.locator(".stand .title")).not_to_contain_text("damaged")
            bad.runs.redis.set(key, "x")
            expect(problem).to_contain_text("once the run can be read; what it shows below is from before.")
            page.goto(f"{place.address}run/sound")
            expect(page.locator("#live")).to_have_text("● live")


def test_a_pooled_metric_is_one_line_and_no_mean(tmp_path: Path, place: Place, window: Window) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    with Serving(folder) as redis:
        run = Driven(redis.url, LocalStore(tmp_path / "store", create=True), "mammo", rounds=9, min_clients=2)
        for _ in range(3):
            run.open(["site-1", "site-2"])
            for site, examples in (("site-1", 10), ("site-2", 30)):
                counts = binary_counts([0, 0, 1], [0.1, 0.6, 0.4])
                run.accept(site, examples, {**counts, "loss": examples / 10, "count/missed": 2})
            run.close()
        with Board(redis.url) as board, shown_board(redis.url, board, place):
            page: Any = window.open(place.address, "/run/mammo")
            expect(page.locator(".model .note")).to_have_text("pooled/auc 0.5 in round 3")
            line, legend = page.locator(".model .pointed"), page.locator(".model .legend")
            expect(line).to_have_text("round 3 · pooled 0.5")
            expect(legend.get_by_text("pooled", exact=True)).to_be_visible()
            expect(legend.get_by_text("plain mean")).to_be_hidden()
            choice = page.get_by_role("combobox", name="Metric")
            names = choice.locator("option").all_inner_texts()
            assert not [name for name in names if "binary" in name]
            choice.select_option("count/missed")
            expect(line).to_have_text("round 3 · sum 4")
            choice.select_option("loss")
            expect(line).to_have_text(re.compile("^round 3 · weighted 2.5 · plain 2"))
            expect(legend.get_by_text("weighted mean")).to_be_visible()
            expect(legend.get_by_text("plain mean")).to_be_visible()


def test_commands_name_a_local_run_by_its_folder_and_one_that_has_ended_needs_no_aggregator(
    tmp_path: Path, place: Place, window: Window
) -> None:
    folder, redis_folder = tmp_path / "my results", tmp_path / "redis"
    redis_folder.mkdir()
    with Serving(redis_folder) as redis:
        run = Driven(redis.url, LocalStore(tmp_path / "store", create=True), "mammo", rounds=9, min_clients=2)
        with Board(redis.url, runs=["mammo"], folder=str(folder)) as board, shown_board(redis.url, board, place):
            page: Any = window.open(place.address, "/run/mammo")
            workers = page.locator(".workers")
            expect(workers).to_contain_text("No aggregator listens")
            expect(workers).to_contain_text(f"`flavor run` starts it; its log is '{folder}/logs/aggregator.log'.")
            joins(run, "site-1", state="failed", reason="it crashed")
            row = page.locator(".sites .item").filter(has_text="site-1")
            expect(row.locator(".state .word")).to_have_text("failed")
            row.get_by_role("button").first.click()
            again = f"flavor run --resume '{folder}'"
            expect(row.locator(".meaning")).to_have_text(
                "Its training script or its edge has failed. "
                f"'{folder}/logs/site-1.log' says why; `{again}` starts it again."
            )
            expect(row.locator(".log")).to_have_text(
                f"Its script has printed nothing yet, or its output is in '{folder}/clients/site-1/logs' alone."
            )
            run.runs.end(RunState.STOPPED, "enough")
            expect(workers).to_contain_text("The run has ended, and needs no aggregator.")
            expect(page.locator(".stand .more").first).to_have_text(f"{again} goes on with it.")
            tip = page.locator(".stand .title .state").get_attribute("data-tip")
            assert tip == f"An operator has stopped the run. `{again}` goes on with it."
            expect(workers).not_to_contain_text("No aggregator listens")
            shown = page.locator(".foot code").all_inner_texts()
            named = [words for words in map(shlex.split, shown) if words[0] == "flavor"]
            assert len(named) == 9
            assert [words[2] for words in named] == [str(folder)] * 9


class Serving:
    """A Redis server that stops and starts again, with what it had."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = ""

    def start(self) -> None:
        self._server = embedded_server(append_only=True, folder=self._folder)
        self.url = self._server.__enter__()

    def stop(self) -> None:
        self._server.__exit__(None, None, None)

    def __enter__(self) -> Serving:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def test_a_value_that_a_site_lacks_is_a_gap_and_its_round_is_not_the_best(
    tmp_path: Path, place: Place, window: Window
) -> None:
    """The curve went straight on, and the mean of the others was the best value."""
    folder = tmp_path / "redis"
    folder.mkdir()
    window.keep_plots()
    with Serving(folder) as redis:
        run = Driven(redis.url, LocalStore(tmp_path / "store", create=True), "mammo", rounds=9, min_clients=2)
        for client in ("a", "b"):
            joins(run, client)
        for number, value in enumerate((0.5, 0.6, 0.9, 0.7, 0.8, 0.9), 1):
            run.open(["a", "b"])
            run.accept("a", 10, {"val_auc": value})
            run.accept("b", 10, {"val_auc": None if number in (3, 6) else value})
            run.close()
        with Board(redis.url) as board, shown_board(redis.url, board, place):
            page: Any = window.open(place.address, "/run/mammo")
            not_compared = "not compared: 2 rounds, the newest of them round 6, in which fewer than 2 sites report"
            expect(page.locator(".gains")).to_have_text(
                "Model: val_auc 0.9 of 1 of 2 sites, reported in round 6; the best was 0.8, reported in round 5, which "
                f"began from the model of round 4 (flavor get mammo --round 4); {not_compared} it."
            )
            expect(page.locator(".model .note")).to_have_text("val_auc 0.9 of 1 of 2 sites in round 6")
            expect(page.locator(".model .pointed")).to_contain_text("weighted 0.9 of 1 of 2 sites")
            expect(page.locator(".model .quiet")).to_have_text(f"For the best round, {not_compared} val_auc.")
            page.wait_for_function("() => window.plots.at(-1)?.series.some((each) => each.label === 'b')")
            gaps = "() => { const drawn = plots.at(-1);"
            gaps += " const at = drawn.series.findIndex((each) => each.label === 'b'); return ["
            assert page.evaluate(gaps + "drawn.series[at].spanGaps, drawn.series[at].points.filter(drawn, at)]; }") == [
                False,
                [],
            ]
            assert page.evaluate(gaps + "drawn.series[at].points.filter({data: {[at]: [1, null, 2, 3]}}, at)]; }") == [
                [0]
            ], "a value alone is a point"
            page = window.open(place.address)
            expect(page.locator(".run .value")).to_have_text("val_auc 0.9 of 1 of 2 sites")
            expect(page.locator(".run .best")).to_have_text("best 0.8")
