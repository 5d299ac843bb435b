"""Inspect updates: each must lie in its client's place, be whole, have the right structure and be finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from rq.timeouts import JobTimeoutException

from flavor.bus.runs import RunStore
from flavor.bus.verdicts import Recorded, late
from flavor.config import SMALL_UPDATE_BYTES, RunConfig
from flavor.errors import (
    BrokenModel,
    BusUnavailable,
    DigestMismatch,
    FlavorError,
    InvalidUpdate,
    StoreUnavailable,
    UnreadableModel,
)
from flavor.failpoints import reach
from flavor.policy.standing import is_quarantined
from flavor.policy.told_tasks import told_stale
from flavor.records.info import CONFUSION, MAX_BYTES
from flavor.records.measured import Measured
from flavor.records.model import GlobalModel
from flavor.records.run import RunView
from flavor.records.states import RoundState
from flavor.records.update import Refused, Update, handed_size
from flavor.records.verdict import OfModel, Verdict
from flavor.store.paths import accepted_path, checked_path, is_handed_in_by
from flavor.store.protocol import ObjectStore
from flavor.view.client_events import UpdateAccepted, UpdateEvent, UpdateRefused
from workers.context import WorkerContext
from workers.fault import GivenBack, any_readable, own_fault
from workers.infos import read_client_info
from workers.local_steps import check_steps
from workers.look import Look
from workers.look_files import FileLook
from workers.look_tensors import TensorLook
from workers.reading import Reading
from workers.signatures import Signatures
from workers.unreadable import instead_of
from workers.weights import check_weight

_LOOKS = 3
"""Times that an object is inspected whose seal changes during the inspection: an edge removes a link when it is done.
"""
_LONGEST_REASON = 2000
"""Characters. A reason quotes names that a client chose, and is shown in Redis, in the log and on terminals."""


def inspect_updates(context: WorkerContext, run: str, round_: int, clients: Sequence[str]) -> bool:
    """Judge the update of each of these clients that has no verdict yet, and small updates that arrive during the job.

    Small updates then need no job of their own. All verdicts are recorded at the end, so that the coordinator asks for
    no other job in between. If the store or the time fails at one update, the verdicts so far are recorded; the
    coordinator then asks for each of the others in a job of its own, so that one site's object holds up no other site.
    Returns whether an update was judged: a job without one shows nothing about what this worker can do.
    """
    runs = context.run(run)
    view = runs.read_own()
    round_view = runs.read_round(round_)
    if view.state.ended or round_view is None or round_view.state is not RoundState.OPEN:
        return False
    verdicts: dict[str, Verdict] = {}
    context.require_record(view)
    config = RunConfig.of_run(run, view.config, by=view.release)
    expected, accepted = round_view.expected, {c: each.object.path for c, each in round_view.accepted.items()}
    base = view.global_model.model if view.global_model else None
    tasks = Tasks(round_view.since, runs.given(round_view.since)) if round_view.since else Tasks()

    def neighbours(client: str) -> Iterator[str]:
        yield from (path for name, path in accepted.items() if name != client)
        for name, handed_in in runs.updates(round_, expected, since=round_view.since).items():
            path = handed_in.object.path if isinstance(handed_in, Update) else ""
            if name != client and is_handed_in_by(path, run, round_view.task_round(name), name):
                yield from (path, accepted_path(path))  # where it lies once it was taken

    inspector = Inspector(runs, context.store, view, round_, Signatures.of(runs, view), neighbours, tasks)
    refused = {client: verdict for client, verdict in round_view.verdicts.items() if not verdict.accepted}
    unjudged = [c for c in round_view.expected if c not in round_view.verdicts or c in refused]

    def new(names: Sequence[str]) -> dict[str, Update | Refused]:
        """Return the updates of these clients that are not quarantined, without a try that was refused before."""
        refusals, most = runs.refusals(), config.quarantine_after
        wanted = [c for c in names if not is_quarantined(refusals.get(c, 0), most)]
        found = tasks.trained_from(runs.updates(round_, wanted, base=base, since=round_view.since))
        return {c: each for c, each in found.items() if c not in refused or not refused[c].is_about(each)}

    updates = new([client for client in unjudged if client in clients])
    try:
        while updates:
            for client, handed_in in updates.items():
                verdicts[client] = inspector.judge(client, handed_in)
            arrived = new([client for client in unjudged if client not in verdicts])
            updates = {client: each for client, each in arrived.items() if is_small(each)}
        reach("worker.inspected")
    except StoreUnavailable as error:
        if error.passing:
            runs.note_store_away(round_)
        raise
    finally:
        for client, verdict in verdicts.items():
            measured, task = inspector.measured.get(client), round_view.task_round(client)
            recorded = runs.judge(round_, client, verdict, measured, task_round=task)
            if recorded and recorded is not Recorded.ACCEPTED:
                inspector.discard(client)
            if event := _event(runs, recorded, verdict, round_, client):
                context.observer.hear(event)
            reach("worker.judged")
    return bool(verdicts)


def _event(runs: RunStore, recorded: Recorded, verdict: Verdict, round_: int, client: str) -> UpdateEvent | None:
    """Return the event of what Redis recorded: it may refuse an update whose inspection found nothing wrong."""
    if recorded is Recorded.ACCEPTED:
        return UpdateAccepted(verdict.reason, client, round_, run=runs.run, is_routine=True)
    if recorded and verdict.accepted:
        verdict = runs.verdicts(round_, [client]).get(client, late(round_))
    reason = recorded.line(verdict.reason)
    is_late = verdict.reason == late(round_).reason
    return UpdateRefused(reason, client, round_, run=runs.run, is_late=is_late) if reason else None


def _of_model(error: BrokenModel) -> OfModel:
    if isinstance(error, UnreadableModel):
        return OfModel.UNREADABLE
    return OfModel.SURE if error.is_sure else OfModel.LIKELY


def is_small(handed_in: Update | Refused) -> bool:
    """Return whether an update is so small that a job of its own costs more than its inspection."""
    size = handed_in.object.size_bytes if isinstance(handed_in, Update) else None
    return size is not None and size < SMALL_UPDATE_BYTES


@dataclass(frozen=True)
class Tasks:
    """The tasks of earlier rounds that clients do in a round of an asynchronous run."""

    rounds: Mapping[str, int] = field(default_factory=dict)
    """Client to the round of its task, where that is an earlier one."""
    bases: Mapping[str, GlobalModel] = field(default_factory=dict)
    """The global model that each of them got with its task."""

    def round_of(self, client: str, round_: int) -> int:
        """Return the round of a client's task in round `round_`."""
        return self.rounds.get(client, round_)

    def trained_from(self, updates: Mapping[str, Update | Refused]) -> dict[str, Update | Refused]:
        """Return these updates, each with the model that it was trained from; lacks those whose task is gone."""
        return {
            client: replace(each, base=self.bases[client].model)
            if client in self.bases and isinstance(each, Update)
            else each
            for client, each in updates.items()
            if client not in self.rounds or client in self.bases
        }


class Inspector:
    """Judges the updates of one round. `neighbours` yields the paths of other clients' updates."""

    def __init__(
        self,
        runs: RunStore,
        store: ObjectStore,
        view: RunView,
        round_: int,
        signatures: Signatures,
        neighbours: Callable[[str], Iterable[str]] = lambda _: (),
        tasks: Tasks | None = None,
    ) -> None:
        self._tasks = tasks or Tasks()
        self._runs, self._store, self._view, self._round = runs, store, view, round_
        self._neighbours = neighbours
        self._signatures, self._config = signatures, RunConfig.of_run(view.run, view.config, by=view.release)
        self._look = self._look_from(view.global_model)
        self._taken: dict[str, list[str]] = {}  # client -> what lies out of its reach
        self.measured: dict[str, Measured] = {}
        """What was measured of each client that was judged, for people: its phases, and its metrics."""

    def _look_from(self, model: GlobalModel | None) -> Look:
        """Return what looks at updates that were trained from this global model."""
        kind, view = self._config.kind, replace(self._view, global_model=model)
        if not kind.has_tensors:
            return FileLook(self._store, kind, model)
        return TensorLook(self._runs, self._store, view, self._round, self._config)

    def judge(self, client: str, handed_in: Update | Refused) -> Verdict:
        """Return the verdict on one update. Any fault of the update becomes the reason of this client alone.

        Raises `GivenBack` for a fault of this worker or its store, and `StoreUnavailable` for an error that may have
        passed when the coordinator asks again.
        """
        self.measured[client] = handed_in.measured
        return replace(self._judged(client, handed_in), try_id=handed_in.try_id)

    def _judged(self, client: str, handed_in: Update | Refused) -> Verdict:
        if isinstance(handed_in, Refused):
            return Verdict(False, handed_in.said(_LONGEST_REASON))
        try:
            verdict = self._accepted(client, handed_in)
            verdict.to_json()
        except JobTimeoutException:
            raise
        except BusUnavailable:
            raise
        except Exception as error:  # what another party wrote can be wrong in any way
            self._raise_unless_its_own(client, error)
            error = instead_of(error, self._store, self._tasks.bases.get(client) or self._view.global_model)
            if isinstance(error, FlavorError):
                reason, of_model = str(error)[:_LONGEST_REASON], OfModel.NO
                if isinstance(error, BrokenModel) and client not in self._tasks.bases:  # else others have a newer model
                    of_model = _of_model(error)
                return Verdict(False, reason, blameless=isinstance(error, BrokenModel), of_model=of_model)
            return Verdict(False, f"unusable update: {type(error).__name__}: {error}"[:500])
        return verdict

    def _raise_unless_its_own(self, client: str, error: Exception) -> None:
        """Raise unless this client is to blame for the error.

        An error about one object, while neighbours can be read, is that object's fault. If no neighbour can be read,
        the store does not let this worker in.
        """
        if fault := own_fault(self._store, self._view, error):
            raise GivenBack.of(fault) from error
        if not isinstance(error, StoreUnavailable):
            return
        if error.passing:
            raise error
        readable = any_readable(self._store, self._neighbours(client))
        if readable is False:
            raise GivenBack(str(error)) from error
        if readable is None:
            raise error

    def _accepted(self, client: str, update: Update) -> Verdict:
        path, info_path = (self._own(client, ref.path) for ref in (update.object, update.info))
        formats = self._config.kind.formats
        if update.format not in formats:  # every edge will write the global model in it
            raise InvalidUpdate(f"checkpoint format {update.format[:40]!r}: {', '.join(formats)} expected")
        claimed = update.object.size_bytes or 0
        most = min(claimed, self._config.max_update_bytes or claimed)
        path, info_path = self._take(client, path, most=most), self._take(client, info_path, most=MAX_BYTES)
        update = replace(update, info=replace(update.info, path=info_path))
        info = read_client_info(self._store, update.info)
        self.measured[client] = update.measured.with_metrics(info["metrics"], last=CONFUSION)
        num_examples: int = info["metadata"]["datasetSize"]
        if update.num_examples != num_examples:
            handed = handed_size(update.num_examples)
            raise InvalidUpdate(f"datasetSize is {num_examples} in its info.json, and {handed} was handed in beside it")
        update = self._signatures.check(self._view, self._tasks.round_of(client, self._round), client, update)
        size_bytes = self._store.size_bytes(path)
        self._check_limits(num_examples, size_bytes)
        check_weight(self._config.weights, info)
        check_steps(self._config.aggregator, info)
        if size_bytes != update.object.size_bytes:
            size = "none" if update.object.size_bytes is None else update.object.size_bytes
            said = f"{size} were {'signed' if update.signature else 'handed in'}"
            raise InvalidUpdate(f"object {path} has {size_bytes} bytes; {said}")
        base = self._tasks.bases.get(client)
        look = self._look if base is None else self._look_from(base)
        for _ in range(_LOOKS):
            opened = Reading(self._store)
            found = look(opened, path, update, size_bytes)
            if not opened.changed():  # so every inspected byte is one of those with this digest
                break
        else:
            raise DigestMismatch(f"object {path} was changed again and again while it was being inspected")
        stale = told_stale(self._config.buffered, self._tasks.round_of(client, self._round), self._round)
        return Verdict(
            True,
            f"{found.object.size_bytes} bytes{found.note}, {num_examples} examples{stale}",
            replace(update, object=found.object),
            structure=found.structure,
            constants=found.constants,
        )

    def _own(self, client: str, path: str) -> str:
        """Return `path`, if the client may hand in an object there."""
        round_ = self._tasks.round_of(client, self._round)
        if not is_handed_in_by(checked_path(path), self._view.run, round_, client):
            raise InvalidUpdate(f"object path {path!r} does not belong to this client and round")
        return path

    def _take(self, client: str, path: str, *, most: int) -> str:
        """Return where the object lies once its site cannot reach it; moves it there before any of it is read.

        An object that a worker took before it was killed is found there.
        """
        taken = self._store.take(path, accepted_path(path), most=most)
        reach("worker.taken")
        if taken != path:
            self._taken.setdefault(client, []).append(taken)
        return taken

    def discard(self, client: str) -> None:
        """Remove the object that was taken from this client, whose update was refused."""
        with suppress(FlavorError):  # pruned later
            self._store.delete(self._taken.pop(client, []))

    def _check_limits(self, claimed: int, size_bytes: int) -> None:
        """Refuse, before anything is read, an update that is larger or claims more examples than the run allows."""
        most, largest = self._config.max_dataset_size, self._config.max_update_bytes
        if most is not None and claimed > most:
            raise InvalidUpdate(f"datasetSize {claimed} is more than the {most} that this run allows")
        if largest is not None and size_bytes > largest:
            raise InvalidUpdate(f"the checkpoint has {size_bytes} bytes, more than the {largest} that this run allows")
