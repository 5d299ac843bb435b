"""Words that CONTRIBUTING's plain English has no use for stand in no page, program or comment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = re.compile(r"\b(nobody|whatever|whoever|meanwhile|in vain|none of which)\b", flags=re.IGNORECASE)
ROOMS = ("aggregators", "aumai_fedtrain", "benchmarks", "docs", "examples", "flavor", "workers")
ENDINGS = (".py", ".lua", ".md", ".sh", ".yaml")


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_plain_words(room: str) -> None:
    files = (ROOT / room).rglob("*") if room else ROOT.glob("*")
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in sorted(files)
        if file.suffix in ENDINGS and file.is_file()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if WORDS.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("file", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda file: file.name)
def test_prose_wraps_at_120(file: Path) -> None:
    """A change in the middle of a paragraph leaves a long line. A few characters more are let pass."""
    is_code, long = False, []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        is_code ^= line.lstrip().startswith("```")
        is_prose = not is_code and not line.startswith("    ") and not line.lstrip().startswith(("|", "!", "<"))
        if len(line) > 124 and is_prose and " " in line.strip().removeprefix("- "):  # else nothing can be broken
            long.append(f"{number}: {line[:60]}")
    assert long == []
