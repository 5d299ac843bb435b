"""Folders of a site that others have made, or prepared."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from flavor.edge.workspace import Workspace
from flavor.errors import InvalidSetting
from flavor.process import ChildProcess


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives a folder to another user")
@pytest.mark.parametrize(("mode", "refused"), [(0o777, True), (0o770, True), (0o755, False)])
def test_a_folder_of_anothers_is_used_if_nobody_else_writes_there(tmp_path: Path, mode: int, refused: bool) -> None:
    logs = tmp_path / "work" / "logs"
    logs.mkdir(parents=True)
    os.chown(logs, 65534, 65534)
    logs.chmod(mode)
    if not refused:
        Workspace.prepare(tmp_path / "work", environment={}, input_path=tmp_path)
        return
    with pytest.raises(InvalidSetting, match=r"logs belongs to another user.*name another --workspace"):
        Workspace.prepare(tmp_path / "work", environment={}, input_path=tmp_path)


def test_a_log_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    victim, log = tmp_path / "victim", tmp_path / "trainer.log"
    victim.write_text("precious")
    log.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        ChildProcess((sys.executable, "-c", "print(1)"), environment={}, log=log, prefix="", echo=None, private=True)
    assert victim.read_text() == "precious"
