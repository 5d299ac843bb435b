"""What another run has left in a client's folders is out of the trainer's sight; what is somebody's own stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flavor.edge.belongings import Belongings, Habits
from flavor.edge.workspace import Workspace
from flavor.errors import InvalidSetting
from flavor.records.run import RunView
from flavor.records.states import RunState

COMMAND = ("python", "main.py")


def view(created_ms: int) -> RunView:
    """A run `r`: each with a creation time of its own is another one."""
    fields = {"state": RunState.WAITING, "round": "0", "rounds": "3", "config": "{}", "created_ms": str(created_ms)}
    return RunView.from_hash("r", {**fields, "run_id": f"{created_ms:032x}", "protocol": "2"})


def prepared(root: Path, **environment: Path) -> Workspace:
    return Workspace.prepare(
        root, environment={name: str(path) for name, path in environment.items()}, input_path=Path("/")
    )


def filled(workspace: Workspace) -> tuple[Path, ...]:
    for path in workspace.handed_files:
        path.write_text(path.name)
    return workspace.handed_files


def claim(
    workspace: Workspace, run: int, told: list[str], command: tuple[str, ...] = COMMAND, client: str = "site-1"
) -> Belongings:
    return Belongings.claim(workspace, view(run), client, command, tell=told.append)


KINDS = ("local model", "local info", "global model", "merged info", "info beside the global model")


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_earlier_run_left_in_the_workspace_is_removed(tmp_path: Path, kind: str) -> None:
    workspace, told = prepared(tmp_path / "w"), list[str]()
    claim(workspace, 1, told)
    path = workspace.handed_files[KINDS.index(kind)]
    path.write_text("of the first run")
    claim(workspace, 1, told)
    assert path.read_text() == "of the first run", "an edge of the same run that is started again needs it"
    claim(workspace, 2, told)
    assert not path.exists()
    assert list(path.parent.iterdir()) == []
    assert told == []


def test_files_of_nobody_knows_which_run_are_moved_aside_and_told_of(tmp_path: Path) -> None:
    workspace, told = prepared(tmp_path / "w"), list[str]()
    files = filled(workspace)
    claim(workspace, 1, told)
    for path in files:
        assert not path.exists()
        assert path.with_name(f"{path.name}.before-r").read_text() == path.name
    assert len(told) == len(files)
    assert "--init-model" in told[0]


def test_files_that_an_image_names_are_never_deleted_unless_the_edge_put_them_there(tmp_path: Path) -> None:
    weight = tmp_path / "weight"
    paths = {"LOCAL_MODEL_PATH": weight / "local.ckpt", "GLOBAL_MODEL_PATH": weight / "global.ckpt"}
    workspace, told = prepared(tmp_path / "w", **paths), list[str]()
    first = claim(workspace, 1, told)
    workspace.global_model.write_text("of the first run")
    workspace.local_model.write_text("the trainer's")
    first.leave()
    workspace.local_model.write_text("written by somebody since")
    claim(workspace, 2, told)
    assert not workspace.global_model.exists()
    assert not workspace.local_model.exists()
    assert (weight / "local.ckpt.before-r").read_text() == "written by somebody since"
    assert len(told) == 1
    workspace.local_model.write_text("again")
    claim(workspace, 3, told)
    assert (weight / "local.ckpt.before-r").read_text() == "written by somebody since"
    assert (weight / "local.ckpt.before-r-2").read_text() == "again"


def test_a_link_is_moved_and_not_what_it_leads_to(tmp_path: Path) -> None:
    own = tmp_path / "pretrained.ckpt"
    own.write_text("mine")
    workspace, told = prepared(tmp_path / "w", GLOBAL_MODEL_PATH=tmp_path / "g" / "global.ckpt"), list[str]()
    workspace.global_model.symlink_to(own)
    claim(workspace, 1, told)
    assert not workspace.global_model.is_symlink()
    assert own.read_text() == "mine"


def test_what_cannot_be_moved_is_said_and_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = prepared(tmp_path / "w", GLOBAL_MODEL_PATH=tmp_path / "g" / "global.ckpt")
    workspace.global_model.write_text("mine")

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(InvalidSetting, match=r"global\.ckpt: it was there before run 'r'.*Permission denied"):
        claim(workspace, 1, [])


def test_how_the_trainer_saves_is_remembered_as_long_as_it_is_the_same_command(tmp_path: Path) -> None:
    workspace = prepared(tmp_path / "w")
    first = claim(workspace, 1, [])
    first.learn(Habits(first.habits.command, "npz", "{}", {"w": "module.w"}))
    assert claim(workspace, 1, []).habits == first.habits
    assert claim(workspace, 2, []).habits == first.habits
    assert claim(workspace, 2, [], ("python", "other.py")).habits.format == ""


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 200_000, '{"habits": {"colour": 1}}', "\0"])
def test_a_marker_that_is_damaged_is_of_no_run(tmp_path: Path, text: str) -> None:
    workspace = prepared(tmp_path / "w")
    workspace.marker.write_text(text)
    filled(workspace)
    claim(workspace, 1, [])
    assert not any(path.exists() for path in workspace.handed_files)
    assert json.loads(workspace.marker.read_text())["run"] == "r"


def test_the_folders_are_the_users_alone(tmp_path: Path) -> None:
    workspace = prepared(tmp_path / "w", LOG_PATH=tmp_path / "logs")
    for folder in (workspace.root, workspace.local_model.parent, workspace.global_model.parent, workspace.log):
        assert folder.stat().st_mode & 0o077 == 0


def test_what_another_client_of_the_run_left_is_removed(tmp_path: Path) -> None:
    """Which had the same workspace before: its model is not this client's, nor are the texts of its state_dict."""
    workspace, told = prepared(tmp_path / "w"), list[str]()
    first = claim(workspace, 1, told, client="site-1")
    first.learn(Habits(command="\0".join(COMMAND), structure='{"root":{"d":[["who",{"c":"MEIER"}]]}}'))
    filled(workspace)
    second = claim(workspace, 1, told, client="site-2")
    assert not [path for path in workspace.handed_files if path.exists()]
    assert second.habits.structure == ""
    assert "MEIER" not in (workspace.marker).read_text()
