"""Keeps the files of earlier runs out of the trainer's sight.

A file `.flavor-run.json` in the workspace says for which run and client the workspace was used last, which files the
edge left there, and how the trainer saves. It names the run by its id: a new run may have the name of an old one, and
the folders stay.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flavor.atomic import write_json
from flavor.checkpoints.site import OWN_FOLDER, Habits
from flavor.edge.workspace import Workspace
from flavor.errors import InvalidSetting
from flavor.records.run import RunView
from flavor.saved import is_saved, remove_saved


@dataclass
class Belongings:
    """The file `.flavor-run.json` of one workspace."""

    workspace: Workspace
    run: str
    identity: str
    client: str
    habits: Habits = field(default_factory=Habits)

    @classmethod
    def claim(
        cls, workspace: Workspace, view: RunView, client: str, command: Iterable[str], *, tell: Callable[[str], None]
    ) -> Belongings:
        """Take the workspace for this run and this client: remove, or move aside, the files of any other.

        Removes a file in the workspace's own folders that an earlier run left, and a file elsewhere (where
        `GLOBAL_MODEL_PATH` and the like pointed already) that has not changed since the edge put it there. Any other
        file is the user's own: it is renamed within its folder, and `tell` says so. Raises `InvalidSetting` when a file
        cannot be renamed. Files of the same run stay, so that an edge that is started again goes on with them.
        """
        mine = cls(workspace, view.run, view.run_id, client)
        known = _read(workspace.marker)
        is_mine = known.get("client", client) == client
        habits, words = known.get("habits", {}) if is_mine else {}, "\0".join(command)
        with contextlib.suppress(TypeError):
            mine.habits = Habits(**habits) if habits.get("command") == words else Habits(command=words)
        if known.get("identity") != mine.identity or not is_mine:
            workspace.beside.unlink(missing_ok=True)  # the edge has written it
            shutil.rmtree(workspace.beside.with_name(OWN_FOLDER), ignore_errors=True)
            left = known.get("left", {})
            for path in workspace.handed_files:
                if os.path.lexists(path):
                    mine._put_away(path, left.get(str(path)), tell, used="identity" in known)
        mine._write({})
        return mine

    def _put_away(self, path: Path, left: object, tell: Callable[[str], None], *, used: bool) -> None:
        own = path.is_relative_to(self.workspace.root) and used
        try:
            if own or left == _seen(path):
                if own and path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    remove_saved(path)
                return
            if path.is_dir() and not is_saved(path):  # the user's own folder, without a model
                return
            aside = _free(path.with_name(f"{path.name}.before-{self.run}"))
            path.rename(aside)
        except OSError as error:
            raise InvalidSetting(
                f"{path}: it was there before run {self.run!r}, whose trainer would take it for this run's, and cannot "
                f"be moved aside ({error.strerror}): move it yourself"
            ) from None
        tell(
            f"{path} was there before run {self.run!r}: moved to {aside.name}, so that the trainer does not take it "
            "for this run's (weights to start from are the coordinator's: --init-model)"
        )

    def learn(self, habits: Habits) -> None:
        """Write down how the trainer saves, if that has changed."""
        if habits != self.habits:
            self.habits = habits
            self._write({})

    def leave(self) -> None:
        """Write down which files lie there at the end, so that the next run recognizes them."""
        with contextlib.suppress(OSError):  # then the next run moves it aside
            self._write({str(path): seen for path in self.workspace.handed_files if (seen := _seen(path))})

    def _write(self, left: dict[str, list[int]]) -> None:
        path = self.workspace.marker
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            path,
            {
                "run": self.run,
                "identity": self.identity,
                "client": self.client,
                "left": left,
                "habits": asdict(self.habits),
            },
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _seen(path: Path) -> list[int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns]


def _free(path: Path) -> Path:
    """`path`, or the same with a number behind it where that exists already."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
