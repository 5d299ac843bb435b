"""What is said of files without tensors that a script hands in."""

from __future__ import annotations

from pathlib import Path

import pytest

from flavor.check.handed_in import HandedIn
from flavor.check.report import Report, Status
from flavor.check.trainer_checks import TRAINS


@pytest.mark.parametrize(
    ("given", "handed_in", "made", "status"),
    [
        ("a", "b", "c", Status.PASSED),
        ("a", "b", "a", Status.PASSED),
        ("a", "a", "b", Status.FAILED),
        ("a", "a", "a", Status.UNCLEAR),  # what was trained on its own result comes to the same again
        ("a", "a", None, Status.FAILED),  # the aggregator failed
    ],
)
def test_a_file_that_is_the_global_model(
    tmp_path: Path, given: str, handed_in: str, made: str | None, status: Status
) -> None:
    paths = [tmp_path / name for name in ("given", "handed_in", "made")]
    for path, text in zip(paths, (given, handed_in, made), strict=True):
        if text is not None:
            path.write_text(text)
    report = Report((TRAINS,))
    HandedIn(report, 3).look_at_bytes(2, *paths)
    [result] = report.results
    assert result.status is status
