"""The information that a user's aggregator leaves: any text at all is read as metrics or refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import pytest

from flavor.checkpoints import TensorFileWriter, TensorSpec
from flavor.checkpoints.kinds import OPAQUE, TENSORS
from flavor.errors import AggregatorFailed, CheckpointError
from flavor.programs.aggregator_files import RoundFiles
from flavor.records.info import Info
from tests.unit.contributions.madeup import MadeRun
from workers.combiner import Combined, Work
from workers.command_result import _check_tensors, _info, _linked_wire


class OnlyInfo:
    """What of a `Work` is read."""

    info: ClassVar[Info] = {"metadata": {"clients": ["c1"]}, "metrics": {"a": 1}}


def left(folder: Path, text: str) -> Info:
    files = RoundFiles.below(folder / "round", [], extension=".ckpt")
    files.write_global_info(OnlyInfo.info)
    files.global_info.write_text(text)
    return _info(cast(Work, OnlyInfo), files)


def test_numbers_and_lists_of_numbers_are_taken(tmp_path: Path) -> None:
    found = left(tmp_path, '{"metrics": {"a": 1, "b": [0.5, -2], "c": 1e300}}')
    assert found == {"metadata": {"clients": ["c1"]}, "metrics": {"a": 1, "b": [0.5, -2], "c": 1e300}}


@pytest.mark.parametrize(
    "text",
    [
        '{"metrics": {"a": 1e999}}',
        '{"metrics": {"a": [1, -1e999]}}',
        '{"metrics": {"a": NaN}}',
        '{"metrics": {"a": 1' + "0" * 400 + "}}",
        '{"metrics": {"a": 1' + "0" * 5000 + "}}",
        '{"metrics": ' + "[" * 200_000,
        '{"metrics": ' + '{"a":' * 200_000,
        '{"metrics": {"a": true}}',
        '{"metrics": {"a": [[1]]}}',
        '{"metrics": []}',
        "[]",
        "",
    ],
    ids=lambda text: text[:24],
)
def test_what_cannot_be_metrics_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(AggregatorFailed, match=r"GetPaths.'globalInfo'") as raised:
        left(tmp_path, text)
    assert "\n" not in str(raised.value)


def test_a_file_that_crosses_the_wire_as_it_is_gets_a_second_name_and_is_not_copied(tmp_path: Path) -> None:
    made, target = tmp_path / "made", tmp_path / "target"
    made.write_bytes(b"weights")
    wire = _linked_wire(OPAQUE, made, target)
    assert wire == OPAQUE.to_wire(made, tmp_path / "copy")
    assert target.samefile(made), "and its first name stays for a look"
    assert _linked_wire(OPAQUE, made, tmp_path / "again") is None, "another name of the file may be anybody's"
    (tmp_path / "link").symlink_to(tmp_path / "copy")
    assert _linked_wire(OPAQUE, tmp_path / "link", tmp_path / "again") is None
    assert _linked_wire(TENSORS, tmp_path / "copy", tmp_path / "again") is None, "tensors are converted"
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("value", "said"), [(np.inf, "has NaN or infinite values"), (2e19, "has values whose squares have no room")]
)
def test_a_model_that_no_site_could_hand_in_is_refused(tmp_path: Path, value: float, said: str) -> None:
    """Also where a constant buffer, which is what the sites have, has such values by design."""
    mask = np.array([0, -3.4e38], np.float32)

    class Writes:
        made_by = "command"

        def combine(self, work: Work, target: Path) -> Combined:
            with TensorFileWriter(target, [TensorSpec(name, np.dtype(np.float32), (2,)) for name in "mw"]) as writer:
                writer.write("m", mask)
                writer.write("w", np.array([1, value], np.float32))
            _check_tensors(work, target)
            raise AssertionError("it was taken")

    run = MadeRun(tmp_path, initial={"m": mask, "w": np.zeros(2, np.float32)})
    given = {client: ({"m": mask, "w": np.ones(2, np.float32)}, 10) for client in "ab"}
    with pytest.raises(CheckpointError, match=f"tensor 'w' {said}"):
        run.round(given, constants={"a": ["m"], "b": ["m"]}, combiner=Writes())
