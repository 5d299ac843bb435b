"""The files of the page: small, complete, and without what could turn text into markup."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

STATIC = Path(__file__).parents[2] / "flavor" / "page" / "static"
MOST_BYTES = 150_000
"""Of all files together, as a browser gets them: compressed."""
FILES = [path for path in STATIC.rglob("*") if path.is_file()]
OURS = [path for path in FILES if "vendor" not in path.parts]


def test_all_files_are_few_bytes() -> None:
    assert sum(len(gzip.compress(path.read_bytes(), 9)) for path in FILES) < MOST_BYTES


def test_no_text_can_become_markup() -> None:
    risky = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc|javascript:"
    )
    assert [path.name for path in OURS if path.suffix in (".js", ".html") and risky.search(path.read_text())] == []


def test_nothing_comes_from_elsewhere() -> None:
    """The page works offline: no address of another machine is asked, and the policy allows no inline code."""
    for path in OURS:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://", text), path
        if path.suffix == ".html":
            assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", text), path


def test_every_import_is_there() -> None:
    for path in OURS:
        if path.suffix == ".js":
            for name in re.findall(r"""(?:from|import) ["']([^"']+)["']""", path.read_text()):
                assert name.startswith("."), (
                    f"{path.name}: {name}: only a relative path keeps the digest of the release"
                )
                assert (path.parent / name).is_file(), f"{path.name}: {name}"
    shell = (STATIC / "index.html").read_text()
    for name in re.findall(r'(?:href|src)="/static/([^"]+)"', shell):
        assert (STATIC / name).is_file(), name


def test_the_chart_library_is_the_released_one() -> None:
    folder = STATIC / "vendor" / "uplot"
    said = dict(re.findall(r"^\| (\S+) \| ([0-9a-f]{64}) \|$", (folder / "README.md").read_text(), re.MULTILINE))
    assert said == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("uPlot.iife.min.js", "uPlot.min.css")
    }
    assert "MIT License" in (folder / "LICENSE").read_text()
