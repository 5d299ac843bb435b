"""docs/see-a-run.md lists the addresses that the page has, and the lines that it says."""

from __future__ import annotations

import re
from pathlib import Path

from flavor.page.api import Api
from flavor.page.server import PORT
from flavor.page.stream import KEEPALIVE_S, MOST_STREAMS
from flavor.page.token import COOKIE_S
from flavor.view.drawn import MOST_CELLS, MOST_LINES, MOST_POINTS, MOST_ROWS
from tests.standin import Standin

GUIDE = (Path(__file__).parents[3] / "docs" / "see-a-run.md").read_text(encoding="utf-8")


def test_every_address_is_listed() -> None:
    routes = {re.sub(r"\{(\w+)\}", "X", route.path) for route in Api(Standin()).routes()}
    listed = {
        re.sub(r"\b(RUN|CLIENT|N)\b", "X", path) for path in re.findall(r"^\| `(/api/[^?`]+)", GUIDE, re.MULTILINE)
    }
    assert listed == routes | {"/api/stream"}


def test_numbers_and_lines_are_those_of_the_code() -> None:
    assert f"http://127.0.0.1:{PORT}/" in GUIDE
    assert f"{COOKIE_S // 86400} days" in GUIDE
    assert f"every {KEEPALIVE_S:.0f} seconds" in GUIDE
    assert f"{MOST_ROWS:,} rows of a table, {MOST_CELLS} × {MOST_CELLS} cells" in GUIDE
    assert f"{MOST_LINES} lines of {MOST_POINTS:,} points" in GUIDE
    assert f"At most {MOST_STREAMS} pages" in GUIDE
    assert f"| {MOST_STREAMS} pages are live already |" in GUIDE
