"""What an edge tells its run about a failure: a class and an exit code, in words of this project's own.

The output of a script, and the message of an exception about a file, may quote the site's data. They stay on the site's
terminal and in its log. `--report-output` shares them with the run's operator, in fields of the client's own hash: no
other site can read those, and no reason is made of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from flavor.errors import (
    BadObjectPath,
    DamagedRecord,
    DigestMismatch,
    InvalidInfo,
    InvalidRecord,
    InvalidReport,
    InvalidUpdate,
    LocalFault,
    MisuseError,
    NoResult,
    NotAdmitted,
    NotDivided,
    OtherStore,
    RunRefused,
    StoreError,
    TrainerFailed,
    UntrustedModel,
    UnusableStore,
)
from flavor.programs.process import described_exit
from flavor.records.update import Refused

LONGEST_REPORT = 3000
"""Characters of what `--report-output` shares."""


class Failure(StrEnum):
    """Why a site failed, or why its edge refused an update of its own. Written as `failure`."""

    ENDED = "trainer-ended"
    """The trainer ended within a round, before the first one, or with an exit code."""
    PREPROCESS = "preprocess-ended"
    ERROR_EVENT = "trainer-error"
    """The trainer set the event Error."""
    EVALUATOR = "evaluator-ended"
    """The evaluator could not be started, or ended with an exit code."""
    SIGNAL = "stopped-by-signal"
    """A signal told the edge to stop; the edge may be started again."""
    DECLINED = "declined"
    """The site does not take what the run asks of it."""
    DAMAGED = "damaged-record"
    """A record of the run on Redis, such as a task, cannot be read."""
    NOT_ADMITTED = "not-admitted"
    """The coordinator does not let it take part."""
    OTHER_STORE = "other-store"
    """The store that it was started with is not the run's."""
    UNUSABLE_STORE = "unusable-store"
    """The store that it was started with cannot be used."""
    UNTRUSTED = "untrusted-model"
    """The edge refused a global model that neither an aggregator it trusts has signed, nor its digests name."""
    OBJECT = "refused-object"
    """The edge refused an object of the run: it has another path, other bytes or another record than were recorded."""
    DISK = "disk"
    STORE = "store"
    MISUSE = "misuse"
    """Its options, paths or commands cannot be used."""
    CHECKPOINT = "checkpoint"
    NOT_DIVIDED = "model-not-divided"
    """Its model does not go together with the run's `--share` and `--local`."""
    INFO = "info"
    REPORT = "report"
    NO_RESULT = "no-result"
    """The evaluator ended with exit code 0, and has reported nothing."""
    NOT_TAKEN_UP = "round-not-taken-up"
    """The trainer set TrainFinished of a round for which it never waited."""


_SENTENCES = {
    Failure.ERROR_EVENT: "its trainer set the event Error",
    Failure.SIGNAL: "its edge was stopped by a signal",
    Failure.DECLINED: "it does not take part as this run asks",
    Failure.DAMAGED: "a record on Redis, such as its task, cannot be read",
    Failure.NOT_ADMITTED: "it is not admitted",
    Failure.OTHER_STORE: "it was started with another store than the run's (its --store, or its token's)",
    Failure.UNUSABLE_STORE: "it was started with a store that cannot be used (its --store, or its token's)",
    Failure.UNTRUSTED: "it refused a global model that its --trust, or its token's, does not allow",
    Failure.OBJECT: "it refused an object of the run: its path, bytes or record are not those that the run must have",
    Failure.DISK: "a file at the site could not be read or written",
    Failure.STORE: "its edge cannot use the object store",
    Failure.MISUSE: "its edge cannot go on as it was started",
    Failure.CHECKPOINT: "its checkpoint cannot be used",
    Failure.NOT_DIVIDED: "its model does not go together with the run's --share and --local",
    Failure.INFO: "its info.json cannot be used",
    Failure.REPORT: "its result.json, or an image that it names, cannot be used",
    Failure.NO_RESULT: "its evaluator ended with exit code 0 and has written no result",
    Failure.NOT_TAKEN_UP: "its trainer finished a round that it had not waited for",
}


@dataclass(frozen=True)
class Notice:
    """What the run is told about one failure."""

    failure: Failure
    exit_code: int | None = None
    where: str = ""
    """When the trainer ended, in words of this project, e.g. "in round 2, before TrainFinished"; what the coordinator
    said to a client that it does not admit; what the site does not take; or why its model is not divided."""

    @property
    def reason(self) -> str:
        """One sentence, which quotes nothing of the script's output."""
        if self.failure in (Failure.ENDED, Failure.PREPROCESS):
            who = "its trainer" if self.failure is Failure.ENDED else "its preprocess command"
            how = "" if self.exit_code is None else f" ({described_exit(self.exit_code)})"
            return f"{who} ended{' ' + self.where if self.where else ''}{how}"
        if self.failure is Failure.EVALUATOR:
            if self.exit_code is None:
                return "its evaluator could not be started"
            return f"its evaluator ended ({described_exit(self.exit_code)})"
        if self.failure in (Failure.NOT_ADMITTED, Failure.DECLINED, Failure.NOT_DIVIDED) and self.where:
            return f"{_SENTENCES[self.failure]}: {self.where}"
        return _SENTENCES[self.failure]

    @property
    def exit_code_text(self) -> str:
        """The exit code as records write it; '' for none."""
        return "" if self.exit_code is None else str(self.exit_code)

    def refused(self, report: str | None) -> Refused:
        """What the edge hands in for an update that cannot be used; `report` is the site's own text, if shared."""
        return Refused(self.reason, self.failure, self.exit_code_text, shortened(report))


def shortened(report: str | None) -> str | None:
    """A site's own text in one line of at most `LONGEST_REPORT` characters; None where the site shares none."""
    return None if report is None else " ".join(report.split())[:LONGEST_REPORT]


class Died(TrainerFailed):
    """The trainer or the preprocess command has failed; `notice` is what the run is told of it."""

    def __init__(self, message: str, notice: Notice) -> None:
        self.notice = notice
        super().__init__(message)


_CLASSES: tuple[tuple[type[BaseException], Failure], ...] = (
    (OSError, Failure.DISK),
    (LocalFault, Failure.DISK),  # the edge has waited for a fault of the store itself
    (UntrustedModel, Failure.UNTRUSTED),
    (BadObjectPath, Failure.OBJECT),
    (DigestMismatch, Failure.OBJECT),
    (InvalidRecord, Failure.OBJECT),
    (StoreError, Failure.STORE),
    (OtherStore, Failure.OTHER_STORE),
    (UnusableStore, Failure.UNUSABLE_STORE),
    (RunRefused, Failure.DECLINED),
    (DamagedRecord, Failure.DAMAGED),
    (InvalidReport, Failure.REPORT),
    (NoResult, Failure.NO_RESULT),
    (InvalidInfo, Failure.INFO),
    (MisuseError, Failure.MISUSE),
    (NotDivided, Failure.NOT_DIVIDED),
    (InvalidUpdate, Failure.CHECKPOINT),
)


def notice_of(error: BaseException) -> Notice:
    """What the run is told about this error; an error of no known class came with a signal."""
    if isinstance(error, Died):
        return error.notice
    if isinstance(error, NotAdmitted):  # the command that lets it in stands in the coordinator's words alone
        return Notice(Failure.NOT_ADMITTED, where=error.told)
    failure = next((failure for kind, failure in _CLASSES if isinstance(error, kind)), Failure.SIGNAL)
    return Notice(failure, where=error.told if isinstance(error, RunRefused | NotDivided) else "")
