"""The notes on uploads in parts that an earlier process began."""

from __future__ import annotations

from pathlib import Path

import pytest

from flavor.store.uploads import Notes, Upload


@pytest.mark.parametrize("text", ["[" * 200_000, "[]", "5", "{", "{}"])
def test_a_note_that_is_damaged_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "note").write_text(text)
    assert Notes(tmp_path).read(tmp_path / "note") is None


def test_each_part_is_a_line_of_the_note_and_a_line_that_was_cut_off_is_none(tmp_path: Path) -> None:
    notes, path, upload = Notes(tmp_path), tmp_path / "note", Upload("a/b", "id", 5, {"1": "x"})
    notes.write(path, upload)
    begun = path.stat().st_size
    notes.add(path, 2, '"y"')
    assert path.stat().st_size - begun < 20, "the rest is not written again"
    with path.open("a") as file:
        file.write('["3", "z')
    assert notes.read(path) == Upload("a/b", "id", 5, {"1": "x", "2": '"y"'})
    path.write_text('{"staged": "a/b", "id": "id", "part_bytes": 5, "tags": {"1": "x"}}')
    assert notes.read(path) == upload, "as an earlier release has written it"
