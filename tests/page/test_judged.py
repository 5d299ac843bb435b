"""The page shows evaluations of global models, apart from what training scripts report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flavor.page.server import bound
from flavor.page.shown import shown_board
from flavor.store.local import LocalStore
from flavor.view.board import Board
from tests.driven import Driven
from tests.page.conftest import Window, expect

HOSTILE = "<img src=x onerror=alert(1)>"


def test_evaluations_have_a_curve_and_a_table_of_their_own(server: str, tmp_path: Path, window: Window) -> None:
    run = Driven(server, LocalStore(tmp_path / "store", create=True), select="worst/accuracy:max", rounds=9)
    place = bound("127.0.0.1", 0, token=None)
    with Board(server, runs=[run.runs.run]) as board, shown_board(server, board, place):
        run.open(["c1", "c2"])
        for client in ("c1", "c2"):
            run.accept(client, 10, {"accuracy": 0.1})
        run.close()
        page: Any = window.open(place.address, f"/run/{run.runs.run}", wide=1400, high=1800)
        expect(page.locator(".model .note")).to_have_text("accuracy 0.1 in round 1")
        expect(page.locator(".panel.judged")).to_have_count(0)
        run.open_evaluation(["c1", "c2"])
        expect(page.locator(".judged-line")).to_have_text("Judging the model of round 1: c1 and c2 are awaited.")
        run.runs.redis.delete(run.runs.keys.evaluation(1, 0))
        run.judge(
            {"c1": (100, {"accuracy": 0.5, HOSTILE: 1.0}), "c2": (300, {"accuracy": 0.9})}, {"c3": "it is <b>gone"}
        )
        expect(page.locator(".judged-line")).to_have_text(
            "Judged: accuracy 0.7 by 2 of 3 sites, the model of round 1; without c3. Best model by --select: that of "
            f"round 1, worst/accuracy 0.5 (flavor get {run.runs.run} --round best)."
        )
        judged = page.locator(".panel.judged")
        expect(judged.locator(".note")).to_have_text("accuracy 0.7 of the model of round 1")
        expect(judged.locator("h3")).to_have_text("The model of round 1, judged by 2 of 3 sites, 400 examples")
        rows = judged.locator("tbody tr")
        expect(rows.nth(0)).to_have_text("c11000.5 (worst)1")
        expect(rows.nth(1)).to_have_text("c23000.9–")
        expect(rows.nth(2)).to_have_text("c3no result: it is <b>gone")
        expect(judged.locator("thead")).to_contain_text(HOSTILE)
        expect(judged.locator("tr.merged").nth(0)).to_contain_text("plain mean0.7")
        expect(judged.locator("tr.merged").nth(1)).to_contain_text("weighted mean0.8")
        expect(judged.locator("canvas")).to_be_visible()
        expect(page.locator(".model .note")).to_have_text("accuracy 0.1 in round 1")
        run.open(["c1", "c2"])
        for client in ("c1", "c2"):
            run.accept(client, 10, {"accuracy": 0.2})
        run.close()
        run.judge({"c1": (100, {"accuracy": 0.6}), "c2": (300, {"accuracy": 1.0})})
        expect(judged.locator(".note")).to_have_text("accuracy 0.8 of the model of round 2")
        expect(judged.locator("h3")).to_have_text("The model of round 2, judged by 2 sites, 400 examples")
        expect(judged.locator(".pointed")).to_have_text(
            "model of round 2 · plain 0.8 · weighted 0.9 · lowest 0.6 · highest 1"
        )
