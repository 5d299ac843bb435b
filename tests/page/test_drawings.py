"""The page shows what sites report beside metrics: tables, bars, heatmaps, plots and images, of any round."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from flavor.page.server import Place
from flavor.page.shown import shown_board
from flavor.programs.result_file import Written
from flavor.records.evaluation import CENTRAL
from flavor.store.local import LocalStore
from flavor.view.board import Board
from tests.driven import Driven
from tests.infos import png
from tests.page.conftest import Window, expect
from tests.page.made_up import HOSTILE, SCRIPT
from tests.page.test_page import SIDEWAYS, WIDTHS, look
from tests.reported import results_of_a_site, written

TURNED = "\u202eabc"


class Shown:
    """A run that is driven by the test, and shown."""

    def __init__(self, server: str, folder: Path, place: Place, stack: ExitStack) -> None:
        self.folder = folder
        self.run = Driven(server, LocalStore(folder / "store", create=True), rounds=99)
        self.place = place
        board = stack.enter_context(Board(server, runs=[self.run.runs.run]))
        stack.enter_context(shown_board(server, board, self.place))

    def judge(self, reports: dict[str, Written], missing: dict[str, str] | None = None) -> None:
        """Train one more round, and have c1 to c3 judge its model."""
        self.run.open(["c1"])
        self.run.accept("c1", 10, {})
        self.run.close()
        self.run.judge({f"c{n}": (10, {"accuracy": 0.5 + n / 10}) for n in (1, 2, 3)}, missing or {}, reports=reports)

    def report(self, site: str, results: dict[str, Any], **images: bytes) -> Written:
        files = {f"{name}.png": data for name, data in images.items()}
        return written(self.folder / f"{site}-{self.run.round}", results, files)

    def typical(self) -> dict[str, Written]:
        """Reports of c1 and c2."""
        return {f"c{n}": self.report(f"c{n}", results_of_a_site(0.02 * n), slice=png(10 + n, 8)) for n in (1, 2)}

    def open(self, window: Window, **size: Any) -> Any:
        page = window.open(self.place.address, f"/run/{self.run.runs.run}", **size)
        page.locator(".panel.reports").scroll_into_view_if_needed()
        return page


@pytest.fixture
def shown(server: str, tmp_path: Path, place: Place) -> Iterator[Shown]:
    with ExitStack() as stack:
        yield Shown(server, tmp_path, place, stack)


def test_reports_are_drawn_merged_and_by_site(shown: Shown, window: Window) -> None:
    shown.judge(shown.typical())
    page = shown.open(window)
    reports = page.locator(".panel.reports")
    about = "2 of 3 sites have reported tables, plots or images. The evaluation is signed by the aggregator with key "
    expect(reports.locator(".body > .quiet")).to_have_text(f"{about}{shown.run.key.public.fingerprint}.")
    figures = reports.locator(".body > .figures > figure")
    expect(figures.locator("h4")).to_have_text(["Overall", "Class 1", "Confusion matrix"])
    expect(figures.nth(0)).to_contain_text("the mean of 2 sites")
    expect(figures.nth(0).locator("tr")).to_have_text(["accuracy0.73", "auc0.83"])
    expect(figures.nth(1).locator("tr")).to_have_text(["precision0.79", "recall0.89", "gain over the last model-0.1"])
    expect(figures.nth(2)).to_contain_text("the sum of 2 sites · down: truth · across: prediction")
    expect(figures.nth(2).locator("tr")).to_have_text(["benignmalignant", "benign20610", "malignant24120"])
    apart = reports.locator(".apart section")
    expect(apart.locator("h3")).to_have_text(["Correlations", "ROC", "A slice that the model misses"])
    expect(apart.nth(0)).to_contain_text("heatmap by site: its merge is 'none'.")
    expect(apart.nth(0).locator("figure h4")).to_have_text(["c1", "c2"])
    expect(apart.nth(0).locator("figure").first.locator("tr").nth(2)).to_have_text("size0.31–")
    expect(apart.nth(1).get_by_role("img")).to_have_count(2)
    expect(apart.nth(1).get_by_role("img").first).to_have_attribute(
        "aria-label",
        "Plot of ROC: malignant, 21 points; chance, 2 points, from 0 to 1 across and 0 to 1 up",
    )
    values = apart.nth(1).locator("details").first
    values.locator("summary").press("Enter")
    expect(values.locator("tbody tr")).to_have_count(23)
    expect(values.locator("tbody tr").nth(1)).to_have_text(re.compile(r"^malignant0\.050\.4"))
    image = apart.nth(2).get_by_role("img", name="A slice that the model misses of c2")
    image.scroll_into_view_if_needed()
    page.wait_for_function("(each) => each.complete && each.naturalWidth === 12", arg=image.element_handle())
    reports.get_by_role("combobox", name="Whose report").select_option("c2")
    expect(figures.locator("h4")).to_have_count(6)
    expect(figures.nth(0)).to_contain_text("c2")
    expect(figures.nth(0).locator("tr")).to_have_text(["accuracy0.74", "auc0.84"])
    expect(apart).to_have_count(0)


def test_the_report_of_the_newest_round_is_shown_unless_another_one_is_chosen(shown: Shown, window: Window) -> None:
    def judge(n: int, site: str = "c1") -> None:
        shown.judge({site: shown.report(site, {"tables": [{"title": f"of {n}", "labels": ["x"], "values": [n]}]})})

    judge(1)
    page = shown.open(window)
    reports, judged = page.locator(".panel.reports"), page.locator(".panel.judged")
    title = reports.locator(".body > .figures h4")
    expect(title).to_have_text("of 1")
    judge(2)
    expect(title).to_have_text("of 2")
    which = reports.get_by_role("combobox", name="Evaluation")
    expect(which.locator("option")).to_have_text(["round 2", "round 1"])
    judged.get_by_role("button", name="Report of round 1").press("Enter")
    expect(title).to_have_text("of 1")
    expect(which).to_have_value(re.compile("^1 0 "))
    expect(reports.locator(".foot code")).to_contain_text("--round 1 --json")
    expect(reports).to_be_focused()
    expect(judged.locator(".of-sites h3")).to_contain_text("The model of round 1, judged by 3 sites")
    expect(judged.get_by_role("button", name="round 1", exact=True)).to_have_attribute("aria-pressed", "true")
    judge(3, "c2")
    expect(which.locator("option")).to_have_text(["round 3", "round 2", "round 1"])
    expect(title).to_have_text("of 1"), "what a reader has chosen stays"
    judged.get_by_role("button", name="Show the newest").press("Enter")
    expect(title).to_have_text("of 3")
    which.select_option(label="round 2")
    expect(title).to_have_text("of 2")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_evaluations_and_reports_at_three_widths(shown: Shown, window: Window, scheme: str) -> None:
    shown.judge(shown.typical(), {"c4": "its evaluator ended (exit code 3)"})
    shown.run.open_evaluation([], number=CENTRAL)
    shown.run.judge_centrally(50, {"central/accuracy": 0.61}, 1)
    page = shown.open(window, wide=WIDTHS[0][0], high=WIDTHS[0][1], scheme=scheme)
    page.locator(".judged .evaluations summary").click()
    for wide, high in WIDTHS:
        page.set_viewport_size({"width": wide, "height": high})
        page.locator(".reports .apart figure img").last.scroll_into_view_if_needed()
        expect(page.locator(".judged .evaluations tbody tr")).to_have_count(2)
        expect(page.locator(".judged .evaluations li")).to_have_text("c4: its evaluator ended (exit code 3)")
        assert page.evaluate(SIDEWAYS) <= 0, f"at {wide} px it scrolls sideways"
        assert page.evaluate(look("nameless")) == []
        assert page.evaluate(look("cut")) == [], f"at {wide} px"
        assert page.evaluate(look("contrast")) == [], f"at {wide} px"


def hostile() -> dict[str, Any]:
    """Markup in all texts, the longest ones, 10,000 rows, values that are no numbers or too large, empty entries."""
    long = "W" * 100
    numbers = [1e300, -1e300, float("nan"), float("inf"), None, 1e-300, 0]
    return {
        "tables": [
            {"title": HOSTILE, "labels": [f"{SCRIPT}{n}" for n in range(300)], "values": [None, *range(299)]},
            {"title": "", "labels": [long, "accuracy by flavor"], "values": numbers[:2]},
            {"title": "none", "labels": [], "values": []},
        ],
        "bars": [
            {
                "title": long,
                "labels": [str(n) for n in range(7)],
                "values": numbers,
                "y-axis": TURNED.replace("\u202e", ""),
            },
            {"title": HOSTILE, "labels": [f"{SCRIPT}{n}" for n in range(10_000)], "values": [None, *range(9_999)]},
            {"title": "empty", "labels": [], "values": []},
        ],
        "heatmaps": [
            {
                "title": SCRIPT,
                "x-labels": [long + str(n) for n in range(90)],
                "y-labels": ["a", HOSTILE],
                "values": [[numbers[n % 7] for n in range(90)]] * 2,
                "merge": "sum",
            },
            {"title": "nothing", "x-labels": [], "y-labels": [], "values": []},
        ],
        "plots": [
            {
                "title": HOSTILE,
                "labels": [long, SCRIPT, *map(str, range(30))],
                "x-values": [numbers, list(range(5000)), *[[0]] * 30],
                "y-values": [numbers[::-1], [0.5] * 5000, *[[1]] * 30],
                "x-axis": HOSTILE,
            },
            {"title": "no line", "labels": [], "x-values": [], "y-values": []},
            {"title": "no point", "labels": ["a"], "x-values": [[]], "y-values": [[]]},
            {"title": "one place", "labels": ["a"], "x-values": [[3, 3]], "y-values": [[0, 0]]},
            {"title": "close", "labels": ["a"], "x-values": [[1e15, 1e15 + 1]], "y-values": [[1, 1 + 1e-15]]},
        ],
        "images": [{"title": HOSTILE, "filename": "x.png"}],
    }


@pytest.mark.parametrize("wide", [400, 1280, 3840])
def test_a_hostile_report_stays_text_and_in_its_place(shown: Shown, window: Window, wide: int) -> None:
    shown.judge({"c1": shown.report("c1", hostile(), x=png(16, 9)), **{"c2": shown.report("c2", hostile(), x=png())}})
    page = shown.open(window, wide=wide, high=900)
    reports = page.locator(".panel.reports")
    expect(reports.locator(".body > .figures figure")).to_have_count(6)
    expect(reports.locator(".apart section")).to_have_count(8)
    first = reports.locator("figure.bars").nth(1)
    expect(first.locator("h4")).to_have_text(HOSTILE)
    expect(first.locator("tr")).to_have_count(100)
    expect(first.locator("tr").first).to_have_text(f"{SCRIPT}0–")
    expect(reports.locator("figure.tables").first).to_contain_text("Show 200 more of 300 rows")
    more = first.get_by_role("button", name="Show 500 more of 2,000 rows")
    more.press("Enter")
    expect(first.locator("tr")).to_have_count(600)
    expect(first).to_contain_text("8,000 more rows not shown here: the command below has all.")
    heat = reports.locator(".apart figure.heatmaps").first
    expect(heat).to_contain_text("2 × 64 of 2 × 90 cells")
    reports.get_by_role("combobox", name="Whose report").select_option("c1")
    expect(reports.locator(".body > .figures figure")).to_have_count(14)
    plot = reports.locator("figure.plots").first
    expect(plot).to_contain_text("20 more lines not drawn; of lines with up to 5,000 points, some points are left out")
    expect(plot.locator("li")).to_have_count(12)
    drawn = reports.locator("svg.lines path, svg.lines circle, svg.lines text")
    assert not [each for each in drawn.evaluate_all("(all) => all.map((each) => each.outerHTML)") if "NaN" in each]
    image = reports.get_by_role("img", name=f"{HOSTILE} of c1")
    image.scroll_into_view_if_needed()
    page.wait_for_function("(each) => each.complete && each.naturalWidth === 16", arg=image.element_handle())
    assert page.evaluate(
        "() => [window.hit, document.querySelectorAll('.reports script, .reports [onerror]').length]"
    ) == [
        None,
        0,
    ]
    assert page.evaluate(SIDEWAYS) <= 0
    assert page.evaluate(look("nameless")) == []


def test_an_image_is_served_as_what_it_is_and_only_where_it_was_reported(shown: Shown, window: Window) -> None:
    shown.judge(shown.typical())
    page = shown.open(window)
    address = page.locator(".reports figure img").first.get_attribute("src")
    assert address is not None
    answer = page.request.get(shown.place.address.rstrip("/") + address)
    headers = answer.headers
    assert (answer.status, answer.body(), headers["content-type"]) == (200, png(11, 8), "image/png")
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert "default-src 'none'" in headers["content-security-policy"]
    for old, new, status in (
        ("site=c1", "site=c2", 404),
        ("site=c1", "site=..%2Fc1", 404),
        ("round=1", "round=x", 400),
    ):
        assert old in address
        assert page.request.get(shown.place.address.rstrip("/") + address.replace(old, new)).status == status
    window.complaints.clear()


def test_a_run_without_reports_says_how_they_come(shown: Shown, window: Window) -> None:
    shown.judge({})
    reports = shown.open(window).locator(".panel.reports")
    expect(reports.locator(".figures")).to_have_text(
        re.compile("^No site has reported more than metrics. An evaluator")
    )
    expect(reports.get_by_role("combobox", name="Whose report")).to_be_hidden()


def test_reports_that_are_gone_from_the_store_are_told(shown: Shown, window: Window) -> None:
    shown.judge(shown.typical())
    store = Path(str(shown.run.store.url).removeprefix("file://"))  # type: ignore[union-attr]
    for path in store.rglob("*report-c1*"):
        path.unlink()
    for path in store.rglob("*image-c2*"):
        path.unlink()
    page = shown.open(window)
    reports = page.locator(".panel.reports")
    expect(reports.locator(".body > .quiet")).to_contain_text("1 of 3 sites has reported")
    expect(reports.locator(".body > .quiet")).to_contain_text("Not shown: c1 (")
    gone = reports.locator("figure.images")
    gone.scroll_into_view_if_needed()
    expect(gone).to_contain_text("The image cannot be read: it is no longer in the store, or was changed there.")
    assert json.loads(page.request.get(f"{shown.place.address}api/runs").body())
