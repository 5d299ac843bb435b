"""The words of a site on the page: in quotation marks, and without effect on how the words beside them are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from flavor.page.server import Place
from flavor.printable import printable, quoted, shown_name
from tests.page.conftest import Window, expect
from tests.page.made_up import MadeUp, client, document

Serve = Callable[[Sequence[dict[str, Any]]], tuple[MadeUp, Place]]
TURNED = "\u202eabc"
SAYS = f'accepted by "flavor" \x1b[31m {TURNED}\n\n  and more'
SAYINGS = (SAYS, "", "  ", "epoch 3", "a\u200bb", "\u115f", "\U000e0041", "\ud800", "x\u2028y", "é ü", "日本語")
NAMES = (
    "loss",
    "val/auc",
    "top 5",
    " loss",
    "a  b",
    "l\u043ess",
    "ｌoss",
    "perte_é",
    "потеря",
    "損失",
    "ℓ",
    "o'\u0430",
    TURNED,
)


def said_js(page: Any, call: str, words: Sequence[str]) -> list[str]:
    """What functions of said.js make of the words."""
    script = f"async (all) => {{ const js = await import('/static/js/said.js'); return all.map((words) => {call}); }}"
    return list(page.evaluate(script, list(words)))


def test_the_page_says_it_as_the_terminal_does(served: Serve, window: Window) -> None:
    _, place = served([])
    page = window.open(place.address)
    whole = [words for words in SAYINGS if "\ud800" not in words]  # the driver cannot send half a pair
    assert said_js(page, "js.visible(js.said(words))", whole) == [quoted(words) for words in whole]
    assert said_js(page, "js.visible(js.named(words))", NAMES) == [shown_name(name) for name in NAMES]
    assert said_js(page, "js.visible(words)", whole[2:]) == [printable(words) for words in whole[2:]]
    assert page.evaluate("async () => (await import('/static/js/said.js')).visible('\\ud800')") == "\\ud800"
    assert said_js(page, "js.term(words)", ["ValueError", "it is accepted", ""]) == [
        "ValueError",
        '"it is accepted"',
        "",
    ]


def test_marks_do_not_pile_up_over_other_lines(served: Serve, window: Window) -> None:
    _, place = served([])
    page = window.open(place.address)
    found = said_js(page, "js.visible(words)", ["a" + 60 * "\u0301" + "b", "a\u0301\u0302b"])
    assert found == ["a" + 4 * "\u0301" + "…b", "a\u0301\u0302b"]


def test_what_a_site_says_is_quoted_and_turns_nothing_round(served: Serve, window: Window) -> None:
    speaks = client(
        "training",
        reported={"done": 3, "total": 1e-320, "message": SAYS, "metrics": {TURNED: 1.0, "it is accepted": 2.0}},
        metrics={TURNED: 0.5, "l\u043ess": 0.3},
        report="line 1\nline 2: accepted",
        failure="accepted by flavor",
        sent_bytes=10**15,
    )
    quick = client("done", median_s=10.0, metrics={TURNED: 0.5})
    run = document("mammo", {"a": speaks, "b": quick}, metric=TURNED, waits_for=f"waiting for a: {TURNED}")
    _, place = served([{**run, "last_round": {"round": 11, "metrics": {TURNED: 0.5}}, "best": None}])
    page = window.open(place.address, "/run/mammo")
    row = page.locator(".sites .item").filter(has=page.locator(".label", has_text="a"))
    expect(row.locator(".why")).to_have_text("\"accepted by 'flavor' \\x1b[31m \\u202eabc and more\"")
    expect(page.locator(".sites .note")).to_contain_text("in all, as the sites say")
    expect(page.locator(".stand .waits")).to_contain_text("\\u202eabc")
    expect(page.locator(".stand .gains")).to_contain_text("Model: \\u202eabc 0.5")
    expect(page.locator(".stand")).not_to_contain_text("Infinity")
    expect(page.locator(".stand .more").first).to_contain_text("100 %")
    row.locator(".toggle").click()
    details = row.locator(".details")
    expect(details.locator(".shared")).to_have_text('It shares: "line 1 line 2: accepted"')
    expect(details).to_contain_text('"\\u202eabc" 1, "it is accepted" 2, "accepted by')
    expect(details).to_contain_text('"accepted by flavor"')
    expect(details.locator("dt").filter(has_text="\\u202eabc")).to_have_count(1)
    expect(details.locator("dt").filter(has_text="'l\\u043ess'")).to_have_count(1)
    titles = "[...document.querySelectorAll('[title]')].map((node) => node.title).join()"
    assert "\u202e" not in page.evaluate(f"() => document.body.innerText + {titles}")
    page.goto(place.address)
    expect(page.locator(".run .value")).to_contain_text("\\u202eabc 0.")


@pytest.mark.parametrize("word", ["אבג", "مرحبا"])
def test_words_from_right_to_left_turn_round_no_words_beside_them(served: Serve, window: Window, word: str) -> None:
    _, place = served([document("mammo", {"a": client("gone", reason=f"{word}: 5 of 6")})])
    page = window.open(place.address, "/run/mammo")
    why = page.locator(".sites .why").first
    expect(why).to_contain_text("5 of 6")
    left = why.evaluate(
        """(node) => ["5", "of", "6"].map((word) => {
          const range = document.createRange();
          const at = node.firstChild.data.indexOf(word);
          range.setStart(node.firstChild, at);
          range.setEnd(node.firstChild, at + 1);
          return range.getBoundingClientRect().left;
        })"""
    )
    end = why.evaluate(
        """(node) => {
          const range = document.createRange();
          range.setStart(node.firstChild, 0);
          range.setEnd(node.firstChild, node.firstChild.data.indexOf(":"));
          return range.getBoundingClientRect().right;
        }"""
    )
    assert [end, *left] == sorted([end, *left])
