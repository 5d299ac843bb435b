"""How many bytes a cache's folder has, counted by all processes that put files into it, and when to look at it again.

To read the folder for each object that comes in would make a long run's objects quadratic in time. So each process adds
the size of its file to one number before the file comes, which a crash can make too large only, and the number is set
right when the folder is looked at.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from flavor.disk import FULL
from flavor.locks import waited_for

LOOK_S = 3600.0
"""The folder is looked at that often: a process of an earlier release, which does not count, may put files there."""


@dataclass(frozen=True)
class Total:
    """What is known of the folder."""

    size_bytes: int
    look_at: float
    """When to look at the folder again, by the machine's clock."""
    is_held: bool = False
    """Whether nothing can be removed before that time, because all that is there was used a short time ago."""
    largest_bytes: int = 0
    """The size of the largest file that has come since the folder was looked at, or was there then."""

    def is_due(self, most_bytes: int, now: float) -> bool:
        """Whether the folder has to be looked at, because it may have more than so many bytes, or it is time."""
        if not now < self.look_at <= now + LOOK_S:  # not yet; and the clock was not put back
            return True
        return self.size_bytes > most_bytes and not self.is_held


class CacheTotal:
    """The file that has it. The block of a `with` holds its lock, for which other processes wait."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, size_bytes: int) -> None:
        """Count a file that is about to come."""
        with self.taken() as taken:
            if (total := taken.total) is not None:
                largest = max(total.largest_bytes, size_bytes)
                taken.write(replace(total, size_bytes=total.size_bytes + size_bytes, largest_bytes=largest))

    @contextlib.contextmanager
    def taken(self) -> Iterator[Taken]:
        """Lock the file."""
        with waited_for(self._path) as file:
            yield Taken(file)


class Taken:
    """The file while its lock is held."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.total: Total | None = None
        """None where nothing is known: the file is new, or a crash has cut it off."""
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            known = json.load(file)
            size, look_at, is_held = int(known["size_bytes"]), float(known["look_at"]), bool(known["is_held"])
            self.total = Total(size, look_at, is_held, int(known.get("largest_bytes", 0)))  # 0.1.0 writes none

    def write(self, total: Total) -> None:
        """Write it. On a full disk nothing is known afterwards, so that the folder is looked at."""
        try:
            write_anew(self._file, asdict(total))
        except OSError as error:
            if error.errno not in FULL:
                raise


def write_anew(file: IO[str], known: Mapping[str, object]) -> None:
    """Replace what an open file has by this JSON. A file that could not be written has nothing that can be read."""
    os.ftruncate(file.fileno(), 0)
    os.write(file.fileno(), json.dumps(known).encode())  # the file is open to append; no buffer fails once more
