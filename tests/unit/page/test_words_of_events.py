"""An event has the same colour on the page as in `flavor log`."""

from __future__ import annotations

import re
from pathlib import Path

import flavor.page
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
