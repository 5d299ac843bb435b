"""Every error this project raises on purpose.

::

    FlavorError                       one line: what happened, where, what to do; exit code 1
    ├── MisuseError                   the caller asked for something that is not possible; exit code 2
    │   ├── UnknownEvent              (also ValueError) an event name that is not in the protocol
    │   ├── MissingVariable           (also KeyError) an environment variable the edge should have set
    │   ├── InvalidInfo               (also ValueError) info.json lacks a field or has a bad one
    │   │   ├── InvalidReport         result.json of an evaluator lacks a field or has a bad one
    │   │   └── NoResult              an evaluator has written neither of the two
    │   ├── InvalidSetting            (also ValueError) an option or environment variable with a bad value
    │   │   └── UnusableStore         the store that a site names cannot be used
    │   └── CommandNotFound           a -m or -p command that does not exist
    ├── BusUnavailable                Redis cannot be reached, or refused us; exit code 3
    ├── WaitTimeout                   (also TimeoutError) an event did not come in time; exit code 4
    ├── RunError                      a run is not in the state that the caller needs
    │   ├── RunNotFound               no such run on this Redis
    │   ├── DamagedRecord             (also ValueError) a record on Redis that cannot be read
    │   ├── RunExists                 a run of this name is already there, with other settings
    │   ├── IllegalMove               a transition that the table of states does not have
    │   ├── OtherProtocol             a run that speaks another version of the protocol
    │   ├── NotAdmitted               the coordinator does not let this client take part, and why
    │   ├── StateLost                 Redis came back empty or older: it lacks rounds of this run
    │   ├── RunRebuilt                the run was rebuilt from the store while this process was in it
    │   └── RunRefused                a site does not take what the run asks of it
    │       └── OtherStore            the store that the site names is not the run's
    ├── LeaseHeld                     another live process owns this client or run
    ├── LeaseLost                     this process owned it, and no longer does
    ├── TrainerFailed                 the -m or -p command ended badly; exit code 5
    ├── EvaluatorFailed               an evaluator says itself that it has failed
    ├── AggregatorFailed              a user's aggregator ended badly, or left no model that can be used
    │   ├── UpdatesRefused            updates that are fine alone, and not together with the others
    │   └── NoModelPossible           no attempt can make a model that can be used of these updates
    ├── AggregationError              (also ValueError) updates and a rule that cannot be aggregated together
    ├── InvalidUpdate                 an update that does not count, and why
    │   ├── BrokenModel               the global model is at fault, and no client
    │   │   └── UnreadableModel       it is gone from the store, changed or withheld
    │   └── CheckpointError           (also ValueError) a checkpoint that cannot be read or used
    │       └── NotDivided            a model of which a site cannot share the part that its run asks for
    ├── InvalidResult                 the result of an evaluation that does not count, and why
    ├── RunEnding                     a run ended neither finished nor failed; printed without the word "Error"
    │   ├── RunFinishedEarly          its trainers were done before all its rounds were; exit code 7
    │   └── RunStopped                an operator stopped it; exit code 8
    ├── TrackerUnavailable            the tracking server of an export cannot be reached, or has a fault
    └── StoreError                    the object store
        ├── StoreUnavailable          it cannot be reached, or refused us
        │   ├── StoreFull             its disk is full; can be used again once there is room
        │   └── ShareAway             its folder is empty, missing or gives errors until its share is back
        ├── LocalFault                this machine's own disk, cache or mount cannot be used
        ├── TransferStopped           a transfer was ended because it is no longer needed
        ├── ObjectWithheld            the store does not give out this one, though it gives out others
        ├── ObjectMissing             nothing under this path
        ├── ObjectExists              something else under this path already
        ├── DigestMismatch            the bytes are not those that were recorded
        ├── UntrustedModel            a global model that no aggregator has signed whose key this site trusts
        ├── InvalidRecord             (also ValueError) a record of a run that cannot be read, or was changed
        └── BadObjectPath             (also ValueError) a path that would leave the store

    RunOver(SystemExit)               not an error: raised out of WaitEvent when the run has ended, so that
                                      an endless training loop ends like a program that is done

The errors of redis-py are translated in `flavor.bus.connection`, where they enter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from flavor.exit_codes import ExitCode
from flavor.printable import printable


class FlavorError(Exception):
    """Root of this project's errors; its message is one line for a terminal."""

    exit_code: ExitCode = ExitCode.FAILED

    def reworded(self, message: str) -> Self:
        """Return this error with another message, and all else that it carries."""
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        made.args = (message,)
        return made


class MisuseError(FlavorError):
    """The caller asked for something that is not possible."""

    exit_code = ExitCode.WRONG_USE


class UnknownEvent(MisuseError, ValueError):
    """An event name that is not in the protocol."""


class MissingVariable(MisuseError, KeyError):
    """An environment variable that the edge sets for its trainer is absent."""

    __str__ = Exception.__str__  # KeyError would quote the message


class InvalidInfo(MisuseError, ValueError):
    """The client information lacks a field or has a bad one; the message names each."""


class NoResult(InvalidInfo):
    """An evaluator has ended and written neither an info.json nor a result.json."""

    def __init__(self) -> None:
        super().__init__(
            "the evaluator has written no result: call SaveInfoJson(...), or write $OUTPUT_PATH/result.json"
        )


class InvalidReport(InvalidInfo):
    """The result.json of an evaluator, or an image that it names, cannot be used; the message names the field."""


class InvalidSetting(MisuseError, ValueError):
    """An option or an environment variable has a value that cannot be used."""


class UnusableStore(InvalidSetting):
    """The store that a site names cannot be used: its folder does not exist, or its URL has an unknown scheme."""


class CommandNotFound(MisuseError):
    """The program named by -m or -p does not exist or cannot be executed."""


class BusUnavailable(FlavorError):
    """Redis cannot be reached, or does not let us in."""

    exit_code = ExitCode.NO_REDIS


class WaitTimeout(FlavorError, TimeoutError):
    """An event did not come within the caller's timeout."""

    exit_code = ExitCode.TIMED_OUT


class RunError(FlavorError):
    """A run is not in the state that the caller needs."""


class RunNotFound(RunError):
    """There is no run of this name on this Redis."""


class DamagedRecord(RunError, ValueError):
    """A record on Redis cannot be read: it lacks a field, or has one of another type; the message names it."""


class RunExists(RunError):
    """A run of this name is already there, with other settings."""


class IllegalMove(RunError):
    """A transition that the table of states does not have."""


class OtherProtocol(RunError):
    """A run was begun by a release of flavor that speaks another version of the protocol."""


class NotAdmitted(RunError):
    """The coordinator does not let this client take part; `told` is the coordinator's reason."""

    def __init__(self, message: str, *, told: str = "") -> None:
        self.told = told
        super().__init__(message)


class StateLost(RunError):
    """Redis came back empty or older, or is another server: it lacks rounds or settings of this run."""


class RunRebuilt(RunError):
    """The run was rebuilt from the store while this process was in it, so that it has to join again."""


class RunRefused(RunError):
    """A site does not take what the run asks of it; its own user can allow it. Exit code 2, as for a missing option.

    `told` is what the run's operator is told of that; it names nothing of the site.
    """

    exit_code = ExitCode.WRONG_USE

    def __init__(self, message: str, *, told: str = "") -> None:
        self.told = told
        super().__init__(message)


class OtherStore(RunRefused):
    """The store that a site names is not the one in which the run keeps its objects."""


class LeaseHeld(FlavorError):
    """Another live process owns this client or run."""


class LeaseLost(FlavorError):
    """This process owned a client, round or run, and no longer does."""


class TrainerFailed(FlavorError):
    """The trainer or the preprocess command ended badly."""

    exit_code = ExitCode.TRAINER_FAILED


class EvaluatorFailed(FlavorError):
    """An evaluator says itself that it has failed."""


class AggregatorFailed(FlavorError):
    """A user's aggregator ended badly, did not end, or left no global model that can be used."""


class UpdatesRefused(AggregatorFailed):
    """Updates that were fine alone and cannot be used with the others; the round goes on without those `refused`."""

    def __init__(self, refused: Mapping[str, str]) -> None:
        self.refused = dict(refused)
        told = [f"{client}: {reason}" for client, reason in list(self.refused.items())[:5]]
        more = [f"and {len(refused) - 5} more"] if len(refused) > 5 else []
        super().__init__("; ".join([*told, *more]))


class NoModelPossible(AggregatorFailed):
    """The rule makes no model of these updates that can be used, in this attempt or in any other."""


class AggregationError(FlavorError, ValueError):
    """These updates cannot be aggregated by this rule; the message gives the numbers."""


class InvalidUpdate(FlavorError):
    """An update does not count; the message says why."""


class BrokenModel(InvalidUpdate):
    """An update cannot be used because the global model that it was trained from cannot: no client is at fault.

    `is_sure` is False where the model is no more than the likely cause.
    """

    def __init__(self, message: str, *, is_sure: bool = True) -> None:
        self.is_sure = is_sure
        super().__init__(message)


class UnreadableModel(BrokenModel):
    """The global model that an update was trained from is gone from the store, or was changed or is withheld there."""


class CheckpointError(InvalidUpdate, ValueError):
    """A checkpoint cannot be read, or holds what cannot be aggregated."""


class NotDivided(CheckpointError):
    """A site's model does not go together with the run's `--share` and `--local`.

    `told` is what the run's operator is told of that; it names no tensor.
    """

    def __init__(self, message: str, *, told: str) -> None:
        self.told = told
        super().__init__(message)


class InvalidResult(FlavorError):
    """The result of an evaluation that does not count, and why."""


class RunEnding(FlavorError):
    """A run ended neither finished nor failed."""


class RunFinishedEarly(RunEnding):
    """A run's trainers were done before all its rounds were closed."""

    exit_code = ExitCode.FINISHED_EARLY


class RunStopped(RunEnding):
    """An operator stopped the run; `flavor resume` goes on with it."""

    exit_code = ExitCode.STOPPED


class TrackerUnavailable(FlavorError):
    """The tracking server of an export cannot be reached, does not answer, or has a fault; later it may work."""


class StoreError(FlavorError):
    """The object store could not do what it was asked."""


class StoreUnavailable(StoreError):
    """The object store cannot be reached, does not answer, or refuses this process.

    `passing` says that it may work later, `silent` that there was no answer. `refused` is the answer of a store that
    refuses.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        self.passing, self.silent, self.refused = passing, False, ""
        super().__init__(message)


class StoreFull(StoreUnavailable):
    """The object store, or the disk of another file, is full. It can be used again once there is room.

    `path` is the file that was in use, where it is known.
    """

    def __init__(self, message: str, *, path: Path | None = None) -> None:
        self.path = path
        super().__init__(message, passing=True)


class ShareAway(StoreUnavailable):
    """The folder that is to be the store is empty or not there, as before a share is mounted there, or gives errors."""

    def __init__(self, message: str) -> None:
        super().__init__(message, passing=True)


class LocalFault(StoreError):
    """This machine's own disk, cache folder or mount cannot be used. Other machines and parties are not at fault.

    `path` is the file that was in use, where it is known.
    """

    def __init__(self, message: str, *, path: Path | None = None) -> None:
        self.path = path
        super().__init__(message)


class TransferStopped(StoreError):
    """A transfer was ended because it is no longer needed."""


class ObjectWithheld(StoreError):
    """The store does not give out this object, though it gives out others: it is archived, or closed by its owner."""


class ObjectMissing(StoreError):
    """There is nothing under this path."""


class ObjectExists(StoreError):
    """There is something else under this path already; what was there is untouched."""


class DigestMismatch(StoreError):
    """The bytes under a path are not those whose SHA-256 was recorded."""


class UntrustedModel(StoreError):
    """A global model that no aggregator has signed whose key this site trusts."""


class InvalidRecord(StoreError, ValueError):
    """A record of a run in the store cannot be read, is spelled in another way, or was changed."""


class BadObjectPath(StoreError, ValueError):
    """A path that is absolute, empty or would leave the store."""


class RunOver(SystemExit):
    """The run has ended while a trainer waited for it.

    A `SystemExit`, so that an endless loop ends the process without a traceback, and no
    `except Exception` swallows it. Exit code 0 when the run finished, else 1 with the reason on stderr.
    """

    def __init__(self, run: str, state: str, reason: str = "") -> None:
        reason = printable(" ".join(reason.split()))  # Python prints the text as it is, and other parties wrote it
        self.run, self.state, self.reason = run, state, reason
        finished = state == "finished"
        is_now = "has failed" if state == "failed" else f"is {state}"
        super().__init__(0 if finished else f"flavor: run {run!r} {is_now}" + (f": {reason}" if reason else ""))
