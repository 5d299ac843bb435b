"""Has the tests write their files into memory, and not onto a disk, where memory has room for them.

A session makes and removes hundreds of thousands of small files, which nobody keeps. On a disk each costs about ten
times what it does in a tmpfs: in the process, and in threads of the kernel that write journals.

A TMPDIR in the environment of pytest is followed: `TMPDIR=/tmp make test` tests on the disk.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_PLACE = Path("/dev/shm")
_ROOM_BYTES = 2 << 30
"""What has to be free. A whole session needs some hundred megabytes at a time: pytest removes what passed."""


def has_room(place: Path) -> bool:
    """Whether a folder lies in memory, may have that much more, and executes the programs that tests write there."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        known = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        found, available = os.statvfs(place), int(known["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return False
    in_memory = {words[2] for words in mounts if words[1] == str(place)} == {"tmpfs"}
    usable = not found.f_flag & os.ST_NOEXEC and os.access(place, os.W_OK | os.X_OK)
    return in_memory and usable and min(found.f_bavail * found.f_frsize, available) >= _ROOM_BYTES


def choose() -> None:
    """Choose the folder for the temporary files of this process, and of all that it starts."""
    if not any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")) and has_room(_PLACE):
        os.environ["TMPDIR"] = str(_PLACE)
        tempfile.tempdir = None  # pytest has asked for it before


choose()
