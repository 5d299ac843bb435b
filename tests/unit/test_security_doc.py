"""SECURITY.md names the tests that show what it says; they exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 30
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or not re.search(rf"def {name}\b", (ROOT / path).read_text())
    ]
    assert missing == []


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([\w/.]+)\)", (ROOT / "SECURITY.md").read_text()):
        assert (ROOT / target).exists(), target
