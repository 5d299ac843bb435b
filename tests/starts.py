"""Counts the programs and scripts of Python that tests start: by fork, or cold, and why.

A cold start costs ten times what a fork does. It comes unseen: the tests pass, and take longer. So a session of pytest
says in one line how many there were, and fails when a test did not ask for one (`tests/summary.py`).

Each start is a line in a file. The process of pytest that has the terminal makes the file; the others, the nursery and
all that is forked from it are told where it lies.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

VARIABLE = "FLAVOR_TEST_STARTS"
"""Tells the nursery where the file lies."""
WANTED = re.compile(
    r"asked for"  # FLAVOR_TEST_COLD
    r"|no program of flavor's|no plain script|a script with limits|too large"
    r"|under \w+"
    r"|variable \w+, given"
    # what a test sets for all that it starts, because an interpreter, a library or a proxy's client reads it once
    r"|variable ((HTTPS?|ALL|NO)_PROXY|SSL_CERT_\w+|LC_ALL|LANG|TZ|OMP_NUM_THREADS|PYTHON\w+|LD_PRELOAD)"
)
"""Reasons that a test has."""
_place: list[str] = []


def count_at(path: str) -> None:
    """Write the starts of this process, and of those that are forked from it, into a file."""
    _place[:] = [path]


def place() -> str:
    """Where they are written; '' where they are not."""
    return _place[0] if _place else ""


def forked() -> None:
    """Count one by fork."""
    _write("")


def cold(reason: str, test: str = "") -> None:
    """Count a cold one, of that test or of the one in the environment."""
    _write(f"{reason}\t{(test or os.environ.get('PYTEST_CURRENT_TEST', '')).partition(' (')[0]}")


def _write(line: str) -> None:
    if _place:
        with contextlib.suppress(FileNotFoundError):  # the session is over, and this process is not
            handle = os.open(_place[0], os.O_WRONLY | os.O_APPEND)
            os.write(handle, f"{line}\n".encode())
            os.close(handle)


def of_variables(names: Collection[str], session: Mapping[str, str] | None = None) -> str:
    """The reason of a start where these variables differ: the first that no test has given, if there is one.

    `session` is the environment that this process of pytest began with. What now stands in its own, and is not to,
    may be there by a library. In a process that is forked, there is only what a test has given.
    """
    left = [name for name in sorted(names) if session is not None and os.environ.get(name) != session.get(name)]
    ordered = [*(f"variable {name}" for name in left), f"variable {min(names)}, given"]
    return next((reason for reason in ordered if not WANTED.fullmatch(reason)), ordered[0])


@dataclasses.dataclass
class Starts:
    """Those of a session."""

    forked: int
    cold: collections.Counter[str]
    """By reason."""
    unwanted: collections.Counter[str]
    """By reason and test."""

    @classmethod
    def read(cls, path: Path) -> Starts:
        """What a file has."""
        return cls.of(path.read_text().splitlines())

    @classmethod
    def of(cls, lines: Iterable[str]) -> Starts:
        """What the lines of a file say."""
        counted = [line.partition("\t")[::2] for line in lines]
        reasons = [(reason, test) for reason, test in counted if reason]
        return cls(
            len(counted) - len(reasons),
            collections.Counter(reason for reason, _ in reasons),
            collections.Counter(
                f"{reason}, in {test or 'no test'}" for reason, test in reasons if not WANTED.fullmatch(reason)
            ),
        )

    def told(self) -> str:
        """One line: how many, and the reasons."""
        line = f"programs and scripts of Python: {self.forked} forked, {self.cold.total()} started cold"
        if not self.cold:
            return line
        return f"{line} ({', '.join(f'{reason}: {count}' for reason, count in self.cold.most_common())})"

    def complaint(self) -> str:
        """What is wrong with them; '' if nothing is."""
        if not self.unwanted:
            return ""
        each = [f"{reason} ({count})" for reason, count in self.unwanted.most_common(5)]
        return (
            f"{self.unwanted.total()} started cold for no reason of a test's: {'; '.join(each)}. Find what has set the "
            "variable, or give the reason to WANTED in tests/starts.py."
        )
