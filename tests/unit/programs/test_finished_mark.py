"""The mark that a script's process leaves at TrainFinished, as its edge reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flavor.programs.finished_mark import mark_path, read_mark, write_mark


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    return path


def test_a_mark_is_of_its_round_and_stays(model: Path) -> None:
    assert write_mark(model, model, 3)
    found = read_mark(model, 3)
    assert found is not None
    assert found.model is not None
    assert (found.model[1], found.info, found.rewritten(model)) == (7, None, None)
    assert not write_mark(model, model, 3), "the first stays"
    assert read_mark(model, 4) is None
    model.write_bytes(b"other weights")
    assert found.rewritten(model) == model


@pytest.mark.parametrize(
    "text",
    ["", "3", "{}", "[" * 200_000, '{"round": 3}', '{"round": 3, "model": 7, "info": null, "read_ns": null}', "\udcff"],
    ids=["empty", "number", "nothing", "deep", "cut", "other", "no text"],
)
def test_what_is_no_mark_is_read_as_none(model: Path, text: str) -> None:
    mark_path(model).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert read_mark(model, 3) is None
