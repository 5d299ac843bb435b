"""Events have the same colours on the page as in `flavor log`, and sites the same order as in a terminal."""

from __future__ import annotations

import re
from pathlib import Path

import flavor.page
from flavor.view.client_snapshot import URGENCY
from flavor.view.styles import BAD, COLOUR_OF_EVENT, GOOD, WAITS

WORDS = (Path(flavor.page.__file__).parent / "static/js/words.js").read_text(encoding="utf-8")
TONES = re.findall(r'if \(/(.*)/\.test\(name\)\) return \{ mark: ".", tone: "(\w+)" \};', WORDS)


def test_what_is_bad_or_waits_in_the_log_is_so_on_the_page() -> None:
    assert [tone for _, tone in TONES] == ["todo", "care", "well"]
    tone_of = {BAD: "todo", WAITS: "care", GOOD: "well"}
    for event, colour in COLOUR_OF_EVENT.items():
        shown = next((tone for pattern, tone in TONES if re.search(pattern, event)), "quiet")
        if colour in (BAD, WAITS) or shown in ("todo", "care"):
            assert shown == tone_of.get(colour, "quiet"), event


def test_sites_that_need_attention_come_first_in_the_order_of_the_terminal() -> None:
    ranks = re.findall(r'^  "?([\w-]+)"?: phase\(.*, (\d+)\),$', WORDS, re.MULTILINE)
    of_page = [name for name, _ in sorted(ranks, key=lambda each: int(each[1])) if name in URGENCY]
    assert of_page == [phase.value for phase in URGENCY]
