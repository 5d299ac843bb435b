"""Each test of the helpers of training scripts is a process that has told nothing yet."""

from __future__ import annotations

import pytest

from flavor.cook import anchor


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchor, "_told", set())
