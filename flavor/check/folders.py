"""The script's files during a check: their places, their contents, and whether they were read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from flavor.atomic import taking_place
from flavor.edge.hold import Hold
from flavor.edge.workspace import Workspace
from flavor.programs.own_variates import write_own_variates
from flavor.records.info import FILE_NAME


class Stamp(NamedTuple):
    """Marks one content of a file, at low cost; None stands for no file."""

    inode: int
    size_bytes: int
    changed_ns: int


def stamp(path: Path) -> Stamp | None:
    """Return the mark of the file as it is now."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


class Folders:
    """A temporary folder, and the workspace in it; paths in the environment are used as they are.

    Round one starts from a global model that lies at `GLOBAL_MODEL_PATH` before the check; `close` puts it back.
    """

    def __init__(self, environment: Mapping[str, str], *, name: str = "check-fl") -> None:
        """Make them; `name` is the program that checks."""
        self.root = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self.input_is_empty = not environment.get("INPUT_PATH")
        self._hold = Hold(name, str(self.root), tell=lambda _: None)
        try:
            if self.input_is_empty:
                (self.root / "input").mkdir()
            self.workspace = Workspace.prepare(
                self.root,
                environment=environment,
                input_path=self.root / "input" if self.input_is_empty else None,
                otherwise="set INPUT_PATH to the folder of the data",
            )
            self._hold.take(self.workspace)  # an edge's files would be replaced by the script's
            self.before = {
                path: self._copy(path, f"before/{path.name}")
                for path in (self.workspace.global_model, *self.workspace.merged_infos)
            }
        except BaseException:
            self._hold.leave()
            shutil.rmtree(self.root, ignore_errors=True)
            raise

    @property
    def pretrained(self) -> Path | None:
        """A copy of the global model before round one, if there is one."""
        return self.before[self.workspace.global_model]

    def stamps(self) -> tuple[Stamp | None, Stamp | None]:
        """Return the marks of the local model and its info.json as they are now."""
        return stamp(self.workspace.local_model), stamp(self.workspace.local_info)

    def take(self, round_: int) -> Path:
        """Copy the local model of this round, so that the script cannot change it during the inspection."""
        copied = self._copy(self.workspace.local_model, f"round-{round_}/local{self.workspace.local_model.suffix}")
        assert copied is not None
        return copied

    def global_copy(self, round_: int) -> Path:
        """Return the path of the global model that was made in this round."""
        return self.root / f"round-{round_}" / f"global{self.workspace.global_model.suffix}"

    def place_global(self, round_: int) -> None:
        """Put this round's global model where the script reads it, whole or not at all."""
        with taking_place(self.workspace.global_model) as temporary:
            shutil.copyfile(self.global_copy(round_), temporary)

    def place_made_in(self, round_: int) -> None:
        """Put this round's global model and the merged info.json, if there is one, where the script reads them."""
        self.place_global(round_)
        if (merged := self.global_copy(round_).with_name(FILE_NAME)).is_file():
            for path in self.workspace.merged_infos:
                shutil.copyfile(merged, path)

    def close(self, *, keep: bool) -> Path | None:
        """Put back what was at `GLOBAL_MODEL_PATH`; remove the temporary folder, or keep it and return it."""
        for path, saved in self.before.items():
            if not path.is_relative_to(self.root):
                path.unlink(missing_ok=True)
                if saved is not None:
                    shutil.copy2(saved, path)
        write_own_variates(self.workspace.global_model, ())
        self._hold.leave()
        if keep:
            return self.root
        shutil.rmtree(self.root, ignore_errors=True)
        return None

    def _copy(self, path: Path, name: str) -> Path | None:
        if not path.is_file():
            return None
        target = self.root / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(path, target)
        return target
