"""Checks and their results. `trainer_checks` and `aggregator_checks` have the tables of checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True)
class Check:
    """One requirement on a script, and a hint on what to change where it is not met."""

    name: str
    verifies: str
    hint: str
    if_used: bool = False
    """Whether the check is of something that a script need not use, and has no result where the script does not."""


class Status(StrEnum):
    """The result of a check."""

    PASSED = "passed"
    FAILED = "failed"
    WARNED = "warning"
    UNCLEAR = "unclear"
    SKIPPED = "skipped"


_RANK = {Status.SKIPPED: 0, Status.UNCLEAR: 1, Status.PASSED: 2, Status.WARNED: 3, Status.FAILED: 4}


@dataclass(frozen=True)
class Result:
    """A check with its result: `detail` says what was seen, `hint` what to change (empty if nothing)."""

    check: Check
    status: Status
    detail: str = ""
    hint: str = ""
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """All the names of which `detail` has the first few, by what they are; for JSON."""

    def as_dict(self) -> dict[str, object]:
        """Return the fields for JSON."""
        found = {"name": self.check.name, "status": self.status, "hint": self.hint, "detail": self.detail}
        return found | {what: list(names) for what, names in self.names.items()}


class Report:
    """The results of one table of checks, in its order.

    A check that is made in every round can have several results. The first failure stays, a warning replaces a pass,
    and a pass replaces an unclear or skipped result. A check that no round reached is skipped, unless it is
    of something that the script does not use.
    """

    def __init__(self, checks: Sequence[Check]) -> None:
        self._checks = tuple(checks)
        self.undecided = ""
        """Why nothing can be said of the script, where a check that stops the others is unclear; '' otherwise."""
        self._results: dict[Check, Result] = {}

    def passed(self, check: Check, detail: str = "", **names: Sequence[str]) -> None:
        """Record that `check` holds, unless it has failed before; `names` are all names of what `detail` says."""
        self._record(Result(check, Status.PASSED, detail, names=names))

    def failed(self, check: Check, detail: str, *, hint: str | None = None) -> None:
        """Record that `check` does not hold; `hint` replaces the hint of the table."""
        self._record(Result(check, Status.FAILED, detail, check.hint if hint is None else hint))

    def warned(self, check: Check, detail: str, *, hint: str | None = None, **names: Sequence[str]) -> None:
        """Record that a run would go on with what was seen, which may not be intended; `names` as for `passed`."""
        self._record(Result(check, Status.WARNED, detail, check.hint if hint is None else hint, names))

    def unclear(self, check: Check, detail: str, *, hint: str = "") -> None:
        """Record that `check` was made without a clear result."""
        self._record(Result(check, Status.UNCLEAR, detail, hint))

    def skipped(self, check: Check, detail: str, *, hint: str = "") -> None:
        """Record that `check` is not made, with the reason."""
        self._record(Result(check, Status.SKIPPED, detail, hint))

    def _record(self, result: Result) -> None:
        before = self._results.get(result.check)
        if before is None or (_RANK[result.status] >= _RANK[before.status] and before.status is not Status.FAILED):
            self._results[result.check] = result

    @property
    def results(self) -> list[Result]:
        """Return one result for each check, in the table's order."""
        open_ = {check: Result(check, Status.SKIPPED, "not reached") for check in self._checks}
        results = [self._results.get(check, result) for check, result in open_.items()]
        return [result for result in results if result.check in self._results or not result.check.if_used]

    @property
    def ok(self) -> bool:
        """Return whether no check failed, and something can be said of the script."""
        return not self.undecided and all(result.status is not Status.FAILED for result in self.results)

    def named(self, status: Status) -> list[str]:
        """Return the names of the checks with this result."""
        return [result.check.name for result in self.results if result.status is status]
