"""A result folder belongs to one run; flavor writes into no folder of another run or program."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from flavor.errors import InvalidSetting
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.results.claim import MARK, check_own, check_unclaimed, claim, holds

VIEW = RunView("r", RunState.RUNNING, 2, 5, {}, "", None, 0, None, run_id="1" * 32)


def unknown(round_: int) -> str:
    return ""


def test_the_second_run_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    claim(tmp_path, VIEW, unknown)
    (tmp_path / "metrics.csv").touch()
    claim(tmp_path, VIEW, unknown)
    for other in (replace(VIEW, run="other"), replace(VIEW, run_id="2" * 32), replace(VIEW, run="other", run_id="")):
        with pytest.raises(InvalidSetting, match=r"holds the results of an.* run 'r': name another folder"):
            claim(tmp_path, other, unknown)
        with pytest.raises(InvalidSetting, match="holds the results of"):
            claim(tmp_path, other, unknown, is_own=True)
    assert VIEW.run_id in (tmp_path / MARK).read_text()


def test_before_it_begins_a_run_needs_a_folder_of_its_own(tmp_path: Path) -> None:
    check_own(tmp_path / "new", "r", None, unknown)
    for name in (".DS_Store", "lost+found"):
        (tmp_path / name).touch()
    check_own(tmp_path, "r", None, unknown)
    check_unclaimed(tmp_path)
    claim(tmp_path, VIEW, unknown)
    with pytest.raises(InvalidSetting, match=r"not on this Redis: .*flavor recover --run r"):
        check_own(tmp_path, "r", None, unknown)
    for check in (lambda: check_own(tmp_path, "s", None, unknown), lambda: check_unclaimed(tmp_path)):
        with pytest.raises(InvalidSetting, match="holds the results of run 'r'"):
            check()


@pytest.mark.parametrize("names", [["metrics.csv"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d", "e"]])
def test_files_of_others_are_named(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    shown = {1: "metrics.csv", 2: "a and b", 3: "a, b and c", 5: "a, b, c and 2 more"}[len(names)]
    assert holds(names) == shown
    for check in (
        lambda: check_unclaimed(tmp_path),
        lambda: claim(tmp_path, VIEW, unknown),
        lambda: check_own(tmp_path, "r", None, unknown),
    ):
        with pytest.raises(InvalidSetting, match=f"is not empty: it holds {shown}, which would be mixed"):
            check()
    assert not (tmp_path / MARK).exists()


def test_a_folder_without_a_mark_belongs_to_the_run_that_recorded_its_newest_model(tmp_path: Path) -> None:
    (tmp_path / "global").mkdir()
    for number, content in ((1, b"first"), (2, b"second")):
        (tmp_path / f"global/round-{number:04d}.safetensors").write_bytes(content)
    digests = {2: hashlib.sha256(b"second").hexdigest()}
    for view, known in ((VIEW, {2: "0" * 64}), (VIEW, {}), (replace(VIEW, round=1), digests)):
        with pytest.raises(InvalidSetting, match="is not empty: it holds global, which"):
            claim(tmp_path, view, lambda number, known=known: known.get(number, ""))
    claim(tmp_path, VIEW, lambda number: digests[number])
    assert (tmp_path / MARK).exists()


def test_a_mark_that_cannot_be_read_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSetting, match="file: Not a directory"):
        check_unclaimed(tmp_path / "file")
    for damaged in ("", "[]", "{}", '{"run": "r"}', "\xff"):
        (tmp_path / MARK).write_text(damaged, encoding="latin-1")
        with pytest.raises(InvalidSetting, match="cannot be read"):
            claim(tmp_path, VIEW, unknown)
