"""Two sites whose edges hand files over at one place would take each other's models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flavor.edge.hold import held
from flavor.edge.workspace import Workspace
from flavor.errors import InvalidSetting


def prepared(root: Path, **environment: Path) -> Workspace:
    named = {name: str(path) for name, path in environment.items()}
    return Workspace.prepare(root, environment=named, input_path=Path("/"))


@pytest.mark.parametrize("shared", ["LOCAL_MODEL_PATH", "GLOBAL_MODEL_PATH", "info.json", "a link", "workspace"])
def test_a_folder_has_one_site_at_a_time(tmp_path: Path, shared: str) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    one, other = {
        "LOCAL_MODEL_PATH": ({"LOCAL_MODEL_PATH": folder / "model"}, {"LOCAL_MODEL_PATH": folder / "model"}),
        "GLOBAL_MODEL_PATH": ({"GLOBAL_MODEL_PATH": folder / "model"}, {"GLOBAL_MODEL_PATH": folder / "model"}),
        "info.json": ({"LOCAL_MODEL_PATH": folder / "one"}, {"LOCAL_MODEL_PATH": folder / "other"}),
        "a link": ({"LOCAL_MODEL_PATH": folder / "one"}, {"LOCAL_MODEL_PATH": tmp_path / "link" / "one"}),
        "workspace": ({}, {}),
    }[shared]
    first = prepared(tmp_path / "w", **one)
    second = prepared(tmp_path / ("w" if shared == "workspace" else "v"), **other)
    with held(first, "r", "site-1"):
        for run, client in (("r", "site-2"), ("s", "site-1")):
            with (
                pytest.raises(InvalidSetting, match=r"is in use: flavor-fl of 'site-1' in run 'r'"),
                held(second, run, client),
            ):
                pytest.fail("both have it")
        with held(second, "r", "site-1"):  # the same client: its lease decides
            pass
        with pytest.raises(InvalidSetting, match="is in use"), held(second, "r", "site-2"):
            pytest.fail("the first one still has it")
    with held(second, "r", "site-2"):
        pass
    assert not list(tmp_path.rglob(".flavor-lock")), "nothing is left behind"


def test_one_that_was_killed_leaves_no_lock(tmp_path: Path) -> None:
    workspace = prepared(tmp_path)
    script = (
        "import os, sys; from pathlib import Path; from flavor.edge.hold import held\n"
        "from flavor.edge.workspace import Workspace\n"
        "w = Workspace.prepare(Path(sys.argv[1]), environment={}, input_path=Path('/'))\n"
        "with held(w, 'r', 'site-1'): os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=False).returncode == -9
    assert list(tmp_path.rglob(".flavor-lock"))
    with held(workspace, "s", "site-2"):
        pass
    assert not list(tmp_path.rglob(".flavor-lock"))
