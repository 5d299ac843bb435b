"""The folder in which a user's aggregator works."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from flavor.errors import InvalidSetting
from flavor.programs.aggregator import UserAggregator
from flavor.programs.aggregator_folder import AggregatorFolder


def test_a_folder_is_taken_as_long_as_a_process_of_it_lives(tmp_path: Path) -> None:
    with AggregatorFolder(tmp_path, "r") as first, AggregatorFolder(tmp_path, "r") as second:
        assert [first.path.name, second.path.name] == ["r", "r+2"]
        left = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[first.lock])
    try:
        with AggregatorFolder(tmp_path, "r") as third:
            assert third.path.name == "r+2"
    finally:
        left.communicate()
    with AggregatorFolder(tmp_path, "r") as last:
        assert last.path.name == "r"


def test_named_folders_are_used_in_place_of_those_in_the_workspace(tmp_path: Path) -> None:
    own = UserAggregator(("true",), tmp_path / "w", output=tmp_path / "out", logs=tmp_path / "log")
    with own.folder("r") as folder:
        folder.open_to_aggregator()
        assert (folder.output, folder.logs) == (tmp_path / "out", tmp_path / "log")
        assert folder.log_file == tmp_path / "log/aggregator.log"
        assert folder.output.is_dir()
        found = own.environment({}, "r", 3, output=folder.output, logs=folder.logs)
    assert {name: found[name] for name in found if name not in ("PATH", "PYTHONUNBUFFERED")} == {
        "OUTPUT_PATH": str(tmp_path / "out"),
        "LOG_PATH": str(tmp_path / "log"),
        "TOTAL_ROUNDS": "3",
        "FLAVOR_ROLE": "aggregator",
        "FLAVOR_RUN": "r",
    }


def test_an_output_folder_has_one_worker(tmp_path: Path) -> None:
    own = UserAggregator(("true",), tmp_path / "w", output=tmp_path)
    own.take_output()
    try:
        with pytest.raises(InvalidSetting, match=r"is another flavor-agg's on this machine"):
            own.take_output()
    finally:  # it is kept as long as the process lives, and this one is pytest's
        for link in list(Path("/proc/self/fd").iterdir()):
            with contextlib.suppress(FileNotFoundError):
                if link.readlink() == tmp_path:
                    os.close(int(link.name))
