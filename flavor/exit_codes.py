"""The exit codes of all programs. docs/commands.md has the same table for readers; a test compares both."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit code of a program."""

    DONE = 0
    FAILED = 1
    WRONG_USE = 2
    NO_REDIS = 3
    TIMED_OUT = 4
    TRAINER_FAILED = 5
    RUN_FINISHED = 6
    """Used by `flavor event wait` alone."""
    FINISHED_EARLY = 7
    STOPPED = 8
    INTERRUPTED = 130
    TERMINATED = 143

    @property
    def meaning(self) -> str:
        """Two or three words, for `--help`."""
        return self.name.lower().replace("_", " ").replace("redis", "Redis")


OF_RUNS = tuple(code for code in ExitCode if code is not ExitCode.RUN_FINISHED)
"""The exit codes of `flavor` and `flavor-fl`."""
OF_CHECKS = (ExitCode.DONE, ExitCode.FAILED, ExitCode.WRONG_USE, ExitCode.INTERRUPTED)


def exit_codes_line(codes: Iterable[ExitCode], **other: str) -> str:
    """`Exit codes: 0 done, 1 failed, …`, for the end of a `--help`; `other` has a program's own words for some."""
    said = ", ".join(f"{code.value} {other.get(code.name, code.meaning)}" for code in codes)
    return f"Exit codes: {said}."
