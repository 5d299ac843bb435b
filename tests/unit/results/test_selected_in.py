"""A result folder's best model: a damaged file is as none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flavor.results.read_evaluated import BEST, FOLDER, selected_in

GOOD = {"select": "accuracy:max", "round": 3, "value": 0.5, "sites": 2}


@pytest.mark.parametrize(
    "damaged", [{"select": "accuracy"}, {"select": 3}, {"round": "x"}, {"value": None}, {"select": ":max"}]
)
def test_a_damaged_file_is_as_none(tmp_path: Path, damaged: dict[str, object]) -> None:
    file = tmp_path / FOLDER / BEST
    file.parent.mkdir()
    file.write_text(json.dumps(GOOD))
    assert selected_in(tmp_path) is not None
    file.write_text(json.dumps({**GOOD, **damaged}))
    assert selected_in(tmp_path) is None
