"""The parts of a local run: its clients, their inputs, and the paths in its result folder."""

from __future__ import annotations

import glob
import re
import secrets
import shlex
import time
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from flavor.errors import InvalidSetting
from flavor.local.record import Record
from flavor.records.names import checked_name
from flavor.results.claim import check_unclaimed

_OURS = re.compile(r"coordinator|aggregator(-\d+)?")
"""Names of the processes of a local run that are no edges, and of their logs; a client gets another name."""


@dataclass(frozen=True)
class Site:
    """One client of a local run."""

    client: str
    input: Path


@dataclass(frozen=True)
class Layout:
    """The result folder of a local run."""

    out: Path
    is_begun: bool = False
    """Whether the caller has put files of its own into the new folder."""

    @property
    def store(self) -> Path:
        """The object store, unless another is named."""
        return self.out / "store"

    @property
    def redis(self) -> Path:
        """What the run's own server keeps."""
        return self.out / "redis"

    @property
    def logs(self) -> Path:
        """A log for each process."""
        return self.out / "logs"

    def log(self, name: str) -> Path:
        """The log of one process."""
        return self.logs / f"{name}.log"

    def blocked(self, name: str) -> Path:
        """The file in which one process says what keeps it from going on."""
        return self.logs / f"{name}.blocked"

    def workspace(self, client: str) -> Path:
        """One client's folders."""
        return self.out / "clients" / client

    def check_unused(self) -> None:
        """Raise `InvalidSetting` unless the folder is missing or empty: flavor replaces no file of another."""
        if Record.is_in(self.out):
            raise InvalidSetting(
                f"there are results of a run in {self.out}: name another run (--run) or folder (--out), or go on with "
                f"that one: flavor run --resume {shlex.quote(str(self.out))}"
            )
        if not self.is_begun:
            check_unclaimed(self.out)

    def prepare(self) -> None:
        """Make the folder, which must be missing or empty.

        Only this user can enter it: it holds keys, models and the output of scripts. A folder that was there before
        keeps its permissions; what is secret lies in folders below that only this user can enter.
        """
        self.check_unused()
        self.make()
        try:
            self.logs.mkdir(mode=0o700)
        except OSError as error:
            raise InvalidSetting(f"--out {self.out}: {error.strerror}") from None

    def make(self) -> None:
        """Make the folder. Raises `InvalidSetting` where it cannot be made."""
        try:
            self.out.mkdir(parents=True, mode=0o700, exist_ok=True)
        except OSError as error:
            raise InvalidSetting(f"--out {self.out}: {error.strerror}") from None


def new_run_name() -> str:
    """A name that no other run has."""
    return time.strftime("run-%Y%m%d-%H%M%S-") + secrets.token_hex(2)


def _name(folder: str) -> str:
    """A client's name made from a folder's, of the characters that a name may have: `site 0` is `site-0`."""
    plain = unicodedata.normalize("NFKD", folder).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._") or folder


def sites(edges: int | None, input_path: Path | None, input_glob: str | None) -> list[Site]:
    """The clients: `edges` of them on one input folder, or one for each folder that matches `input_glob`.

    Raises `InvalidSetting` when the two do not agree or a folder is missing.
    """
    if input_glob is None:
        if edges is None:
            raise InvalidSetting(
                "--edges: say how many edges to start (or --input-glob 'site*/' for one for each folder)"
            )
        folder = (input_path or Path.cwd()).absolute()
        return [Site(f"edge-{number:0{len(str(edges))}d}", folder) for number in range(1, edges + 1)]
    if input_path is not None:
        raise InvalidSetting("--input and --input-glob exclude each other")
    folders = sorted(Path(match).absolute() for match in glob.glob(input_glob) if Path(match).is_dir())
    if not folders:
        raise InvalidSetting(
            f"--input-glob {input_glob!r} matches no folder (quote it, so that the shell leaves it alone)"
        )
    if edges is not None and edges != len(folders):
        raise InvalidSetting(f"--edges {edges} but --input-glob {input_glob!r} matches {len(folders)} folders")
    names = [f"site-{folder.name}" if _OURS.fullmatch(folder.name) else _name(folder.name) for folder in folders]
    if len(set(names)) < len(names):
        names = [_name(f"{folder.parent.name}-{folder.name}") for folder in folders]
    if len(set(names)) < len(names):
        raise InvalidSetting(
            f"--input-glob {input_glob!r}: several folders would be called {max(names, key=names.count)!r}"
        )
    return [
        Site(checked_name(name, "client (a folder's name)"), folder)
        for name, folder in zip(names, folders, strict=True)
    ]
