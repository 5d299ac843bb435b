"""The page shows evaluations of global models, apart from what training scripts report."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from flavor.page.server import Place
from flavor.page.shown import shown_board
from flavor.records.evaluation import AUTOMATIC, CENTRAL, EvaluationSummary
from flavor.records.subject import Subject, SubjectKind
from flavor.store.local import LocalStore
from flavor.view.board import Board
from tests.driven import Driven
from tests.page.conftest import Window, expect

HOSTILE = "<img src=x onerror=alert(1)>"


def drawn_as(page: Any, panel: str) -> dict[str, list[Any]]:
    """Width, dashes and colour of each mean in the curves of a panel."""
    found: dict[str, list[Any]] = page.evaluate(
        "(panel) => Object.fromEntries(plots.findLast(({ root }) => root.closest(panel)).series"
        ".filter(({ label }) => /mean$/.test(label))"
        ".map((each) => [each.label, [each.width, each.dash, each.stroke()]]))",
        panel,
    )
    return found


def test_evaluations_have_a_curve_and_a_table_of_their_own(
    server: str, tmp_path: Path, place: Place, window: Window
) -> None:
    window.keep_plots()
    run = Driven(server, LocalStore(tmp_path / "store", create=True), select="worst/accuracy:max", rounds=9)
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
            "Judged: accuracy 0.7 (plain mean) by 2 of 3 sites, the model of round 1; without c3. Best model by "
            f"--select: that of round 1, worst/accuracy 0.5 by 2 sites (flavor get {run.runs.run} --round best)."
        )
        judged = page.locator(".panel.judged")
        of_sites = judged.locator(".of-sites")
        expect(judged.locator(".note")).to_have_text("accuracy 0.7 (plain mean) of the model of round 1")
        expect(of_sites.locator("h3")).to_have_text("The model of round 1, judged by 2 of 3 sites, 400 examples")
        rows = of_sites.locator("tbody tr")
        expect(rows.nth(0)).to_have_text("c11000.5 (worst)1")
        expect(rows.nth(1)).to_have_text("c23000.9–")
        expect(rows.nth(2)).to_have_text("c3no result: it is <b>gone")
        expect(of_sites.locator("thead")).to_contain_text(HOSTILE)
        expect(of_sites.locator("tr.merged").nth(0)).to_contain_text("plain mean0.7")
        expect(of_sites.locator("tr.merged").nth(1)).to_contain_text("weighted mean0.8")
        expect(judged.locator("canvas")).to_be_visible()
        expect(page.locator(".model .note")).to_have_text("accuracy 0.1 (weighted mean) in round 1")
        expect(page.locator(".gains")).to_contain_text("Model: accuracy 0.1 (weighted mean), the best so far,")
        run.open(["c1", "c2"])
        for client in ("c1", "c2"):
            run.accept(client, 10, {"accuracy": 0.2})
        run.close()
        odd = {"c1": (100, {"accuracy": 0.6, "loss": math.inf}), "c2": (300, {"accuracy": 1.0, "loss": None})}
        run.judge(odd)
        expect(judged.locator(".note")).to_have_text("accuracy 0.8 (plain mean) of the model of round 2")
        expect(rows.nth(0)).to_have_text("c11000.6 (worst)inf (worst)")
        expect(rows.nth(1)).to_have_text("c23001null")
        expect(of_sites.locator("h3")).to_have_text("The model of round 2, judged by 2 sites, 400 examples")
        expect(judged.locator(".pointed")).to_have_text(
            "model of round 2 · plain 0.8 · weighted 0.9 · lowest 0.6 · highest 1"
        )
        many = {f"x{number}": 1.0 for number in range(25)}
        run.judge({"c1": (100, {"accuracy": 0.6, "loss": 1.0}), "c2": (300, {"accuracy": 1.0, **many})}, number=1)
        expect(rows.nth(1)).to_have_text(re.compile(r"^c23001\?"))
        expect(of_sites).to_contain_text(
            "c2 has more metrics than Redis keeps: flavor results shows them from the store."
        )
        for panel in (page.locator(".panel.model"), judged):  # each mean looks the same in both
            is_main = re.compile(r"\bmain\b")
            main, other = ("weighted", "plain") if panel is not judged else ("plain", "weighted")
            key = panel.locator(f".legend .line.{main}")
            expect(key).to_have_class(is_main)
            expect(key.locator("..")).to_have_text(f"{main} mean")
            expect(panel.locator(f".legend .line.{other}")).not_to_have_class(is_main)
        expect(judged.locator(".legend .line.weighted")).to_have_css("border-top", "2px solid rgb(23, 97, 192)")
        expect(judged.locator(".legend .line.plain")).to_have_css("border-top", "3px dashed rgb(154, 91, 0)")
        assert drawn_as(page, ".judged") == {"weighted mean": [2, [], "#1761c0"], "plain mean": [3, [6, 4], "#9a5b00"]}
        assert drawn_as(page, ".model") == {"weighted mean": [3, [], "#1761c0"]}, "both means are the same"


def test_the_operators_own_data_is_told_with_who_has_judged_there(
    server: str, tmp_path: Path, place: Place, window: Window
) -> None:
    run = Driven(server, LocalStore(tmp_path / "store", create=True), rounds=9)
    with Board(server, runs=[run.runs.run]) as board, shown_board(server, board, place):
        trains(run)
        page: Any = window.open(place.address, f"/run/{run.runs.run}", wide=1400, high=1800)
        run.open_evaluation([], number=CENTRAL)
        own, line = page.locator(".judged .own"), page.locator(".judged-line")
        expect(own).to_have_text("The model of round 1 is being judged on the operator's own data now.")
        expect(line).to_have_text("Judging the model of round 1 on the operator's own data.")
        run.judge_centrally(5000, {"central/accuracy": 0.75, f"central/{HOSTILE}": 1.0}, 1)
        key = run.key.public.fingerprint
        judged = rf"^On the operator's own data: accuracy 0\.75, {re.escape(HOSTILE)} 1, the model of round 1"
        expect(own).to_have_text(
            re.compile(rf"{judged} \(5,000 examples, at \d\d:\d\d:\d\d, by the aggregator with key {key}\)\.$")
        )
        expect(line).to_have_text("On the operator's own data: accuracy 0.75, the model of round 1.")
        expect(page.locator(".panel.reports")).to_be_hidden()
        expect(page.locator(".judged .note")).to_have_text("central/accuracy 0.75 of the model of round 1")
        of_sites = page.locator(".judged .of-sites")
        expect(of_sites.locator("h3")).to_have_text(
            "The model of round 1, judged on the operator's own data, 5,000 examples"
        )
        expect(of_sites.locator("tbody tr")).to_have_text(["the operator's own data5,0000.751"])
        run.judge({"c1": (10, {"accuracy": 0.5})})
        expect(of_sites.locator("tr.own-row")).to_have_text("the operator's own data5,0000.75")
        rows = page.locator(".evaluations tbody tr")
        expect(rows.nth(0)).to_contain_text("round 1 ✓ best–0.50.51 site")
        expect(rows.nth(1)).to_contain_text("round 1, own datacentral/accuracy 0.75the operator's own data")
        trains(run)
        run.open_evaluation([], number=CENTRAL)
        expect(own).to_contain_text(f"key {key}). The model of round 2 is being judged there now.")


def test_a_run_whose_evaluations_fail_says_so_above_and_in_the_table(
    server: str, tmp_path: Path, place: Place, window: Window
) -> None:
    run = Driven(server, LocalStore(tmp_path / "store", create=True), rounds=9)
    with Board(server, runs=[run.runs.run]) as board, shown_board(server, board, place):
        page: Any = window.open(place.address, f"/run/{run.runs.run}", wide=1400, high=1800)
        for _ in range(2):
            trains(run)
            run.open_evaluation(["c1"])
            view = run.runs.read_evaluation(run.round, AUTOMATIC)
            assert view is not None
            run.runs.give_up_evaluation("coordinator", view, f"the model of round {run.round}: {HOSTILE} ended")
        expect(page.locator(".stand .todo > li", has_text="have no result")).to_have_text(
            f"! The last 2 evaluations by the sites have no result, the newest: the model of round 2: {HOSTILE} ended"
        )
        rows = page.locator(".evaluations tbody tr")
        expect(rows).to_have_count(2)
        expect(rows.first).to_contain_text(f"round 2no result: the model of round 2: {HOSTILE} ended")
        expect(rows.first.locator("td.todo")).to_be_visible()
        trains(run)
        run.judge({"c1": (10, {"accuracy": 0.5})})
        expect(rows).to_have_count(3)
        expect(rows.first).to_contain_text("round 3 ✓ best")
        expect(page.locator(".stand .todo > li", has_text="have no result")).to_have_count(0)


def test_all_evaluations_say_who_has_judged_which_model(
    server: str, tmp_path: Path, place: Place, window: Window
) -> None:
    run = Driven(server, LocalStore(tmp_path / "store", create=True), rounds=99, select="accuracy:max")
    for number in range(13):
        trains(run)
        loss = {"loss": number / 10} if number < 12 else {}
        run.judge(
            {"c1": (10, {"accuracy": 0.9 - abs(number - 5) / 100, **loss}), "c2": (10, {"accuracy": 0.5, **loss})},
            {"c3": f"it is {HOSTILE}"} if number == 12 else {},
            skipped=["c8", "c9"] if number == 12 else [],
        )
    with Board(server, runs=[run.runs.run]) as board, shown_board(server, board, place):
        page: Any = window.open(place.address, f"/run/{run.runs.run}", wide=1400, high=1800)
        table = page.locator(".evaluations")
        rows = table.locator("tbody tr")
        expect(rows).to_have_count(10)
        expect(table.locator("thead")).to_contain_text("accuracy")
        digest = run.runs.read_evaluation(13, AUTOMATIC).model.model.digest[:10]  # type: ignore[union-attr]
        expect(rows.first).to_contain_text("round 13–0.6650.5 c22 of 3 sites (1 refused or missing, 2 without")
        expect(rows.first.locator("td.mono")).to_have_text(f"{digest}…")
        rows.first.locator("summary").press("Enter")
        expect(rows.first.locator("li")).to_have_text([f"c3: it is {HOSTILE}", "Without an evaluator: c8, c9."])
        best = table.locator(".best-mark")
        expect(best).to_have_text(" ✓ best")
        expect(rows.filter(has=page.locator(".best-mark"))).to_contain_text("round 6")
        expect(best).to_have_attribute("data-tip", "The best model by --select, by accuracy.")
        older = table.get_by_role("button", name="Older evaluations")
        box: Any = older.bounding_box()
        assert box["width"] > 2 * box["height"], "it was one letter wide"
        older.press("Enter")
        expect(rows).to_have_count(13)
        expect(older).to_be_hidden()
        page.locator(".judged").get_by_role("combobox", name="Metric").select_option("loss")
        expect(rows).to_have_count(10)
        expect(rows.nth(1)).to_contain_text("round 12–1.11.1")
        expect(rows.first).to_contain_text("round 13–––2 of 3 sites")
        rows.nth(9).get_by_role("button", name="round 4", exact=True).press("Enter")
        of_sites = page.locator(".judged .of-sites")
        expect(of_sites.locator("h3")).to_have_text("The model of round 4, judged by 2 sites, 20 examples")
        expect(of_sites.locator("tbody tr").first).to_have_text("c1100.880.3")


def test_wide_tables_are_whole_or_say_that_they_go_on(
    server: str, tmp_path: Path, place: Place, window: Window
) -> None:
    """Two of them stood side by side and were cut; the commands below named no metric, and not the result folder."""
    run = Driven(server, LocalStore(tmp_path / "store", create=True), select="accuracy:max", rounds=9)
    folder = "my results"
    more = "accuracy_of_head_"
    metrics = {f"{more}{number}": 0.5 for number in range(8)}
    with Board(server, runs=[run.runs.run], folder=folder) as board, shown_board(server, board, place):
        trains(run)
        run.judge({"c1": (100, {"accuracy": 0.5, **metrics}), "c2": (300, {"accuracy": 0.9, **metrics})})
        page: Any = window.open(place.address, f"/run/{run.runs.run}", wide=400, high=1800)
        for wide in (400, 1280, 2200, 3840):
            page.set_viewport_size({"width": wide, "height": 1800})
            is_whole = wide > 400
            for name in ("What each site has measured", "All evaluations"):
                box = page.get_by_role("group", name=name)
                expect(box.locator("tbody tr").first).to_be_visible()
                hint = box.locator("xpath=following-sibling::*[1]")
                expect(hint).to_have_text("The table goes on to the right →")
                expect(hint).to_be_visible(visible=not is_whole)
                assert box.evaluate("(box) => box.scrollWidth <= box.clientWidth + 1") is is_whole, (
                    f"{name} at {wide} px"
                )
        judged = page.locator(".panel.judged")
        expect(judged.locator(".of-sites .quiet").first).to_have_text(
            f"3 further metrics: {more}5, {more}6 and {more}7. "
            f"In a terminal: flavor results '{folder}' --metric {more}5"
        )
        expect(judged.locator(".foot code")).to_have_text(f"flavor results '{folder}'")
        settings = page.locator(".settings")
        settings.scroll_into_view_if_needed()
        expect(settings.locator("dl").first).to_contain_text("evaluateevery")


def test_models_that_no_round_has_made_are_named(server: str, tmp_path: Path, place: Place, window: Window) -> None:
    run = Driven(server, LocalStore(tmp_path / "store", create=True), rounds=9)
    trains(run)
    run.judge({"c1": (10, {"accuracy": 0.5})})
    subjects = [
        None,
        Subject(SubjectKind.UPDATE, 1, "c1"),
        Subject(SubjectKind.WITHOUT, 1, "c1"),
        Subject(SubjectKind.UNKNOWN, site="c1"),
        Subject(SubjectKind.UNKNOWN),
    ]
    run.judge({"c1": (10, {"accuracy": 0.6})}, number=2)
    own = "Judged: accuracy 0.5 by 1 site, the model of round 1."
    for number, subject in enumerate(subjects, 1):
        summary = EvaluationSummary(0, number, 1, metrics={"accuracy": 0.1}, of=subject)
        run.runs.redis.rpush(run.runs.keys.evaluated, summary.closed_at(run.runs.now_ms()))
    with Board(server, runs=[run.runs.run]) as board, shown_board(server, board, place):
        page: Any = window.open(place.address, f"/run/{run.runs.run}", wide=1400, high=1800)
        names = page.locator(".evaluations tbody td:first-child button")
        words = [(subject or Subject.of_round(0)).words for subject in subjects]
        asked = [f"{words[number - 1]}, asked for ({number})" for number in (5, 4, 3, 2, 1)]
        expect(names).to_have_text([*asked, "round 1, asked for (2)", "round 1"])
        expect(page.locator(".judged-line")).to_have_text(
            f"{own} Judged: accuracy 0.1 by 0 sites that a command has asked, a model from outside."
        )
        names.nth(5).click()
        heading = "The model of round 1, judged by 1 site that a command has asked, 10 examples"
        expect(page.locator(".judged .of-sites h3").filter(has_text=heading)).to_be_visible()
        page.locator(".reports").scroll_into_view_if_needed()
        shown = f"flavor results {run.runs.run}"
        where = f"--json --store {run.store.url}" if run.store else ""
        expect(page.locator(".reports .foot code")).to_have_text(f"{shown} --round 1 --evaluation 2 {where}")
        names.nth(4).click()
        expect(page.locator(".reports .foot code")).to_have_text(f"{shown} --evaluation 1 {where}")


def trains(run: Driven) -> None:
    run.open(["c1"])
    run.accept("c1", 10, {})
    run.close()
