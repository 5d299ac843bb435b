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
    WARNED = "warning"
    UNCLEAR = "unclear"
    SKIPPED = "skipped"


_RANK = {Status.SKIPPED: 0, Status.UNCLEAR: 1, Status.PASSED: 2, Status.WARNED: 3, Status.FAILED: 4}


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

    A check that is made in every round may come out in several ways: the first failure stays, a warning replaces a
    pass, and a pass what was unclear or skipped. What no round reached is skipped.
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

    def warned(self, check: Check, detail: str, *, hint: str | None = None) -> None:
        """Record that a run would go on with what was seen, and that it may not be meant."""
        self._record(Result(check, Status.WARNED, detail, check.hint if hint is None else hint))

    def unclear(self, check: Check, detail: str, *, hint: str = "") -> None:
        """Record that `check` was made and could not tell."""
        self._record(Result(check, Status.UNCLEAR, detail, hint))

    def skipped(self, check: Check, detail: str, *, hint: str = "") -> None:
        """Record that `check` is not made, and why."""
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

    def named(self, status: Status) -> list[str]:
        """The checks that came out so."""
        return [result.check.name for result in self.results if result.status is status]
