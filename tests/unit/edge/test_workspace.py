"""Folders of a site that others have made, or prepared."""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from flavor.edge.workspace import Workspace
from flavor.errors import InvalidSetting
from flavor.ownfolder import make_own_folder
from flavor.programs.process import ChildProcess
from tests.faults.servers import tmpfs


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


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives a folder to another user")
@pytest.mark.parametrize("where", ["here", "above", "beside"])
@pytest.mark.parametrize(
    ("owner", "mode", "refused"),
    [
        (0, 0o777, True),
        (0, 0o1777, False),
        (0, 0o775, False),
        (65534, 0o777, True),
        (65534, 0o1777, True),
        (65534, 0o755, False),
    ],
)
def test_below_a_folder_that_all_may_write_to_there_is_no_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, owner: int, mode: int, refused: bool
) -> None:
    """Whoever owns it, also where it is the current folder or lies above: each user could rename what is in it."""
    common, inner = tmp_path / "common", tmp_path / "common" / "inner"
    inner.mkdir(parents=True)
    beside = tmp_path / "beside"
    beside.mkdir()
    os.chown(common, owner, owner)
    common.chmod(mode)
    monkeypatch.chdir({"here": common, "beside": beside, "above": inner}[where])
    site = (inner if where == "above" else common) / "work" / "site-1"
    if not refused:
        make_own_folder(site)
        return
    with pytest.raises(InvalidSetting, match=f"the folder {common} .* who may put files in the place of yours"):
        make_own_folder(site)
    assert not site.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone mounts a file system")
@pytest.mark.parametrize("is_pod", [True, False])
def test_an_empty_volume_of_a_pod_takes_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_pod: bool
) -> None:
    """Kubernetes gives an `emptyDir` mode 0777; a folder in it that all may write to is refused as anywhere."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    if is_pod:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with tmpfs(tmp_path / "volume", "1m") as volume:
        volume.chmod(0o777)
        (volume / "open").mkdir()
        (volume / "open").chmod(0o777)
        for site, refused in ((volume / "site-1", not is_pod), (volume / "open" / "site-1", True)):
            with pytest.raises(InvalidSetting, match="can be written by others") if refused else nullcontext():
                make_own_folder(site)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives a link to another user")
@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (0o1777, "work is a link of another user, who may lead it elsewhere: name another"),
        (0o777, "common can be written by others, who may put files in the place of yours"),
        (0o755, ""),
    ],
)
def test_nobody_leads_the_way_to_the_workspace_elsewhere(tmp_path: Path, mode: int, said: str) -> None:
    """By a link of its own to a folder of this user's; where that user alone can put one, it is trusted."""
    common, precious = tmp_path / "common", tmp_path / "precious"
    common.mkdir()
    precious.mkdir()
    (common / "work").symlink_to(precious)
    os.lchown(common / "work", 65534, 65534)
    common.chmod(mode)
    if not said:
        make_own_folder(common / "work" / "site-1")
        return
    with pytest.raises(InvalidSetting, match=said):
        make_own_folder(common / "work" / "site-1")
    assert not [*precious.iterdir()]


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives a folder to another user")
def test_what_lies_below_a_folder_that_cannot_be_made_anew_is_checked_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some automounts and network file systems say so of a folder that is there, where others say that it exists."""
    place = tmp_path / "net"
    planted = place / "work"
    planted.mkdir(parents=True)
    os.chown(planted, 65534, 65534)
    planted.chmod(0o777)
    mkdir = Path.mkdir

    def made(folder: Path, mode: int = 0o777) -> None:
        if folder == place:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        mkdir(folder, mode)

    monkeypatch.setattr(Path, "mkdir", made)
    with pytest.raises(InvalidSetting, match="belongs to another user"):
        make_own_folder(planted, needed=False)


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
