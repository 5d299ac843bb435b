"""The file that `check-fv --model` names."""

from __future__ import annotations

import os
from pathlib import Path

from click.testing import CliRunner

from flavor.cli.check_fv import command


def test_a_pipe_is_refused_in_one_line_and_not_read(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "model.pt")
    result = CliRunner().invoke(command, ["-m", "true", "--model", str(pipe)])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert f"--model {pipe}: it is no file: a pipe or a device cannot be read twice" in line
