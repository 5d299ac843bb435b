"""The file in which a script leaves its report for its edge."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flavor.programs.report_file import read_fault, read_report, report_path, stamp_of, write_fault, write_report
from flavor.records.reported import MOST_BYTES, Reported


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return tmp_path / "model.ckpt"


def test_a_report_is_written_and_read_and_changes_the_stamp(local: Path) -> None:
    assert (stamp_of(local), read_report(local), read_fault(local)) == (None, None, "")
    write_report(local, Reported(1, 3))
    before = stamp_of(local)
    write_report(local, Reported(2, 3))
    assert before != stamp_of(local) is not None
    assert read_report(local) == Reported(2, 3)
    assert [path.name for path in local.parent.iterdir()] == [".flavor-report.json"]


def test_a_fault_is_no_report(local: Path) -> None:
    write_fault(local, "done must be a number" + "!" * 10_000)
    assert read_report(local) is None
    assert read_fault(local).startswith("done must be a number!!")
    write_report(local, Reported(1))
    assert read_fault(local) == ""


@pytest.mark.parametrize("content", [b"[" * 4000, b"\xff\xfe", b"{", b" " * (MOST_BYTES + 1), b'{"fault": 3}', b""])
def test_whatever_lies_there_is_read_without_an_error(local: Path, content: bytes) -> None:
    report_path(local).write_bytes(content)
    assert (read_report(local), read_fault(local)) == (None, "")


def test_a_file_that_is_too_long_is_no_report(local: Path) -> None:
    report_path(local).write_text(Reported(1).to_json() + " " * MOST_BYTES)
    assert read_report(local) is None


def test_links_fifos_and_folders_are_not_read(local: Path) -> None:
    other = local.with_name("other")
    other.write_text(Reported(1).to_json())
    for make in (lambda path: path.symlink_to(other), os.mkfifo, os.mkdir):
        make(report_path(local))
        assert (stamp_of(local), read_report(local), read_fault(local)) == (None, None, "")
        if report_path(local).is_dir():
            report_path(local).rmdir()
        else:
            report_path(local).unlink()
