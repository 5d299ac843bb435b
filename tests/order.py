"""Puts the files with the longest tests first, so that none is left to one process while the others are done."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
LONG = (
    "faults/test_all_in_turn.py",
    "integration/test_large_checkpoints.py",
    "integration/test_alerts.py",
    "page/test_real.py",
    "faults/test_links.py",
    "integration/test_fedtrain_resume.py",
    "integration/test_fedtrain_live.py",
    "integration/test_withheld.py",
    "integration/test_examples.py",
)
"""Files with tests of ten seconds and more, with four processes on two cores."""


def longest_first(items: list[pytest.Item]) -> None:
    """Sort the tests; those of other files keep their order."""
    places = {HERE / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))
