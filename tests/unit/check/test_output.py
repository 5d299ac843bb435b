"""What `check-fl` prints at its end."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flavor.check.output import show
from flavor.check.report import Report
from flavor.check.trainer_checks import INFO, SAVES, STARTS, TRAINS


@pytest.mark.parametrize("is_terminal", [False, True])
def test_no_line_ends_with_blanks(is_terminal: bool) -> None:
    """In a pipe they are as many as the line is wide: 200 for a hint of three words."""
    report, screen = Report((STARTS, SAVES, INFO, TRAINS)), io.StringIO()
    report.passed(STARTS)
    report.failed(SAVES, f"first line\nsecond {'word ' * 60}", hint="a hint")
    report.warned(INFO, "a detail " * 40)
    show(report, Console(file=screen, force_terminal=is_terminal, width=100, color_system=None))
    lines = screen.getvalue().splitlines()
    assert [line for line in lines if line != line.rstrip()] == []
    below = lines[lines.index(next(line for line in lines if line.endswith("saves a checkpoint"))) + 1 :]
    assert below[0].strip() == "first line"
    assert below[0].startswith(" ")
    assert max(len(line) for line in lines) <= (100 if is_terminal else 10_000)
    assert "-> a hint" in [line.strip() for line in below]
