"""The folders and files that an edge and its trainer share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flavor.checkpoints.format import ANY_EXTENSION, Format
from flavor.errors import InvalidSetting
from flavor.ownfolder import make_own_folder
from flavor.programs.finished_mark import mark_path
from flavor.programs.report_file import report_path
from flavor.records.info import FILE_NAME, MERGED_NAME
from flavor.saved import SHARDED, remove_saved


@dataclass(frozen=True)
class Workspace:
    """The folders and files of one client.

    The environment's `INPUT_PATH`, `OUTPUT_PATH`, `LOCAL_MODEL_PATH`, `GLOBAL_MODEL_PATH` and `LOG_PATH` are kept where
    they are set; all other paths lie below one folder.
    """

    root: Path
    """The folder of the edge's own files, and of folders that the environment does not name."""
    input: Path
    output: Path
    local_model: Path
    global_model: Path
    log: Path
    beside: Path
    """The edge's own file with what the trainer saved beside its state_dict."""
    given: Mapping[str, str] = field(default_factory=dict)
    """The paths that the environment named, by variable."""

    @classmethod
    def prepare(
        cls,
        root: Path,
        *,
        environment: Mapping[str, str],
        input_path: Path | None = None,
        format_: str | None = None,
        otherwise: str = "set INPUT_PATH or --input",
    ) -> Workspace:
        """Choose the paths and make the folders; `format_` chooses the extension of the checkpoints' file names.

        `otherwise` says how the user names another input folder.

        Raises `InvalidSetting` for paths that cannot be used.
        """
        given: dict[str, str] = {}

        def chosen(variable: str, default: Path) -> Path:
            if named := environment.get(variable):
                given[variable] = named
            return Path(named or default).absolute()

        extension = ANY_EXTENSION
        if format_:
            extension = "" if format_ == SHARDED else Format(format_).extension
        workspace = cls(
            root=root.absolute(),
            input=input_path.absolute() if input_path else chosen("INPUT_PATH", Path.cwd()),
            output=chosen("OUTPUT_PATH", root / "output"),
            local_model=chosen("LOCAL_MODEL_PATH", root / "local" / f"model{extension}"),
            global_model=chosen("GLOBAL_MODEL_PATH", root / "global" / f"model{extension}"),
            log=chosen("LOG_PATH", root / "logs"),
            beside=root.absolute() / ".edge" / "beside",
            given=given,
        )
        if workspace.local_model == workspace.global_model:
            raise InvalidSetting(
                f"LOCAL_MODEL_PATH and GLOBAL_MODEL_PATH are both {workspace.local_model}: use two files, so that what "
                "the trainer saves is told from what it is given"
            )
        if not workspace.input.is_dir():
            raise InvalidSetting(f"the input folder {workspace.input} does not exist: {otherwise}")
        for folder in (
            workspace.root,
            workspace.output,
            workspace.local_model.parent,
            workspace.global_model.parent,
            workspace.log,
            workspace.beside.parent,
        ):
            make_own_folder(folder.parent)
            try:
                if folder.is_symlink() and not folder.exists() and folder.is_relative_to(workspace.root):
                    folder.unlink()  # that of `flavor.edge.relay`, whose folder the user has removed
                folder.mkdir(mode=0o700, exist_ok=True)  # models and logs are this user's alone
                found = folder.stat()
            except OSError as error:
                raise InvalidSetting(f"the folder {folder} cannot be made: {error.strerror}") from None
            if found.st_uid != os.geteuid() and found.st_mode & 0o022:
                raise InvalidSetting(
                    f"the folder {folder} belongs to another user, and others may write there: name another --workspace"
                )
        return workspace

    @property
    def marker(self) -> Path:
        """The edge's note of the run that these files belong to."""
        return self.root / ".flavor-run.json"

    @property
    def local_info(self) -> Path:
        """The client's info.json."""
        return self.local_model.parent / FILE_NAME

    @property
    def merged_infos(self) -> tuple[Path, ...]:
        """The files of the merged information: `merged-info.json` beside the global model.

        Where the local model lies in another folder, `info.json` beside the global model is one, too.
        """
        folder = self.global_model.parent
        merged, info = folder / MERGED_NAME, folder / FILE_NAME
        return (merged,) if info == self.local_info else (merged, info)

    @property
    def handed_files(self) -> tuple[Path, ...]:
        """The files that edge and trainer hand to each other."""
        return self.local_model, self.local_info, self.global_model, *self.merged_infos

    def clear_local(self) -> None:
        """Remove the trainer's checkpoint, info.json and report, so that an old file is never taken for a new one."""
        remove_saved(self.local_model)
        self.local_info.unlink(missing_ok=True)
        mark_path(self.local_model).unlink(missing_ok=True)
        report_path(self.local_model).unlink(missing_ok=True)
