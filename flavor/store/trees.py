"""Folders removed with all that is in them, by whatever hand: any depth, any length of path, no recursion."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def remove_tree(folder: Path, aside: Path) -> None:
    """Remove `folder`, which need not be there; `aside` is a folder on the same file system for what is on its way out.

    A folder in it is moved there before it is emptied, so that no path grows with the depth: another party can nest
    folders more deeply than a path can be spelled, or a recursion go. Raises the first `OSError` after all the rest
    was removed; a folder that cannot be moved stays.
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
                except FileNotFoundError:  # another is at it, too
                    continue
                except OSError as error:
                    failed = failed or error
            os.rmdir(current)
        except FileNotFoundError:
            continue
        except OSError as error:  # not empty: why was told above, or something was put there meanwhile
            failed = failed or error
    if failed is not None:
        raise failed
