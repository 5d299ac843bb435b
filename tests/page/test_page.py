"""The page in a real browser, of made-up runs: what people see, read, click and type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flavor.page.app import Page as Served
from flavor.page.server import Place, bound, serving
from flavor.view.timeline import Outcome
from tests.page.conftest import Window, expect, unknown
from tests.page.made_up import (
    HOSTILE,
    LONG,
    MINUTE_MS,
    SCRIPT,
    MadeUp,
    Past,
    client,
    document,
    ended,
    every,
    hostile,
    mammo,
    many,
    now_ms,
    wide,
    young,
)

Serve = Callable[[Sequence[dict[str, Any]]], tuple[MadeUp, Place]]
WIDTHS = ((400, 800), (1280, 800), (3840, 1000))

CUT = "(each) => each.scrollWidth > each.clientWidth"
SIDEWAYS = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def look(name: str) -> str:
    """Return a function of JavaScript that looks at the page."""
    return (Path(__file__).parent / "looks" / f"{name}.js").read_text()


PAGES = {
    "/": "Runs",
    "/run/mammo": "mammo",
    "/run/young": "young",
    "/run/hostile": "hostile",
    "/queue": "Aggregators and their queue",
    "/compare?runs=digits-a,digits-b": "Compare runs",
}


def test_each_page_at_three_widths(served: Serve, window: Window) -> None:
    _, place = served(every())
    for path, heading in PAGES.items():
        page = window.open(place.address, path)
        for wide_, high in WIDTHS:
            page.set_viewport_size({"width": wide_, "height": high})
            expect(page.get_by_role("heading", level=1, name=heading)).to_be_visible()
            expect(page.locator("#live")).to_have_text("● live")
            if path.startswith("/run/"):
                expect(page.locator(".waits")).not_to_have_text("")
                expect(page.locator(".rounds .pointed")).not_to_have_text("")
            assert page.evaluate(SIDEWAYS) <= 0, f"{path} at {wide_} px scrolls sideways"
            assert page.evaluate(look("nameless")) == [], path
            assert page.evaluate(look("cut")) == [], f"{path} at {wide_} px"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(served: Serve, window: Window, scheme: str) -> None:
    _, place = served(every())
    for path in ("/run/mammo", "/"):
        page = window.open(place.address, path, scheme=scheme)
        expect(page.locator(".sites .item, .run").nth(3)).to_be_visible()
        assert page.evaluate(look("contrast")) == []
    ground = page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == (scheme == "dark")


def test_a_run_in_sentences_above_the_fold(served: Serve, window: Window) -> None:
    source, place = served([mammo(), young()])
    page = window.open(place.address, "/run/mammo", high=800)
    expect(page.locator(".stand .waits")).to_have_text(
        "Round 12: 2 of 4 updates accepted, waiting for site-3; without site-4: NaN in fc.weight"
    )
    expect(page.locator(".stand .lasts")).to_have_text(re.compile(r"^, for (6|7) min\.$"))
    more = page.locator(".stand .more").first
    expect(more).to_contain_text("Waiting for site-3 to finish training (61 %, it usually takes 9:10, now 1")
    expect(more).to_contain_text(
        re.compile(r"Closes with 3 of 4 sites at (?:\d\d? \w{3} )?\d\d:\d\d \(in 1\d min\), or when all are in\.")
    )
    expect(page.locator(".stand .times")).to_have_text(re.compile(r"^began 2 h 1\d min ago · about 6 h \d\d min left$"))
    expect(page.locator(".stand .state")).to_have_text("●running")
    expect(page.locator(".stand .gains")).to_have_text(
        "Model: val_auc 0.9412, reported in round 11; the best was 0.9446, reported in round 9, which began from the "
        "model of round 8 (flavor get mammo --round 8)."
    )
    assert page.locator(".stand .gains").bounding_box()["y"] < 400
    assert page.locator(".sites .item").first.bounding_box()["y"] < 800
    assert page.locator(".waits").get_attribute("aria-live") == "polite"
    rows = page.locator(".sites .item")
    expect(rows).to_have_count(4)
    expect(rows.nth(0)).to_contain_text("refused (2 times)")  # who needs attention comes first
    expect(rows.locator(".cell.metric .value")).to_have_text(["0.93round 11", "0.902round 11", "0.941", "0.941"])
    expect(rows.nth(1)).to_contain_text("training")
    expect(rows.nth(1)).to_contain_text("61 % 310/508")
    expect(rows.nth(1)).to_contain_text(re.compile(r"1[45]:\d\d \(9:10\)"))
    assert page.locator(".foot code").all_inner_texts() == [
        "flavor status mammo --json",
        "flavor status mammo",
        "flavor export mammo --to csv metrics.csv",
        "flavor log mammo --follow",
        'rq info --serializer json --url "$FLAVOR_REDIS_URL"',
        "flavor contributions mammo",
        "flavor status mammo --json",
        "flavor verify mammo",
    ]
    assert [wrong for each in page.locator(".foot code").all_inner_texts() for wrong in unknown(each)] == []
    best = {"round": 11, "value": 0.9412}
    source.patch(
        "mammo", {"best": best, "absent": ["no coordinator serves it: start `flavor serve --run mammo …` again"]}
    )
    expect(page.locator(".stand .gains")).to_have_text(
        "Model: val_auc 0.9412, the best so far, reported in round 11, which began from the model of round 10 "
        "(flavor get mammo --round 10)."
    )
    source.patch("mammo", {"best": {"rounds": 5}})
    expect(page.locator(".stand .gains")).to_contain_text("0.9412, the best of the 5 rounds that can be read, reported")
    expect(page.locator(".stand ul.todo li")).to_have_text(
        "! No coordinator serves it: start `flavor serve --run mammo …` again"
    )
    source.patch("mammo", {"holds_ms": now_ms() - 1000, "clients": {"site-3": {"reported_ms": now_ms() - 270_000}}})
    expect(page.locator(".stand .times")).to_have_text(re.compile(r"^began 2 h 1\d min ago$"))  # it may hang
    expect(rows.nth(1)).to_contain_text(re.compile(r"61 % 310/508, reported 4 min 3\d s ago, began 1\d min ago"))


def test_what_a_site_says_stays_text(served: Serve, window: Window) -> None:
    source, place = served([hostile()])
    source.entry("hostile", "update.refused", LONG, client=HOSTILE)
    page = window.open(place.address, "/run/hostile")
    expect(page.locator(".toggle .label")).to_have_text([HOSTILE, "s" * 64, "__proto__", "constructor"])
    page.locator(".toggle").nth(0).click()
    details = page.locator(".details")
    expect(details.locator(".reason").first).to_have_text(LONG)
    expect(details).to_contain_text(SCRIPT)
    expect(details.locator(".foot code")).to_have_text(f"flavor log hostile --client '{HOSTILE}'")
    page.locator(".toggle").nth(2).click()
    expect(page.locator(".item.opened").nth(1)).to_contain_text(SCRIPT)
    page.locator(".strip").click(position={"x": 60, "y": 70})
    expect(page.locator(".timeline .who").first).to_be_visible()
    expect(page.locator(".scroll .log li").nth(1)).to_contain_text(SCRIPT)
    page.locator(".scroll .all").first.click()
    expect(page.locator(".scroll .words").first).to_have_text(LONG)
    page.goto(f"{place.address}compare?runs=hostile")
    expect(page.get_by_role("link", name="hostile")).to_be_visible()
    page.goto(place.address)
    expect(page.locator(".run .sentence")).to_contain_text(SCRIPT)
    assert page.evaluate("() => [document.images.length, window.hit]") == [0, None]
    assert page.locator("b, main script").count() == 0


def test_changes_arrive_in_place(served: Serve, window: Window) -> None:
    source, place = served([mammo()])
    page = window.open(place.address, "/run/mammo")
    names = page.locator(".toggle .label")
    expect(names).to_have_text(["site-4", "site-3", "site-1", "site-2"])
    page.evaluate("() => { window.kept = document.querySelectorAll('.sites .item')[1]; }")
    source.patch(
        "mammo",
        {
            "clients": {
                "site-3": {
                    "doing": "uploading",
                    "transfer": {"done_bytes": 61e6, "total_bytes": 126e6, "bytes_s": 2.1e6},
                },
                "site-1": {"phase": "gone", "alive": False, "reason": "its heartbeat stopped"},
            }
        },
    )
    row = page.locator(".sites .item").nth(1)
    expect(row).to_contain_text("61 of 126 MB, 2.1 MB/s")
    expect(row.locator(".state .word")).to_have_text("uploading")
    expect(page.locator(".sites .item").nth(2)).to_contain_text("gone")
    expect(names).to_have_text(["site-4", "site-3", "site-1", "site-2"])  # rows keep their places
    assert page.evaluate("() => window.kept === document.querySelectorAll('.sites .item')[1]")
    stale = "trained from the model of round 3, 2 rounds ago"
    source.patch("mammo", {"clients": {"site-2": {"task_round": 4, "staleness": stale}}, "closes_early": True})
    expect(page.locator(".sites .item").nth(3)).to_contain_text(stale)
    expect(page.locator(".stand .more").first).to_contain_text(
        "Closes with the first 3 updates of 4 sites; the deadline"
    )
    warned = client("starting") | {"warning": "a tensor that stays at the site is equal to one that is shared"}
    source.patch("mammo", {"clients": {"site-0": warned}, "waits_for": "waiting for an aggregator"})
    expect(names).to_have_text(["site-4", "site-3", "site-1", "site-2", "site-0"])
    expect(page.locator(".sites .item").nth(4)).to_contain_text("stays at the site is equal to one that is shared")
    expect(page.locator(".waits")).to_have_text("Round 12: waiting for an aggregator")
    page.get_by_role("button", name="State").click()  # sorts anew, when asked to
    expect(names).to_have_text(["site-4", "site-1", "site-3", "site-0", "site-2"])
    expect(page.locator(".rounds .note")).to_have_text("11 rounds closed")
    source.close_round("mammo")
    expect(page.locator(".rounds .note")).to_have_text("12 rounds closed")
    expect(page.locator(".model .note")).to_have_text(re.compile(r"^val_auc 0\.\d+ in round 12$"))
    expect(page.locator(".strip")).to_have_attribute("aria-valuetext", re.compile("^Round 13 · open for"))


def test_what_is_not_known_is_not_said_to_be_nothing(served: Serve, window: Window) -> None:
    """Rounds that could not be read, while Redis is away, and bytes from before the run was rebuilt."""
    source, place = served([mammo()])
    whole = source.histories["mammo"]
    source.histories["mammo"] = Past([], [])  # type: ignore[assignment]
    state = source.documents["mammo"]["round_state"]
    source.patch("mammo", {"round_state": "closed"})
    page = window.open(place.address, "/run/mammo")
    expect(page.locator(".rounds .pointed")).to_have_text("The rounds are shown once Redis has been read.")
    source.patch("mammo", {"round_state": state})
    expect(page.locator(".rounds .note")).to_have_text("the closed rounds are not read yet")
    expect(page.locator(".sites .note").first).to_contain_text("down in all, as the sites say")
    source.histories["mammo"] = whole
    source.patch("mammo", {"recovered_ms": now_ms() - 1000})
    expect(page.locator(".sites .note").first).to_contain_text("down in all since the run was rebuilt")
    row = page.locator(".sites .item").first
    expect(row.locator(".cell.moved")).to_have_attribute("title", re.compile(r"^since \d+ \w+ \d{4} \d\d:\d\d"))
    row.locator(".toggle").click()
    expect(row.locator(".details")).to_contain_text(re.compile(r"451 MB / 492 MB since (\d+ \w+ )?\d\d:\d\d:\d\d"))
    page = window.open(place.address, "/run/mammo")
    expect(page.locator(".rounds .note")).to_have_text("11 rounds closed")


def test_what_is_wrong_is_told_above_the_fold_and_nothing_else(served: Serve, window: Window) -> None:
    """A site that is gone is named, a fault stays red once the log has it, and no site is late in its first moments."""
    reason = "no aggregator listens on queue 'flavor': start one with `flavor-agg`"
    source, place = served([mammo()])
    page = window.open(place.address, "/run/mammo", wide=1300)
    more = page.locator(".stand .more").first
    expect(page.locator(".stand .says")).not_to_have_class(re.compile("lacking"))
    expect(more).not_to_contain_text("Without")
    gone = {"phase": "gone", "alive": False, "reason": "its heartbeat stopped"}
    source.patch("mammo", {"waits_for": reason, "absent": [reason], "clients": {"site-1": gone}})
    expect(page.locator(".stand .says")).to_have_class(re.compile("lacking"))
    expect(page.locator(".stand .state")).to_have_text("!running")
    expect(more).to_contain_text("Without site-1 (gone).")
    slow = {"this_round": "pending", "phase": "training", "alive": True, "doing": "training", "median_s": 600.0}
    times = {"opened_ms": now_ms() - 5000, "worked_from_ms": now_ms() - 5000}
    source.patch("mammo", {**times, "clients": {"site-2": slow, "site-3": slow}, "waits_for": "waiting"})
    expect(more).to_contain_text(re.compile(r"Waiting for site-2 and site-3 \(now [\d.]+ s\)\."))
    expect(more).not_to_contain_text("latest")
    source.patch("mammo", {"absent": []})
    expect(page.locator(".stand .state")).to_have_text("●running")
    expect(page.locator(".stand .says")).not_to_have_class(re.compile("lacking"))
    source.patch("mammo", {"held": True})
    expect(page.locator(".stand .state")).to_have_text("!running")
    expect(page.locator(".stand .state")).to_have_class(re.compile("todo"))
    expect(page.locator(".stand .says")).to_have_class(re.compile("lacking"))
    source.patch("mammo", {"held": False})
    expect(page.locator(".stand .state")).to_have_text("●running")
    expect(more).to_contain_text("Closes with 3 of 4 sites")
    source.patch("mammo", {"needed": 4})
    expect(more).not_to_contain_text("Closes")  # one was refused
    source.patch("mammo", {"needed": 3})
    reported = {"doing": "uploading", "reported": {"done": 10, "total": 10}, "transfer": None}
    source.patch("mammo", {"clients": {"site-2": reported, "site-3": {"this_round": "accepted", "phase": "done"}}})
    expect(more).to_contain_text(re.compile(r"Waiting for site-2 to send its update \(it usually"))
    expect(page.locator(".sites .item").filter(has_text="site-2")).not_to_contain_text("10/10")
    why = '"it waits for the object store, which cannot be used for now"'
    source.patch("mammo", {"clients": {"site-1": {"phase": "training", "alive": True, "reason": why}}})
    row = page.locator(".sites .item").filter(has_text="site-1")
    expect(row.locator(".why")).to_have_text(why)
    assert not row.locator(".why").evaluate(CUT)
    before = row.locator(".lasts").bounding_box()
    assert before["x"] + before["width"] <= row.locator(".why").bounding_box()["x"], "it lies on the words before"
    assert row.locator(".why").evaluate("(each) => each.scrollHeight <= each.clientHeight + 1"), "it is not cut"
    source.patch("mammo", {"clients": {"site-1": {"metrics_round": 9, "metrics": {"val_auc": 0.00001234}}}})
    expect(row.locator(".cell.metric .of")).to_have_text("round 9")
    edges = [row.locator(f".cell.metric {inner}").bounding_box()["x"] for inner in (".value", ".of")]
    assert min(edges) >= row.locator(".cell.metric").bounding_box()["x"] - 1, "it touches the column before"


def test_new_events_wait_for_one_who_has_scrolled(served: Serve, window: Window) -> None:
    source, place = served([mammo()])
    page = window.open(place.address, "/run/mammo")
    lines = page.locator(".events .log li")
    expect(lines).to_have_count(73)
    source.entry("mammo", "client.joined", "site-9 has joined")
    expect(lines.first).to_contain_text("site-9 has joined")
    box = page.locator(".scroll")
    box.evaluate("(each) => { each.scrollTop = 200; }")
    for number in (1, 2, 3):
        source.entry("mammo", "update.refused", f"round 12: site-{number}: NaN")
    expect(page.locator(".fresh")).to_have_text("↑ 3 new")
    expect(lines).to_have_count(74)
    page.locator(".fresh").click()
    expect(lines.first).to_contain_text("round 12: site-3: NaN")
    expect(page.locator(".fresh")).to_be_hidden()
    page.get_by_role("button", name="refusals").click()
    expect(lines.first).to_contain_text("site-3: NaN")
    expect(page.get_by_role("button", name="refusals")).to_have_attribute("aria-pressed", "true")
    field = page.get_by_role("searchbox", name="Filter events")
    field.fill("site-2: nan")
    expect(lines).to_have_count(1)
    field.press("Escape")
    expect(field).to_have_value("")
    page.get_by_role("button", name="all", exact=True).click()
    page.get_by_role("button", name="Older events").click()
    expect(page.get_by_role("button", name="Older events")).to_be_hidden()
    expect(page.locator(".events .note")).to_have_text("77 events")


def test_a_page_that_is_cut_off_says_so_and_comes_back(served: Serve, window: Window) -> None:
    source = MadeUp([mammo()])
    place = bound("127.0.0.1", 0, token=None)
    with serving(Served(source), place):
        page = window.open(place.address, "/run/mammo")
        expect(page.locator("#live")).to_have_text("● live")
        expect(page.locator(".sites .item")).to_have_count(4)
    expect(page.locator("#live")).to_have_text(re.compile(r"^○ cut off since \d\d:\d\d:\d\d \(\d+ s\), trying again$"))
    expect(page.locator(".waits")).to_contain_text("waiting for site-3")  # what was there stays
    source.patch("mammo", {"waits_for": "being aggregated", "round_state": "aggregating"})
    source.entry("mammo", "round.aggregating", "round 12: 3 of 4 updates")
    with serving(Served(source), bound("127.0.0.1", place.port, token=None)):
        expect(page.locator("#live")).to_have_text("● live")
        expect(page.locator(".waits")).to_have_text("Round 12: being aggregated")
        expect(page.locator(".events .log li").first).to_contain_text("round 12: 3 of 4 updates")
        expect(page.locator(".events .log li")).to_have_count(74)  # each once
        source.breaks("Redis at redis://127.0.0.1:6379 does not answer since 13:01:40")
        panel = page.get_by_role("alert")
        expect(panel).to_contain_text("Redis at redis://127.0.0.1:6379 does not answer since 13:01:40")
        expect(panel).to_contain_text("goes on by itself")
        source.breaks("")
        expect(panel).to_be_hidden()
        source.patch("mammo", {"state": "finished", "reason": "all rounds are closed", "ended_ms": now_ms()})
        expect(page.locator(".waits")).to_have_text("All rounds are closed")
    expect(page.locator("#live")).to_have_text(re.compile(r"^○ not live since \d\d:\d\d:\d\d$"))
    expect(page.locator("#cut")).to_contain_text("flavor ui FOLDER shows it again")


def test_a_run_that_is_removed_under_the_page_is_told_from_a_page_that_has_ended(served: Serve, window: Window) -> None:
    """Also a run that had ended: its page had not."""
    ended = {**mammo(), "run": "ended", "state": "stopped", "ended_ms": now_ms(), "reason": "enough"}
    place = bound("127.0.0.1", 0, token=None)
    with serving(Served(MadeUp([mammo(), ended])), place):
        pages = [window.open(place.address, f"/run/{name}") for name in ("mammo", "ended")]
        for page in pages:
            expect(page.locator("#live")).to_have_text("● live")
            expect(page.locator(".sites .item")).to_have_count(4)
    with serving(Served(MadeUp([])), bound("127.0.0.1", place.port, token=None)):
        for page in pages:
            expect(page.locator("#live")).to_have_text("○ no such run")
            expect(page.locator("#cut")).to_be_hidden()
            expect(page.locator(".problem")).to_contain_text("There is no run")
            expect(page.locator(".sites .item")).to_have_count(4)  # what was there stays
    with serving(Served(MadeUp([mammo(), ended])), bound("127.0.0.1", place.port, token=None)):
        for page in pages:
            expect(page.locator("#live")).to_have_text("● live")
            expect(page.locator(".problem")).to_be_hidden()


def test_a_run_that_goes_while_flavor_ui_stays_is_shown_as_of_then(served: Serve, window: Window) -> None:
    source, place = served([mammo()])
    page = window.open(place.address, "/run/mammo")
    expect(page.locator("#live")).to_have_text("● live")
    source.removes("mammo")
    expect(page.locator(".problem")).to_contain_text("There is no run 'mammo'")
    expect(page.locator("#live")).to_have_text(re.compile(r"^◐ as of \d\d:\d\d:\d\d$"))
    moved = """async () => {
      const loaded = performance.getEntriesByType("resource").map((each) => each.name);
      const [{ now }, begun] = [await import(loaded.find((each) => each.includes("/clock."))), Date.now()];
      const before = now();
      while (Date.now() - begun < 100);
      return now() - before;
    }"""
    assert page.evaluate(moved) == 0, "its clocks stand"


def test_a_run_that_redis_has_lost_is_told_in_the_list(served: Serve, window: Window) -> None:
    source, place = served([mammo(), young()])
    page = window.open(place.address, "/")
    expect(page.locator(".sum")).to_have_text("1 run needs attention · 2 runs in progress · 0 ended")
    reason = "Redis has lost run 'mammo', which had not ended"
    source.patch("mammo", {"state": "lost", "held": True, "waits_for": reason, "sentence": reason})
    row = page.locator(".run").filter(has_text="mammo")
    expect(row.locator(".state")).to_have_text("✕lost")
    expect(row).to_have_class(re.compile("needs"))
    expect(row).to_contain_text(reason)
    expect(page.locator(".sum")).to_have_text("2 runs need attention · 1 run in progress · 0 ended · 1 lost")


def test_a_page_with_a_token(window: Window) -> None:
    source = MadeUp([mammo()])
    place = bound("127.0.0.1", 0, token="the first token")
    with serving(Served(source, token="the first token"), place):
        page = window.open(place.address, "/run/mammo")
        field = page.get_by_label("Token")
        field.fill("another token")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_have_text("This is not the token of this page.")
        page.get_by_label("Token").fill("the first token")
        page.get_by_role("button", name="Log in").click()
        expect(page.locator(".sites .item")).to_have_count(4)
        assert page.url == f"{place.address}run/mammo"
        page.goto(place.address)
        expect(page.locator(".run")).to_have_count(1)
    with serving(Served(source, token="the second token"), bound("127.0.0.1", place.port, token="the second token")):
        expect(page.get_by_label("Token")).to_be_visible()  # an open page asks for the new token


def test_a_hidden_page_gives_its_connection_back(served: Serve, window: Window) -> None:
    source, place = served([mammo()])
    page = window.open(place.address, "/run/mammo")
    expect(page.locator(".sites .item")).to_have_count(4)
    hide = """async (is) => {
      Object.defineProperty(document, "hidden", { value: is, configurable: true });
      const wait = window.setTimeout;
      window.setTimeout = (action, ms) => wait(action, ms === 60000 ? 0 : ms);
      document.dispatchEvent(new Event("visibilitychange"));
      window.setTimeout = wait;
    }"""
    page.evaluate(hide, True)
    while source.streams.count:
        page.wait_for_timeout(20)
    for number in range(250):  # more than a page is told at its beginning
        source.entry("mammo", "client.joined", f"site-{number} has joined")
    page.evaluate(hide, False)
    expect(page.locator(".events .log li").first).to_contain_text("site-249 has joined")
    expect(page.locator(".events .note")).to_have_text("323 events at hand")


def test_fifty_runs(served: Serve, window: Window) -> None:
    source, place = served(many())
    source.ahead_ms = 10 * 24 * 3_600_000
    page = window.open(place.address, "/")
    expect(page.locator(".run")).to_have_count(50)
    expect(page.locator(".run").first).to_contain_text("began 10 d")  # by the clock of the server
    expect(page.locator(".sum")).to_have_text("10 runs in progress · 40 ended")
    expect(page.locator(".run").first).to_contain_text("running")  # what goes on comes first
    assert page.locator(".run .spark polyline[points*=',']").count() == 50
    page.locator("body").press("/")
    field = page.get_by_role("searchbox", name="Filter runs")
    expect(field).to_be_focused()
    field.press_sequentially("failed")
    expect(page.locator(".run")).to_have_count(10)
    field.press("Escape")
    expect(page.locator(".run")).to_have_count(50)
    row = page.locator(".run").filter(has_text="study-05")
    source.patch("study-05", {"held": True, "waits_for": "1 client is needed"})
    expect(row.locator(".state")).to_have_text("!running")
    expect(page.locator(".sum")).to_have_text("1 run needs attention · 10 runs in progress · 40 ended")
    for name in ("study-05", "study-02"):
        page.get_by_role("checkbox", name=f"Compare {name}").check()
    page.get_by_role("link", name="Compare 2 runs").click()
    expect(page.get_by_role("heading", name="Compare runs")).to_be_visible()
    expect(page.locator(".compare tbody").nth(1)).to_contain_text("rounds")
    expect(page.locator(".compare tbody").first).to_contain_text(
        re.compile(r"0\.\d+, reported in round \d+.*Model of the bestthat of round \d+")
    )
    expect(page.get_by_role("img", name=re.compile("val_auc of study-05, study-02"))).to_be_visible()
    expect(page.locator(".model .pointed")).to_have_text(
        re.compile(r"^study-05 0\.\d+ in round 7 · study-02 0\.\d+ in round 40$")  # one of them has fewer rounds
    )
    source.close_round("study-05")
    expect(page.locator(".model .pointed")).to_have_text(re.compile(r"^study-05 0\.\d+ in round 8 · "))  # it is live
    assert [wrong for each in page.locator(".foot code").all_inner_texts() for wrong in unknown(each)] == []
    other = page.get_by_role("group", name="Runs to compare").get_by_role("button", name="study-07")
    other.press("Enter")
    expect(other).to_have_attribute("aria-pressed", "true")
    expect(other).to_be_focused()
    page.go_back()
    expect(page.locator(".run")).to_have_count(50)
    page.get_by_role("link", name="study-07").click()
    expect(page.get_by_role("heading", level=1, name="study-07")).to_be_visible()
    page.locator(".toggle").first.click()
    expect(page.locator(".details .facts").first).to_contain_text("Versions")
    expect(page.locator(".details dt", has_text="State")).to_have_count(0)  # it is not ready for anything any more


def test_two_thousand_sites_and_a_thousand_rounds(served: Serve, window: Window) -> None:
    source, place = served([wide()])
    page = window.open(place.address, "/run/wide")
    expect(page.locator(".sites .note")).to_have_text(
        re.compile(r"^1,9\d\d of 2,000 sites alive · \d+ GB up, \d+ GB down in all, as the sites say$")
    )
    expect(page.locator(".rounds .note")).to_have_text("1,000 rounds closed")
    assert page.locator(".sites .item").count() < 60  # those in sight
    assert page.locator(".strip .bar").count() < 300
    rows = page.locator(".sites .rows")
    rows.evaluate("(each) => { each.scrollTop = each.scrollHeight; }")
    expect(page.locator(".sites .item").last).to_contain_text("accepted")
    field = page.get_by_role("searchbox", name="Filter sites")
    field.fill("clinic-1999")
    expect(page.locator(".sites .item")).to_have_count(1)
    field.fill("")
    page.get_by_role("button", name=re.compile("^need attention")).click()
    expect(page.locator(".sites .item").first).to_contain_text("refused")
    page.get_by_role("button", name=re.compile("^all 2,000")).click()
    source.patch("wide", {"clients": {"clinic-1999": {"phase": "failed", "alive": False, "reason": "out of memory"}}})
    page.get_by_role("button", name="1 site below needs attention: sort again").click()
    expect(page.locator(".sites .label").first).to_have_text("clinic-1999")
    page.locator(".strip").press("Home")
    expect(page.locator(".strip")).to_have_attribute("aria-valuenow", "1")
    page.locator(".strip").press("Enter")
    expect(page.locator(".timeline .lanes").nth(1)).to_be_visible()
    assert page.locator(".timeline .lanes").count() < 60


def test_a_round_in_which_the_run_had_ended_says_so(served: Serve, window: Window) -> None:
    times = {"opened_ms": now_ms() - 120_000, "paused_ms": 100_000, "worked_from_ms": now_ms() - 20_000}
    source, place = served([{**mammo(), **times}])
    past = source.histories["mammo"]
    row = past.closed[9] = replace(past.closed[9], paused_ms=60_000, openings=2)  # type: ignore[attr-defined]
    assert row.seconds is not None
    stale, going = (
        {"task_round": 7, "staleness": 3},
        {"outcome": Outcome.TRAINS_ON, "in_model": False, "examples": None},
    )
    past.odd = {(10, "site-2"): stale, (10, "site-3"): going | {"task_round": 9, "staleness": 1}}  # type: ignore[attr-defined]
    page = window.open(place.address, "/run/mammo")
    expect(page.locator(".rounds .note")).to_have_text("11 rounds closed")
    page.locator(".strip").press("Home")
    for _ in range(9):
        page.locator(".strip").press("ArrowRight")
    took = page.evaluate("async (s) => (await import('/static/js/format.js')).lap(s)", row.seconds)
    expect(page.locator(".strip")).to_have_attribute(
        "aria-valuetext",
        re.compile(
            rf"^Round 10 · took {took} · .* · opened 2 times · the run had ended for 1:00, which is not counted"
        ),
    )
    page.locator(".strip").press("Enter")
    expect(page.locator(".timeline .under")).to_contain_text("The run had ended from ")
    expect(page.locator(".timeline .under")).to_contain_text(": these 1:00 are no time of the round.")
    expect(page.locator(".timeline .lane .piece.paused")).to_have_count(4)
    expect(page.locator(".timeline .verdict", has_text="refused before: NaN in fc.bias")).to_have_count(1)
    expect(
        page.locator(".timeline .verdict", has_text=re.compile("^✓ task of round 7, 3 rounds before · "))
    ).to_have_count(1)
    expect(page.locator(".timeline .verdict", has_text="→ trains on · task of round 9, 1 round before")).to_have_count(
        1
    )
    late = page.locator(".sites .item", has_text="site-3").locator(".time")
    expect(late).to_have_text(re.compile(r"^[2-5]\d s \("))


def test_no_sentence_counts_the_time_for_which_the_run_had_ended(served: Serve, window: Window) -> None:
    sites = {"a": client("done"), **{name: client("training", median_s=600.0) for name in "bc"}}
    times: dict[str, Any] = {"opened_ms": now_ms() - 122 * MINUTE_MS, "paused_ms": 120 * MINUTE_MS}
    source, place = served([document("mammo", sites, **times)])
    page = window.open(place.address, "/run/mammo")
    more, bar = page.locator(".stand .more").first, page.locator(".strip")
    expect(more).to_contain_text(re.compile(r"Waiting for b and c \(now 2:\d\d\)\."))
    expect(bar).to_have_attribute("aria-valuetext", re.compile(r"^Round 12 · open for 2:\d\d · "))
    source.patch("mammo", {"clients": {"b": {"median_s": 60.0}}})
    expect(more).to_contain_text(re.compile(r"latest by its own measure is b, .* now 2:\d\d\)\."))
    source.patch("mammo", {"round_state": "aggregating"})
    expect(bar).to_have_attribute("aria-valuetext", re.compile(r"^Round 12 · aggregating, opened 2:02:\d\d ago · "))


def test_keys_are_enough(served: Serve, window: Window) -> None:
    _, place = served([mammo()])
    page = window.open(place.address, "/run/mammo")
    expect(page.locator(".sites .item")).to_have_count(4)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    strip = page.get_by_role("slider", name="Round")
    strip.focus()
    outline = strip.evaluate("(each) => getComputedStyle(each).outlineStyle + getComputedStyle(each).outlineWidth")
    page.keyboard.press("ArrowLeft")
    assert outline == "solid2px"
    expect(strip).to_have_attribute("aria-valuetext", re.compile(r"^Round 11 · took .* · [34] of 4 sites"))
    page.keyboard.press("Enter")
    expect(page.locator(".timeline .lanes")).to_have_count(4)
    expect(page.locator(".timeline .lanes .lane").first).to_have_attribute(
        "aria-label", re.compile("^download: .*; train: .*; upload: .*; inspection: ")
    )
    assert page.locator(".timeline .verdict", has_text="balanced").first.evaluate(CUT) is False
    page.set_viewport_size({"width": 400, "height": 900})
    assert page.locator(".timeline .verdict", has_text="balanced").first.evaluate(CUT) is False
    page.set_viewport_size({"width": 1280, "height": 900})
    page.get_by_role("button", name="Round before").click()
    expect(page.locator(".timeline h3")).to_have_text(re.compile("^Round 10 "))
    page.keyboard.press("Escape")
    expect(page.locator(".timeline")).to_be_hidden()
    toggle = page.get_by_role("button", name="site-3")
    toggle.focus()
    page.keyboard.press("Enter")
    expect(toggle).to_have_attribute("aria-expanded", "true")
    details = page.locator(".details")
    for words in (
        "gpu-07.radiology.example",
        "Python 3.11.2",
        "9:10 (median), 8:40 (last)",
        "410 MB / 492 MB",
        "epoch 59: loss 0.017",
        "61 %",
        "41 GB of 128 GB",
    ):
        expect(details).to_contain_text(words)
    page.keyboard.press("Escape")
    expect(details).to_have_count(0)
    expect(toggle).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="Filter sites")).to_be_focused()
    page.keyboard.type("site-1")
    expect(page.locator(".sites .item")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator(".sites .item")).to_have_count(4)
    page.locator(".sites .item").first.locator(".state .word").hover()
    tip = page.get_by_role("tooltip")
    expect(tip).to_contain_text("refused its update")
    assert page.locator("[aria-describedby=tip]").count() == 1
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def test_curves(served: Serve, window: Window) -> None:
    _, place = served([mammo()])
    page = window.open(place.address, "/run/mammo")
    chart = page.get_by_role(
        "img", name=re.compile(r"^Curve of val_auc 0\.95\d* in round 11, best 0\.9\d+, reported in round \d+$")
    )
    expect(chart.locator("canvas")).to_be_visible()
    page.wait_for_function(f"() => ({look('ink')})() > 300")  # the weighted mean is thick, and drawn
    line = page.locator(".model .pointed")
    expect(line).to_have_text(
        re.compile(r"^round 11 · weighted 0\.\d+ · plain 0\.\d+ · lowest site-\d 0\.\d+ · highest site-\d 0\.\d+$")
    )
    chart.scroll_into_view_if_needed()
    box = chart.locator(".u-over").bounding_box()
    middle = box["y"] + box["height"] / 2
    whole = page.get_by_role("button", name="Whole run")
    expect(whole).to_be_hidden()
    page.mouse.move(box["x"] + 0.3 * box["width"], middle)
    expect(line).to_have_text(re.compile("^round 4 "))
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], middle, steps=4)
    page.mouse.up()
    whole.click()
    expect(whole).to_be_hidden()
    chart.focus()
    page.keyboard.press("+")
    expect(whole).to_be_visible()
    page.keyboard.press("Escape")
    expect(whole).to_be_hidden()
    page.get_by_role("checkbox", name="log axis").check()
    page.get_by_role("combobox", name="Metric").select_option("loss")
    expect(page.locator(".model .note")).to_have_text(re.compile(r"^loss 0\.\d+ in round 11$"))
    page.wait_for_function(f"() => ({look('ink')})() > 300")
    expect(page.locator(".sites .cell.metric").first).to_have_text("loss")


def with_metrics(source: MadeUp, run: str, value: Callable[[int], dict[str, float]]) -> None:
    """Give the closed rounds of a run more metrics."""
    past = source.histories[run]
    past.closed = [replace(row, metrics={**row.metrics, **value(row.round)}) for row in past.closed]


def test_a_log_axis_says_what_it_leaves_out(served: Serve, window: Window) -> None:
    source, place = served(every())
    for run in ("digits-a", "digits-b"):
        with_metrics(source, run, lambda round_: {"gain": round_ - 3.0, "debt": -1.0 * round_})
    for path in ("/run/digits-a", "/compare?runs=digits-a,digits-b&metric=gain"):
        page = window.open(place.address, path)
        metric, note = page.get_by_role("combobox", name="Metric"), page.locator(".model .axis")
        metric.select_option("gain")
        expect(note).to_be_hidden()
        page.get_by_role("checkbox", name="log axis").check()
        expect(note).to_have_text(
            re.compile(r"^\d+ values of \d+ are not drawn: a log axis shows only values above zero.$")
        )
        metric.select_option("debt")
        expect(note).to_have_text("No value is drawn: a log axis shows only values above zero, and there are none.")
        page.get_by_role("checkbox", name="log axis").uncheck()
        expect(note).to_be_hidden()
        page.get_by_role("checkbox", name="log axis").check()
        metric.select_option("loss")
        expect(note).to_be_hidden()


def test_runs_are_compared_by_a_metric_that_their_newest_rounds_lack(served: Serve, window: Window) -> None:
    source, place = served(every())
    with_metrics(source, "digits-b", lambda round_: {"thirds": 1 / 3} if round_ < 5 else {})
    page = window.open(place.address, "/compare?runs=digits-a,digits-b&metric=thirds")
    expect(page.get_by_role("combobox", name="Metric")).to_have_value("thirds")
    expect(page.locator(".model .pointed")).to_have_text("digits-a – · digits-b 0.3333 in round 4")
    expect(page.locator(".differences .care")).to_have_count(0)
    page = window.open(place.address, "/compare?runs=digits-a,digits-b&metric=sixths")
    said = page.locator(".differences .care")
    expect(said).to_have_text("No run here has the metric sixths: the page shows val_auc.")
    expect(page.locator(".model .note")).to_have_text("val_auc")
    page.get_by_role("combobox", name="Metric").select_option("loss")
    expect(said).to_have_count(0)


def test_curves_are_asked_for_again_until_all_is_read(served: Serve, window: Window) -> None:
    """The first answer is lost, and the next ones have only what could be read of a slow store; the run has ended."""
    _, place = served([each for each in many() if each["run"] == "study-02"])
    asked: list[str] = []

    def answer(route: Any) -> None:
        asked.append(route.request.url)
        if len(asked) == 1:
            route.abort()
            return
        response = route.fetch()
        document = response.json()
        number = 0 if "sites=" in route.request.url else len([url for url in asked if "sites=" not in url])
        if number in (1, 2):
            sites = {site: [None if at >= 5 * number else value for at, value in enumerate(values)]
                     for site, values in document["sites"].items()}  # fmt: skip
            document |= {"is_complete": False, "sites": sites}
        route.fulfill(response=response, json=document)

    window.page.route("**/curves?*", answer)
    page = window.open(place.address, "/run/study-02")
    expect(page.locator(".model")).to_contain_text("More values of sites are being read from the store.")
    expect(page.locator(".model")).not_to_contain_text("values of sites")
    expect(page.locator(".model .pointed")).to_have_text(re.compile("^round 40 .* lowest site-"))


def test_which_site_hurts(served: Serve, window: Window) -> None:
    source, place = served([mammo()])
    one = {"rounds": 2, "num_examples": 1204, "why_not": "", "norm_ratio": None, "without": None}
    low = {"mean": -0.25, "lowest": -0.5, "highest": 0.0, "rounds": 2}
    source.contributed["mammo"] = {
        "at_ms": now_ms(),
        "metric": "accuracy:max",
        "by_sites": False,
        "rounds": [11, 12],
        "lacking": {"10": "its update is pruned"},
        "left_out": 0,
        "sites": [
            {**one, "client": HOSTILE, "cosine": low, "contribution": low},
            {**one, "client": "b", "cosine": {**low, "rounds": 1, "mean": 0.5}, "contribution": None},
        ],
    }
    page = window.open(place.address, "/run/mammo")
    panel = page.locator(".contributions")
    panel.scroll_into_view_if_needed()
    rows = panel.locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first.locator("td").first).to_have_text(HOSTILE)
    expect(rows.first).to_contain_text("-0.25 (-0.5 … 0)")
    expect(rows.first.locator("td").nth(1)).to_have_text("! -0.25 (-0.5 … 0)")
    expect(rows.last.locator("td").nth(5)).to_have_text("0.5")
    wider = panel.locator(".wider")
    page.set_viewport_size({"width": 360, "height": 900})
    expect(wider).to_have_text("The table goes on to the right →")
    expect(wider).to_be_visible()
    expect(panel.locator(".note")).to_contain_text("of rounds 11, 12, by accuracy:max, computed at ")
    expect(panel).to_contain_text("Round 10 is not among them: its update is pruned.")
    expect(panel.locator(".foot code")).to_have_text("flavor contributions mammo")


def test_which_site_hurts_the_others(served: Serve, window: Window) -> None:
    source, place = served([mammo()])

    def of(mean: float) -> dict[str, float]:
        return {"mean": mean, "lowest": mean, "highest": mean, "rounds": 1}

    source.contributed["mammo"] = {
        "at_ms": now_ms(),
        "metric": "accuracy:max",
        "by_sites": True,
        "rounds": [12],
        "lacking": {},
        "left_out": 0,
        "sites": [
            {
                **{"client": "b", "rounds": 1, "num_examples": 1204, "why_not": "", "cosine": None, "norm_ratio": None},
                **{"with_it": of(0.75), "without": of(0.875), "contribution": of(-0.125)},
                "judges": {HOSTILE: of(-0.25), "b": of(0.5), "c": of(0.0)},
            },
            {
                **{"client": "c", "rounds": 1, "num_examples": 1204, "cosine": None, "norm_ratio": None},
                **{"with_it": None, "without": None, "contribution": None, "judges": {}},
                "why_not": "it does not allow it",
            },
        ],
    }
    page = window.open(place.address, "/run/mammo")
    panel = page.locator(".contributions")
    panel.scroll_into_view_if_needed()
    rows = panel.locator("tbody tr")
    expect(rows).to_have_count(2)
    heads = [head.inner_text() for head in panel.locator("thead th").all()]
    assert heads[1:4] == ["Contribution", "With it", "Without it"]
    assert heads[4:] == ["Rounds", "Examples", "Cosine", "Norm", "At home", "Judged by"]
    cells = [cell.inner_text() for cell in rows.first.locator("td").all()]
    assert cells[1:4] == ["! -0.125", "0.75", "0.875"]
    assert cells[8:] == ["+0.5", f"{HOSTILE} -0.25, c 0"]
    lacking = [cell.inner_text() for cell in rows.last.locator("td").all()]
    assert (lacking[1:4], lacking[6:]) == (["–"] * 3, ["–"] * 4)
    expect(panel.locator(".note")).to_contain_text("of round 12, by accuracy:max at the sites, computed at ")


def test_what_lies_below(served: Serve, window: Window) -> None:
    source, place = served([mammo()])
    page = window.open(place.address, "/run/mammo")
    workers = page.locator(".workers")
    expect(workers.locator("tbody tr")).to_have_count(2)
    expect(workers.locator("tbody td").first).to_have_text("01234567… on fl-01")
    expect(workers).to_contain_text("inspect site-4's update of round 12 of mammo")
    expect(workers.locator(".foot code")).to_have_text('rq info --serializer json --url "$FLAVOR_REDIS_URL"')
    source.patch("mammo", {"folder": "flavor-runs/mammo"})  # whose Redis has no URL that others know
    expect(workers.locator(".foot code")).to_have_text("flavor status flavor-runs/mammo")
    none = page.locator(".contributions")
    none.scroll_into_view_if_needed()
    expect(none).to_contain_text("The command below has not been called yet.")
    settings = page.locator(".settings")
    settings.scroll_into_view_if_needed()
    expect(settings).to_contain_text("7 settings of 14 set")
    expect(settings).to_contain_text("1920 ○ changed by flavor resume")
    records = page.locator(".provenance")
    records.scroll_into_view_if_needed()
    expect(records.locator("tbody tr")).to_have_count(11)
    expect(records.locator(".note")).to_have_text("11 manifests, signatures and chain are right")
    page.get_by_role("button", name="Check all objects").click()
    expect(records.locator(".note")).to_have_text(
        "11 manifests, everything is as it was signed, 240 objects and 9.8 GB read"
    )
    expect(records.locator("tbody .state").first).to_have_text("✓whole")


CLICK_BETWEEN_PARTS = """() => new MutationObserver((_, watch) => {
  const part = document.querySelector(".provenance");
  if (!/so far/.test(part.querySelector(".note").textContent)) return;
  watch.disconnect();
  part.querySelector("button").click();
}).observe(document.querySelector(".provenance .note"), { subtree: true, childList: true, characterData: true })"""


def test_a_check_of_all_objects_outlives_the_reading_of_records(served: Serve, window: Window) -> None:
    """It is asked for between two parts; later, the store goes away after one manifest of seven."""
    _, place = served([mammo()])
    asked: list[str] = []

    def answer(route: Any) -> None:
        asked.append(route.request.url.rpartition("/")[2])
        if len(asked) == 1:
            page.evaluate(CLICK_BETWEEN_PARTS)
        response = route.fetch()
        document = response.json()
        if len(asked) == 3:
            document |= {"silent": "the store is away", "is_complete": False, "read": 1, "manifests": 7}
        route.fulfill(response=response, json=document)

    page = window.page
    page.route("**/api/**/provenance*", answer)
    window.open(place.address, "/run/mammo")
    records = page.locator(".provenance")
    records.scroll_into_view_if_needed()
    expect(records.locator(".note")).to_contain_text("everything is as it was signed")
    page.wait_for_timeout(300)
    assert asked == ["provenance", "provenance?verify=1"]
    expect(records.locator(".note")).to_contain_text("everything is as it was signed")
    page.get_by_role("button", name="Check all objects").click()
    expect(records.locator(".note")).to_have_text("1 of 7 manifests read")
    expect(records).to_contain_text("the store is away")
    page.unroute("**/api/**/provenance*")


def test_empty_pages_teach(served: Serve, window: Window) -> None:
    _, place = served([])
    page = window.open(place.address, "/")
    expect(page.get_by_text("No run has begun on this Redis")).to_be_visible()
    expect(page.locator(".command").first).to_contain_text('flavor run -m "python main.py"')
    assert [wrong for each in page.locator(".command").all_inner_texts() for wrong in unknown(each)] == []
    page = window.open(place.address, "/run/nothing")
    expect(page.get_by_text("There is no run nothing")).to_be_visible()
    page = window.open(place.address, "/compare")
    expect(page.get_by_text("There is no run to compare yet")).to_be_visible()
    _, place = served([young()])
    page = window.open(place.address, "/run/young")
    expect(page.locator(".stand ul.todo")).to_contain_text("start one with `flavor-agg`")
    expect(page.get_by_text("No site has joined yet.")).to_be_visible()
    expect(page.get_by_text("No round has opened yet.")).to_be_visible()
    expect(page.get_by_text("A curve begins with the first closed round.")).to_be_visible()


RFC_7396 = """[
  [{"a":"b"}, {"a":"c"}, {"a":"c"}], [{"a":"b"}, {"b":"c"}, {"a":"b","b":"c"}], [{"a":"b"}, {"a":null}, {}],
  [{"a":"b","b":"c"}, {"a":null}, {"b":"c"}], [{"a":["b"]}, {"a":"c"}, {"a":"c"}],
  [{"a":"c"}, {"a":["b"]}, {"a":["b"]}],
  [{"a":{"b":"c"}}, {"a":{"b":"d","c":null}}, {"a":{"b":"d"}}], [{"a":[{"b":"c"}]}, {"a":[1]}, {"a":[1]}],
  [["a","b"], ["c","d"], ["c","d"]], [{"a":"b"}, ["c"], ["c"]], [{"a":"foo"}, null, null], [{"a":"foo"}, "bar", "bar"],
  [{"e":null}, {"a":1}, {"e":null,"a":1}], [[1,2], {"a":"b","c":null}, {"a":"b"}],
  [{}, {"a":{"bb":{"ccc":null}}}, {"a":{"bb":{}}}], [{}, {"__proto__":{"x":1}}, {"__proto__":{"x":1}}]
]"""
"""The examples of RFC 7396, appendix A, and a name that JavaScript has a use for."""


def test_patches_and_units(served: Serve, window: Window) -> None:
    from flavor.durations import shown_duration

    _, place = served([])
    page = window.open(place.address, "/queue")
    wrong = page.evaluate(
        """async (cases) => {
          const { patched } = await import("/static/js/live.js");
          return JSON.parse(cases)
            .map(([target, patch, wanted]) => [JSON.stringify(patched(target, patch)), JSON.stringify(wanted)])
            .filter(([is, wanted]) => is !== wanted);
        }""",
        RFC_7396,
    )
    assert wrong == []
    seconds = [0, 1, 59, 60, 61, 240, 3600, 3661, 86_400, 90_000, 200_000]
    words = page.evaluate(
        """async (all) => (({ duration }) => all.map(duration))(await import("/static/js/format.js"))""", seconds
    )
    assert words == [shown_duration(each) for each in seconds]
    found = page.evaluate(
        """async () => {
          const { lap, bytes, metric, quoted, some, moved } = await import("/static/js/format.js");
          return [
            [0.44, 42, 520, 3725, null].map(lap), [999, 41e6, 1.26e9].map(bytes), [0.94123, 1e-9, NaN].map(metric),
            quoted("a b'c"), some(["a", "b", "c", "d", "e"]), moved(61e6, 126e6),
          ];
        }"""
    )
    assert found == [
        ["440 ms", "42 s", "8:40", "1:02:05", "–"],
        ["999 B", "41 MB", "1.3 GB"],
        ["0.9412", "1.00e-9", "–"],
        shlex.quote("a b'c"),
        "a, b, c and 2 more",
        "61 of 126 MB",
    ]


def test_the_round_in_which_a_run_has_failed_does_not_go_on(served: Serve, window: Window) -> None:
    """It was open for ever longer, and the bars of its sites grew with it."""
    gone = ended("lungs", "failed", "round 7: site-2: its trainer failed", at=7)
    gone["opened_ms"] = gone["worked_from_ms"] = gone["ended_ms"] - 5_000
    _, place = served([gone])
    strip = window.open(place.address, "/run/lungs").locator(".strip")
    expect(strip).to_have_attribute("aria-valuetext", re.compile(r"^Round 7 · failed after 5(\.0)? s"))
