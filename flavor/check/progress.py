"""Looks at what a training script reports of its progress, if it does."""

from __future__ import annotations

from pathlib import Path

from flavor.check.report import Report
from flavor.check.trainer_checks import REPORTS
from flavor.printable import printable
from flavor.programs.report_file import read_fault, read_report


def look_at_progress(report: Report, local_model: Path) -> None:
    """Record what the script has reported last. Call this before the file of its report is removed."""
    if (reported := read_report(local_model)) is not None:
        report.passed(REPORTS, printable(reported.line))
    elif fault := read_fault(local_model):
        report.warned(REPORTS, printable(f"Report was called, and has never worked: {fault}"))
