"""Checks and their results. What is checked stands elsewhere, one table for each kind of script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class Check:
    """One thing that a script must do, and what to change when it does not."""

    name: str
    verifies: str
    hint: str


class Status(StrEnum):
    """How a check came out."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


_RANK = {Status.SKIPPED: 0, Status.PASSED: 1, Status.FAILED: 2}


@dataclass(frozen=True)
class Result:
    """A check that was decided: `detail` says what was seen, `hint` what to change (empty if nothing)."""

    check: Check
    status: Status
    detail: str = ""
    hint: str = ""

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {"name": self.check.name, "status": self.status, "hint": self.hint, "detail": self.detail}


class Report:
    """The results of one table of checks, in its order.

    A check that is made in every round may come out in several ways: the first failure stays, and a pass
    replaces a skip. What nobody decided is skipped, with the reason given to `close`.
    """

    def __init__(self, checks: Sequence[Check]) -> None:
        self._checks = tuple(checks)
        self._results: dict[Check, Result] = {}

    def passed(self, check: Check, detail: str = "") -> None:
        """Record that `check` holds, unless it has failed before."""
        self._record(Result(check, Status.PASSED, detail))

    def failed(self, check: Check, detail: str, *, hint: str | None = None) -> None:
        """Record that `check` does not hold; `hint` replaces that of the table."""
        self._record(Result(check, Status.FAILED, detail, check.hint if hint is None else hint))

    def skipped(self, check: Check, detail: str, *, hint: str = "") -> None:
        """Record that `check` cannot be decided, and why."""
        self._record(Result(check, Status.SKIPPED, detail, hint))

    def _record(self, result: Result) -> None:
        before = self._results.get(result.check)
        if before is None or (_RANK[result.status] >= _RANK[before.status] and before.status is not Status.FAILED):
            self._results[result.check] = result

    @property
    def results(self) -> list[Result]:
        """One result for each check, in the table's order."""
        open_ = {check: Result(check, Status.SKIPPED, "not reached") for check in self._checks}
        return list((open_ | self._results).values())

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return all(result.status is not Status.FAILED for result in self.results)

    def count(self, status: Status) -> int:
        """How many checks came out so."""
        return sum(result.status is status for result in self.results)
