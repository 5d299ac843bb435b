"""The notes on uploads in parts that an earlier process began."""

from __future__ import annotations

from pathlib import Path

import pytest

from flavor.store.uploads import Notes


@pytest.mark.parametrize("text", ["[" * 200_000, "[]", "5", "{", "{}"])
def test_a_note_that_is_damaged_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "note").write_text(text)
    assert Notes(tmp_path).read(tmp_path / "note") is None
