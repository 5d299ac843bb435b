"""Remove folders with all their contents: of any depth and any length of path, without recursion."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def remove_tree(folder: Path, aside: Path) -> None:
    """Remove `folder`; a missing folder is no error. `aside` is a folder on the same file system.

    Each folder below is moved to `aside` before it is emptied, so that no path grows with the depth: another party can
    nest folders deeper than the longest path and the deepest recursion. Raises the first `OSError` after everything
    else was removed; a folder that cannot be moved stays.
    """
    if not folder.is_dir() or folder.is_symlink():
        with contextlib.suppress(FileNotFoundError):
            folder.unlink()
        return
    waiting, failed = [folder], None
    while waiting:
        current = waiting.pop()
        try:
            for entry in list(os.scandir(current)):
                try:
                    if entry.is_dir(follow_symlinks=False):
                        moved = aside / f"removed-{secrets.token_hex(12)}"
                        os.rename(entry.path, moved)
                        waiting.append(moved)
                    else:
                        os.unlink(entry.path)
                except FileNotFoundError:  # another process removes it, too
                    continue
                except OSError as error:
                    failed = failed or error
            os.rmdir(current)
        except FileNotFoundError:
            continue
        except OSError as error:  # not empty: `failed` has the reason, or another process has put something there
            failed = failed or error
    if failed is not None:
        raise failed
