"""What an update must be before it counts: where it claims to be, whole, of the right shape, finite."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
from rq.timeouts import JobTimeoutException

from aggregators.encoded import EncodedTensor
from aggregators.quantities import is_mask, matching
from aggregators.updates import ClientModel
from flavor.bus.runs import RunStore
from flavor.checkpoints import Encoding, Format, Inspection, TensorFile, check_metadata, digest_and_check, is_finite
from flavor.checkpoints.compare import same_bits, structure_problems
from flavor.checkpoints.limits import MAX_HEADER_BYTES
from flavor.config import SMALL_UPDATE_BYTES, RunConfig
from flavor.errors import (
    BrokenModel,
    BusUnavailable,
    CheckpointError,
    DigestMismatch,
    FlavorError,
    StoreError,
    StoreUnavailable,
    UpdateRefused,
)
from flavor.failpoints import reach
from flavor.records.info import MAX_BYTES
from flavor.records.objects import ObjectRef
from flavor.records.round import Reference
from flavor.records.run import RunView
from flavor.records.states import RoundState
from flavor.records.update import Refused, Update
from flavor.records.verdict import Verdict
from flavor.store.paths import OPAQUE, accepted_path, checked_global, checked_path, is_handed_in_by
from flavor.store.protocol import ObjectStore
from workers.context import WorkerContext
from workers.fault import GivenBack, any_readable, own_fault
from workers.infos import read_client_info
from workers.norm import check_norm
from workers.reading import Reading
from workers.signatures import Signatures
from workers.structure import Structure, structure, structure_digest, structure_of_object
from workers.updates import check_base, open_global
from workers.weights import check_weight

_LOOKS = 3
"""Times that an object is inspected whose seal changes meanwhile; its edge removes a link to it when it is done."""
_MOST_CONSTANTS = 1000
_MOST_CONSTANT_CHARS = 64 * 1024
_CHEAP_BYTES = 2**20
"""What is no larger is fetched as a whole, before it is looked at."""
_HEADER_SLACK_BYTES = 2**20
"""By so much an update's header may be longer than the global model."""
_MOST_ASKED = 5
"""Objects that are tried to say in what a structure differs from that of most sites."""
_LONGEST_REASON = 2000
"""Characters; it quotes names that a client chose, and stands in Redis, in the log and on terminals."""


def inspect_updates(context: WorkerContext, run: str, round_: int, clients: Sequence[str]) -> bool:
    """Judge each of these clients' updates that has no verdict yet, and small ones that arrive meanwhile.

    Those spare a job each. The verdicts are recorded at the end, so that nobody asks for another job in between. If the
    store or the time fails at one update, what was found before is recorded; the coordinator asks for each that is left
    in a job of its own then, so that one site's object keeps nobody else's from being judged. Returns whether an
    update was judged: a job that found none shows nothing of what this worker can do.
    """
    runs = context.run(run)
    view = runs.read_own()
    round_view = runs.read_round(round_)
    if view.state.ended or round_view is None or round_view.state is not RoundState.OPEN:
        return False
    verdicts: dict[str, Verdict] = {}
    context.require_record(view)
    expected, accepted = round_view.expected, {c: each.object.path for c, each in round_view.accepted.items()}
    base = view.global_model.model if view.global_model else None

    def neighbours(client: str) -> Iterator[str]:
        yield from (path for name, path in accepted.items() if name != client)
        for name, handed_in in runs.updates(round_, expected).items():
            path = handed_in.object.path if isinstance(handed_in, Update) else ""
            if name != client and is_handed_in_by(path, run, round_, name):
                yield from (path, accepted_path(path))  # where it lies once it was taken

    inspector = Inspector(runs, context.store, view, round_, Signatures.of(runs, view), neighbours)
    refused = {client: verdict for client, verdict in round_view.verdicts.items() if not verdict.accepted}
    unjudged = [c for c in round_view.expected if c not in round_view.verdicts or c in refused]

    def new(names: Sequence[str]) -> dict[str, Update | Refused]:
        """Their updates, but for a try that was refused before."""
        found = runs.updates(round_, names, base=base)
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
            recorded = runs.judge(round_, client, verdict)
            if recorded and not verdict.accepted:
                if line := recorded.line(f"run {run}, round {round_}, {client}: refused: {verdict.reason}"):
                    context.tell(line)
                inspector.discard(client)
            reach("worker.judged")
    return bool(verdicts)


def is_small(handed_in: Update | Refused) -> bool:
    """Whether an update is so small that a job of its own costs more than its inspection."""
    size = handed_in.object.size_bytes if isinstance(handed_in, Update) else None
    return size is not None and size < SMALL_UPDATE_BYTES


class Inspector:
    """Judges the updates of one round. `neighbours` are the paths of other clients' updates than one."""

    def __init__(
        self,
        runs: RunStore,
        store: ObjectStore,
        view: RunView,
        round_: int,
        signatures: Signatures,
        neighbours: Callable[[str], Iterable[str]] = lambda _: (),
    ) -> None:
        self._runs, self._store, self._view, self._round = runs, store, view, round_
        self._neighbours = neighbours
        self._signatures, self._config = signatures, RunConfig.of_run(view.run, view.config)
        self._taken: dict[str, list[str]] = {}  # client -> what lies out of its reach

    def judge(self, client: str, handed_in: Update | Refused) -> Verdict:
        """The verdict on one update; whatever is wrong with it becomes the reason, and nobody else's.

        Raises `GivenBack` for what is wrong with this worker or its store, `StoreUnavailable` for what may have passed
        when the coordinator asks again.
        """
        return replace(self._judged(client, handed_in), try_id=handed_in.try_id)

    def _judged(self, client: str, handed_in: Update | Refused) -> Verdict:
        if isinstance(handed_in, Refused):
            return Verdict(False, handed_in.reason[:_LONGEST_REASON])
        try:
            verdict = self._accepted(client, handed_in)
            verdict.to_json()
        except JobTimeoutException:
            raise
        except BusUnavailable:
            raise
        except Exception as error:  # what another party wrote can be wrong in any way
            self._raise_unless_its_own(client, error)
            if isinstance(error, FlavorError):
                return Verdict(False, str(error)[:_LONGEST_REASON], blameless=isinstance(error, BrokenModel))
            return Verdict(False, f"unusable update: {type(error).__name__}: {error}"[:500])
        return verdict

    def _raise_unless_its_own(self, client: str, error: Exception) -> None:
        """Raise unless the error is this client's to answer for.

        What the store refuses for one object whose neighbours can be read is that object's fault; if none of them can
        be read, it is this worker that is not let in.
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
        opaque, format_ = not self._config.kind.has_tensors, update.format
        if format_ not in ((OPAQUE,) if opaque else tuple(Format)):  # every edge will write the global model in it
            expected = "opaque" if opaque else ", ".join(Format)
            raise UpdateRefused(f"checkpoint format {format_[:40]!r}: {expected} expected")
        claimed = update.object.size_bytes or 0
        most = min(claimed, self._config.max_update_bytes or claimed)
        path, info_path = self._take(client, path, most=most), self._take(client, info_path, most=MAX_BYTES)
        update = replace(update, info=replace(update.info, path=info_path))
        info = read_client_info(self._store, update.info)
        num_examples: int = info["metadata"]["datasetSize"]
        if update.num_examples != num_examples:
            raise UpdateRefused(f"datasetSize is {num_examples} in its info.json, and not what was handed in")
        update = self._signatures.check(self._view, self._round, client, update)
        size_bytes = self._store.size_bytes(path)
        self._check_limits(num_examples, size_bytes)
        check_weight(self._config.weights, info)
        if size_bytes != update.object.size_bytes:
            size = "none" if update.object.size_bytes is None else update.object.size_bytes
            said = f"{size} were {'signed' if update.signature else 'handed in'}"
            raise UpdateRefused(f"object {path} has {size_bytes} bytes; {said}")
        for _ in range(_LOOKS):
            opened = Reading(self._store)
            found, seal, encoding, shape, constants = self._look(opened, path, update, size_bytes)
            if not opened.changed():  # so all that was looked at are the bytes with this digest
                break
        else:
            raise DigestMismatch(f"object {path} was changed again and again while it was being inspected")
        return Verdict(
            True,
            f"{found.size_bytes} bytes{f' of {encoding.kind}' if encoding else ''}, {num_examples} examples",
            replace(update, object=ObjectRef(path, found.sha256, found.size_bytes, seal)),
            structure=shape,
            constants=tuple(constants),
        )

    def _own(self, client: str, path: str) -> str:
        """`path`, if the client may hand in what lies there."""
        if not is_handed_in_by(checked_path(path), self._view.run, self._round, client):
            raise UpdateRefused(f"object path {path!r} does not belong to this client and round")
        return path

    def _take(self, client: str, path: str, *, most: int) -> str:
        """Where the object lies once it is out of its site's reach, before anything of it is read.

        One that a worker took, and did not live to judge, is found there.
        """
        taken = self._store.take(path, accepted_path(path), most=most)
        reach("worker.taken")
        if taken != path:
            self._taken.setdefault(client, []).append(taken)
        return taken

    def discard(self, client: str) -> None:
        """Remove what was taken from this client, whose update was refused."""
        with suppress(FlavorError):  # pruned later
            self._store.delete(self._taken.pop(client, []))

    def _check_limits(self, claimed: int, size_bytes: int) -> None:
        """Before anything is read: no update is larger, or claims more examples, than the run allows."""
        most, largest = self._config.max_dataset_size, self._config.max_update_bytes
        if most is not None and claimed > most:
            raise UpdateRefused(f"datasetSize {claimed} is more than the {most} that this run allows")
        if largest is not None and size_bytes > largest:
            raise UpdateRefused(f"the checkpoint has {size_bytes} bytes, more than the {largest} that this run allows")

    def _look(
        self, opened: Reading, path: str, handed_in: Update, size_bytes: int
    ) -> tuple[Inspection, str, Encoding | None, str, list[str]]:
        """What the object holds, its seal, its encoding, if any, its structure, and which tensors may hold infinities.

        The structure is told in a round from no model.

        Its header is judged first: a file of another structure costs no more than that, however large it is.
        """
        if not self._config.kind.has_tensors:
            (sha256, size), seal = opened.opaque(path, size_bytes=size_bytes)
            _check_submitted(path, sha256, handed_in.object.digest)
            return Inspection(sha256, size, None), seal, None, "", []
        if self._store.private and size_bytes > _CHEAP_BYTES:  # a folder has nothing to fetch
            self._check_heading(path, handed_in, size_bytes)
        file, seal = opened.unknown(path, size_bytes=size_bytes)
        update = self._checked_header(path, handed_in, file)
        found = digest_and_check(file)
        _check_submitted(path, found.sha256, handed_in.object.digest)
        constants = self._constants(update, found.odd if update.encoding is None else _decoded_odd(found, update))
        if (model := self._view.global_model) is not None and (limit := self._config.max_update_norm) is not None:
            held = (*constants, *matching(update.tensors, self._config.keep))
            base, statistics = open_global(Reading(self._store), model), self._config.statistics
            check_norm(update, base, limit, held, statistics, otherwise=self._whose_model_it_may_be)
        shape = "" if self._view.global_model else structure_digest(update.specs)
        return found, seal, update.encoding, shape, constants

    def _constants(self, update: ClientModel, odd: Collection[str]) -> list[str]:
        """Those `odd` tensors that may be so: constant buffers, the same as in the global model to the last bit.

        In a first round without a model they must look like masks, and the aggregation compares the sites. Raises
        `CheckpointError` for the others.
        """
        model = self._view.global_model
        base = open_global(Reading(self._store), model) if odd and model else None
        for name in odd:
            array = np.asarray(update.tensors[name])
            nan = bool(np.isnan(array).any())
            if base is None:
                if not is_mask(array):
                    raise _no_number(name, nan=nan or not is_finite(array))
            elif not is_finite(base.tensor(name)) and nan:
                raise BrokenModel(
                    f"tensor {name!r} has NaN, and the global model of this round is not finite there either: no site "
                    "is to blame; begin a new run from an earlier model (--init-model)"
                )
            elif not same_bits(array, base.tensor(name)):
                raise _no_number(name, nan=nan or not is_finite(array))
        if len(odd) > _MOST_CONSTANTS or sum(map(len, odd)) > _MOST_CONSTANT_CHARS:
            raise CheckpointError(f"{len(odd)} tensors have infinite values: leave such buffers out of the checkpoint")
        return list(dict.fromkeys(odd))

    def _check_heading(self, path: str, handed_in: Update, size_bytes: int) -> None:
        """Judge the header before the rest is fetched, in a file of the object's size that has nothing else in it."""
        length = int.from_bytes(self._store.start(path, 8), "little")
        model = self._view.global_model
        most = MAX_HEADER_BYTES if model is None else min(MAX_HEADER_BYTES, model.size_bytes + _HEADER_SLACK_BYTES)
        if length > min(most, size_bytes - 8):
            raise CheckpointError(f"object {path} has a header of {length} bytes: at most {most} can be of this model")
        with self._store.stage() as staged:
            with staged.open("xb") as file:
                file.write(self._store.start(path, 8 + length))
                file.truncate(size_bytes)
            self._checked_header(path, handed_in, TensorFile.reading(staged, f"object {path}"))

    def _checked_header(self, path: str, handed_in: Update, file: TensorFile) -> ClientModel:
        """The tensors of the file, none of whose values was looked at yet, if they are such as this round can take."""
        check_metadata(file)
        model = self._view.global_model
        if not file.names:
            raise CheckpointError("the checkpoint has no tensors: its state_dict is empty; save that of the model")
        encoding = Encoding.of(file)
        if encoding is not None:
            if encoding.kind != self._config.compress:
                raise UpdateRefused(
                    f"the update is compressed to {encoding.kind}; this run has --compress {self._config.compress}"
                )
            check_base(encoding, handed_in.base)
            assert model is not None
            return ClientModel.of(file, open_global(Reading(self._store), model))
        update = ClientModel.of(file, None)
        self._check_structure(path, update, None if model else self._runs.reference(self._round))
        return update

    def _check_structure(self, path: str, update: ClientModel, first: Reference | None) -> None:
        """Same names, shapes and dtypes as the global model; in a round without one, as the update `first`.

        That is one of those that most sites agree with; None as long as the coordinator has not found that out.
        """
        if (model := self._view.global_model) is not None:
            checked_global(model.model.path)
            whose, required = "the global model", structure_of_object(self._store, model.model)  # type: ignore[arg-type]
        elif first is None or first.object.path == path or first.structure == structure_digest(update.specs):
            return
        else:
            whose, found = "the model of the other sites", self._structure_of_most(first)
            if found is None:
                raise CheckpointError(
                    "the tensors' names, shapes or dtypes are not those of the model of the other sites: train the "
                    "same model at every site"
                )
            required = found
        if problems := structure_problems(structure(update.specs), required, whose):
            raise CheckpointError(problems)

    def _structure_of_most(self, first: Reference) -> Structure | None:
        """What most sites agree on, from the object of any of them; None where each has made its own unreadable.

        No site's object keeps another from being judged, and no error about it is another's reason.
        """
        round_ = self._runs.read_round(self._round)
        accepted = [each for each in round_.verdicts.values() if each.accepted] if round_ else []
        alike = [each.inspected.object for each in accepted if each.structure == first.structure]
        others = [ref for ref in alike if ref.path != first.object.path]
        for ref in (first.object, *others[:_MOST_ASKED]):
            with suppress(StoreError, CheckpointError, OSError):
                return structure_of_object(self._store, ref)  # type: ignore[arg-type]
        return None

    def _whose_model_it_may_be(self) -> str:
        """What to think of where the model itself may be far off: that of a first round, which nothing bounds."""
        if self._round != 2 or (first := self._runs.read_round(1)) is None or first.reference is None:
            return ""
        return (
            "; the model may be to blame: it is that of round 1, which began from no model, so that nothing bounded "
            "its updates; where several sites are refused so, begin a new run from a model of your own (--init-model)"
        )


def _check_submitted(path: str, found: str, digest: str) -> None:
    if found != digest:
        raise DigestMismatch(f"object {path} is not what was submitted: its SHA-256 is {found[:12]}…")


def _decoded_odd(found: Inspection, update: ClientModel) -> list[str]:
    """The odd tensors of an encoded update: those that travelled as they are, and what the others decode to."""
    if found.nonfinite is not None and found.nonfinite not in update.tensors:  # a scale
        raise _no_number(found.nonfinite, nan=True)
    plain = [name for name in found.odd if not isinstance(update.tensors.get(name, np.empty(0)), EncodedTensor)]
    return [*(name for name in plain if name in update.tensors), *update.odd()]


def _no_number(name: str, *, nan: bool) -> CheckpointError:
    what = "NaN or infinite values" if nan else "values whose squares have no room in float32"
    return CheckpointError(
        f"tensor {name!r} has {what}: look for NaN in the data, lower the learning rate or clip the gradients; a "
        "buffer that holds such by design, as an attention mask does, passes as long as it is the same in the global "
        "model and at every site"
    )
