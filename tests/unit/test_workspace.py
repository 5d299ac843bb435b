"""Folders of a site that others have made, or prepared."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from flavor.edge.workspace import Workspace
from flavor.errors import InvalidSetting
from flavor.ownfolder import make_own_folder
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


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives a folder to another user")
@pytest.mark.parametrize(
    ("owner", "mode", "said"),
    [
        (65534, 0o777, "belongs to another user, who may put files in the place of yours: name another --workspace"),
        (0, 0o777, r"flavor-work/r can be written by others, .*`chmod go-w .*flavor-work/r`, or name another"),
        (0, 0o775, ""),
        (0, 0o1777, ""),
        (65534, 0o755, ""),  # root may be given such a one, in a container
    ],
)
def test_nobody_swaps_a_folder_on_the_way_to_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, mode: int, said: str
) -> None:
    """Attacker first: `mkdir -p flavor-work/r` in a folder that all may write to; later `mv site-1`, and one of his."""
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o1777)
    planted = tmp_path / "flavor-work" / "r"
    planted.mkdir(parents=True)
    os.chown(planted, owner, owner)
    planted.chmod(mode)
    site = Path("flavor-work/r/site-1")
    if not said:
        Workspace.prepare(site, environment={}, input_path=tmp_path)
        make_own_folder(site)
        return
    for make in (lambda: Workspace.prepare(site, environment={}, input_path=tmp_path), lambda: make_own_folder(site)):
        with pytest.raises(InvalidSetting, match=said):
            make()
    assert not list(planted.iterdir()), "nothing was put there"


def test_what_is_made_on_the_way_to_the_workspace_is_not_for_others_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = os.umask(0)
    try:
        Workspace.prepare(Path("flavor-work/r/site-1"), environment={}, input_path=tmp_path)
    finally:
        os.umask(before)
    modes = [
        stat.S_IMODE(Path(name).stat().st_mode) for name in ("flavor-work", "flavor-work/r", "flavor-work/r/site-1")
    ]
    assert modes == [0o755, 0o755, 0o700]


def test_a_log_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    victim, log = tmp_path / "victim", tmp_path / "trainer.log"
    victim.write_text("precious")
    log.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        ChildProcess((sys.executable, "-c", "print(1)"), environment={}, log=log, prefix="", echo=None, private=True)
    assert victim.read_text() == "precious"
