"""No two edges hand files over in one folder, and an edge that is gone holds none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flavor.check.folders import Folders
from flavor.edge.hold import LOCK, Hold
from flavor.edge.workspace import Workspace
from flavor.errors import InvalidSetting


def prepared(root: Path, **environment: Path) -> Workspace:
    return Workspace.prepare(
        root, environment={name: str(path) for name, path in environment.items()}, input_path=Path("/")
    )


def hold(who: str, told: list[str] | None = None) -> Hold:
    return Hold(who, who, tell=(told if told is not None else []).append)


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(LOCK)]


@pytest.mark.parametrize(
    ("variable", "first", "second"),
    [
        ("LOCAL_MODEL_PATH", "shared/local.ckpt", "shared/local.ckpt"),
        ("LOCAL_MODEL_PATH", "shared/one.ckpt", "shared/two.ckpt"),  # info.json would be one
        ("GLOBAL_MODEL_PATH", "shared/global.ckpt", "linked/global.ckpt"),
        ("OUTPUT_PATH", "shared", "shared"),
    ],
)
def test_a_path_of_another_edge_is_refused_by_name(tmp_path: Path, variable: str, first: str, second: str) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "linked").symlink_to("shared")
    mine, theirs = hold("client 'site-1' of run 'r'"), hold("client 'site-2' of run 's'")
    mine.take(prepared(tmp_path / "a", **{variable: tmp_path / first}))
    with pytest.raises(InvalidSetting) as refused:
        theirs.take(prepared(tmp_path / "b", **{variable: tmp_path / second}))
    said = str(refused.value)
    assert said.startswith(f"{variable} {tmp_path / second}: ")
    assert f"client 'site-1' of run 'r' has it (pid {os.getpid()})" in said
    assert f"unset {variable}" in said
    assert left(tmp_path / "b") == [], "a process that was refused holds nothing"
    mine.leave()
    theirs.take(prepared(tmp_path / "b", **{variable: tmp_path / second}))
    theirs.leave()
    assert left(tmp_path) == []


def test_a_workspace_of_another_edge_is_refused(tmp_path: Path) -> None:
    mine, theirs = hold("client 'site-1' of run 'r'"), hold("client 'site-2' of run 'r'")
    mine.take(prepared(tmp_path / "w"))
    with pytest.raises(InvalidSetting, match=r"/w is in use: client 'site-1'.*another --workspace"):
        theirs.take(prepared(tmp_path / "w"))
    mine.leave()


def test_one_edge_may_have_all_in_one_folder(tmp_path: Path) -> None:
    both = {"LOCAL_MODEL_PATH": tmp_path / "x/local", "GLOBAL_MODEL_PATH": tmp_path / "x/global"}
    mine = hold("a")
    mine.take(prepared(tmp_path / "x", OUTPUT_PATH=tmp_path / "x", **both))
    assert left(tmp_path) == [LOCK]
    mine.leave()


HOLD = """
import sys
from pathlib import Path
from flavor.edge.hold import Hold
from flavor.edge.workspace import Workspace
hold = Hold("client 'gone'", "gone", tell=print)
hold.take(Workspace.prepare(Path(sys.argv[1]), environment={}, input_path=Path("/")))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "w")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InvalidSetting, match=rf"'gone' has it \(pid {holder.pid}\)"):
            hold("next").take(prepared(tmp_path / "w"))
        holder.send_signal(signal.SIGKILL)
    mine = hold("next")
    mine.take(prepared(tmp_path / "w"))
    mine.leave()


def test_the_same_client_takes_over_and_is_not_undone_by_the_one_before(tmp_path: Path) -> None:
    """A later process of the client goes on; the paused one ends when it wakes, and removes no other's lock."""
    workspace = prepared(tmp_path / "w")
    paused, mine, other = hold("site-1"), hold("site-1"), hold("site-2")
    paused.take(workspace)
    mine.take(workspace)
    paused.leave()
    with pytest.raises(InvalidSetting, match="site-1 has it"):
        other.take(workspace)
    mine.leave()
    other.take(workspace)
    other.leave()


def test_a_folder_that_cannot_be_locked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    workspace, told = prepared(tmp_path / "w"), list[str]()
    monkeypatch.setattr("fcntl.flock", unsupported)
    hold("a", told).take(workspace)
    assert told[0] == f"{tmp_path / 'w'} cannot be locked (Operation not supported): see that no other edge uses it"


def test_check_fl_does_not_run_on_an_edges_files(tmp_path: Path) -> None:
    mine = hold("client 'site-1' of run 'r'")
    workspace = prepared(tmp_path / "w", LOCAL_MODEL_PATH=tmp_path / "x/local")
    mine.take(workspace)
    workspace.local_model.write_text("of the edge")
    with pytest.raises(InvalidSetting, match=r"LOCAL_MODEL_PATH .* client 'site-1'"):
        Folders({"LOCAL_MODEL_PATH": str(workspace.local_model)})
    assert workspace.local_model.read_text() == "of the edge"
    mine.leave()
    Folders({"LOCAL_MODEL_PATH": str(workspace.local_model)}).close(keep=False)
    assert left(tmp_path) == []


@pytest.mark.parametrize("text", ["[" * 200_000, "[]", "{"])
def test_a_holder_whose_file_is_damaged_holds_the_folder_all_the_same(tmp_path: Path, text: str) -> None:
    hold("client 'site-1' of run 'r'").take(prepared(tmp_path / "a"))
    for lock in (tmp_path / "a").rglob(LOCK):
        lock.write_text(text)
    with pytest.raises(InvalidSetting, match="is in use"):
        hold("client 'site-2' of run 's'").take(prepared(tmp_path / "a"))
