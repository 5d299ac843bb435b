"""Has the tests write their files into memory, and not onto a disk, where memory has room for them.

A session makes and removes hundreds of thousands of small files, which nobody keeps. On a disk each costs about ten
times what it does in a tmpfs: in the process, and in threads of the kernel that write journals.

Each session has a folder of its own there. It removes it at its end, or leaves it where a test has failed, whose files
pytest keeps. A session that begins removes the folders of those that have ended: failed, or killed.

A TMPDIR in the environment of pytest is followed: `TMPDIR=/tmp make test` tests on the disk.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PLACE = Path("/dev/shm")
_ROOM_BYTES = 2 << 30
"""What has to be free. A whole session needs some hundred megabytes at a time: pytest removes what passed."""
_PREFIX = f"flavor-tests-{os.getuid()}-"
_kept: list[bool] = []
_made: list[Path] = []


def has_room(place: Path, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> bool:
    """Whether a folder lies in memory, may have that much more, and executes the programs that tests write there.

    A tmpfs counts for the cgroup of the process that writes, whose limit may be less than what the machine has free.
    """
    try:
        mounts = [line.split() for line in (proc / "mounts").read_text().splitlines()]
        known = dict(line.split(":") for line in (proc / "meminfo").read_text().splitlines())
        found, available = os.statvfs(place), int(known["MemAvailable"].split()[0]) * 1024
        left = min([available, found.f_bavail * found.f_frsize, *_left_by_cgroups(proc, cgroups)])
    except (OSError, KeyError, ValueError):
        return False
    in_memory = {words[2] for words in mounts if words[1] == str(place)} == {"tmpfs"}
    usable = not found.f_flag & os.ST_NOEXEC and os.access(place, os.W_OK | os.X_OK)
    return in_memory and usable and left >= _ROOM_BYTES


def _left_by_cgroups(proc: Path, cgroups: Path) -> Iterator[int]:
    """Bytes that each cgroup of this process, and each above it, leaves; also in a container, which sees its own only.

    Files that were read and may be forgotten count as usage; the kernel forgets them before it runs out of memory.
    """
    for line in (proc / "self" / "cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            top, limit, usage, cached = cgroups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit, usage = cgroups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file"
        else:
            continue
        lowest = top / path.lstrip("/")
        for folder in (lowest, *lowest.parents[: len(lowest.relative_to(top).parts)]):
            if (folder / limit).exists() and (most := (folder / limit).read_text().strip()) != "max":
                stat = dict(each.split() for each in (folder / "memory.stat").read_text().splitlines())
                yield int(most) - int((folder / usage).read_text()) + int(stat.get(cached, 0))


def choose(place: Path = _PLACE) -> None:
    """Choose the folder for the temporary files of this process, and of all that it starts."""
    if any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")):
        return
    remove_left(place)
    if not has_room(place):
        return
    folder = place / f"{_PREFIX}{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)  # of a process that had the same number
    folder.mkdir(mode=0o711)  # some tests are about other users, who go through it
    _made.append(folder)
    atexit.register(_remove, folder, os.getpid())
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None  # pytest has asked for it before


def for_tests() -> str | None:
    """The folder for those of single tests; None where pytest is to choose it.

    pytest's own choice has twenty letters more, and the path of a socket may have about a hundred.
    """
    return str(_made[0] / "t") if _made else None


def keep() -> None:
    """Leave this session's folder to those who look at what failed."""
    _kept.append(True)


def _remove(folder: Path, maker: int) -> None:
    if os.getpid() == maker and not _kept:  # and not a process that was forked from it
        shutil.rmtree(folder, ignore_errors=True)


def remove_left(place: Path) -> None:
    """Remove the folders of this user's sessions whose processes have ended."""
    for folder in place.glob(f"{_PREFIX}*"):
        number = folder.name.removeprefix(_PREFIX)
        try:
            if number.isdecimal() and folder.lstat().st_uid == os.getuid():
                os.kill(int(number), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (OSError, OverflowError):
            continue  # it runs, or is gone


choose()
