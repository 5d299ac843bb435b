"""Has the tests keep objects of remote stores in a cache of their own, and not in that of the user who runs them.

Each object that comes into a cache costs a look at all that lie there: in a cache that earlier sessions had filled,
a run in a bucket took several times as long. matplotlib keeps its list of fonts, which takes seconds to make.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def choose() -> None:
    """Choose the folder for the caches of this process, and of all that it starts."""
    folder = Path(tempfile.mkdtemp(prefix="flavor-caches-"))
    folder.chmod(0o711)  # some tests are about other users, who go through it
    fonts = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "matplotlib"
    fonts.mkdir(parents=True, exist_ok=True)
    (folder / "matplotlib").symlink_to(fonts.resolve())
    os.environ["XDG_CACHE_HOME"] = str(folder)
    atexit.register(_remove, folder, os.getpid())


def _remove(folder: Path, maker: int) -> None:
    if os.getpid() == maker:  # and not a process that was forked from it
        shutil.rmtree(folder, ignore_errors=True)


choose()
