"""Moves checkpoints between a trainer's files and the store.

The kind of checkpoint says what crosses the wire. Where that is the trainer's file itself, the edge links the file into
the store, and the global model out of it. It converts any other file in one pass. It copies a file that has another
name as well, or that is a symbolic link: such a file is not the edge's to share or to lock.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from flavor.atomic import replacing, temporary_beside
from flavor.checkpoints.kind import CheckpointKind
from flavor.checkpoints.kinds import TENSORS
from flavor.checkpoints.npz_suffix import npz_hint
from flavor.checkpoints.site import Given, Habits, OwnFiles, Site, SiteOptions
from flavor.disk import naming
from flavor.edge.meter import Meter
from flavor.edge.workspace import Workspace
from flavor.errors import BadObjectPath, CheckpointError, DigestMismatch, InvalidUpdate, MisuseError
from flavor.parts import WHOLE, Parts
from flavor.patterns import STATISTICS
from flavor.programs.finished_mark import FinishedMark, mark_path, read_mark
from flavor.programs.own_variates import write_own_variates
from flavor.programs.readmark import ReadMark, is_told
from flavor.records.info import Info, info_bytes, read_info
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.remarks import Remark
from flavor.records.update import Update
from flavor.saved import is_saved, remove_saved, saved_bytes
from flavor.store.links import is_sole, linked
from flavor.store.paths import checked_global, named, update_prefix
from flavor.store.protocol import ObjectStore
from flavor.store.retried import written

if TYPE_CHECKING:
    from flavor.checkpoints.part_site import PartSite

_QUICK_BYTES = 2**20
_MOST_MERGED_BYTES = 2**28


class Exchange:
    """Moves one client's checkpoints.

    `format_` is the trainer's format, where the site names one. `kind`, `compress` and `statistics` are the run's;
    tensors that match a pattern of `statistics` are never compressed. `habits` say how the trainer saves, as an earlier
    process of this edge has seen it; `learned` is called with habits that have changed. `bare` takes the prefixes of
    wrappers off the names of tensors, and puts them back on the global model. `own` are the files of the tensors that
    `parts` do not share. `meter` counts what is moved.
    `remark` is told the class of each warning about what the script saves.
    `reads_here` says whether the trainer runs on this machine: no file system tells what another one reads.
    """

    def __init__(
        self,
        store: ObjectStore,
        workspace: Workspace,
        *,
        run: str,
        kind: CheckpointKind = TENSORS,
        format_: str | None = None,
        compress: Literal["none", "bf16", "int8"] = "none",
        statistics: Sequence[str] = STATISTICS,
        bare: bool = False,
        parts: Parts = WHOLE,
        own: OwnFiles | None = None,
        habits: Habits | None = None,
        learned: Callable[[Habits], None] | None = None,
        meter: Meter | None = None,
        reads_here: bool = True,
        tell: Callable[[str], None] = print,
        remark: Callable[[Remark], None] = lambda _: None,
    ) -> None:
        self._store, self._workspace, self._run, self._kind = store, workspace, run, kind
        self._options = SiteOptions(
            beside=workspace.beside,
            format=format_,
            compress=compress,
            statistics=tuple(statistics),
            bare=bare,
            habits=habits or Habits(),
            parts=parts,
            own=own,
            tell=tell,
            remark=remark,
        )
        self._own = own
        self._learned, self._habits = learned, self._options.habits
        self._meter = meter or Meter()
        self._given: GlobalModel | None = None  # the model that the trainer trains from
        self._reading: ReadMark | None = None  # tells whether the trainer reads that model
        self._reading_told = None if reads_here else False  # whether this file system tells; None while not known

    @functools.cached_property
    def _site(self) -> Site:
        """The kind's code for a site, imported at the first use so that an edge starts without waiting for it."""
        return self._kind.site(self._options)

    def is_quick(self, size_bytes: int) -> bool:
        """Whether moving so many bytes takes no longer than handing the work to another thread."""
        return not self._store.private and size_bytes <= _QUICK_BYTES

    def learn_own(self) -> None:
        """Keep the tensors that are not shared of a checkpoint that the script has saved before its first round.

        Does nothing where the client has such tensors already, or the run has an initial model.
        """
        source = self._workspace.local_model
        if self._own is None or self._own.initial is not None or not self._is_saved():
            return
        self._own.round = None
        try:
            cast("PartSite", self._site).learn(source)
        except CheckpointError as error:  # the script has not saved it for this
            self._options.tell(f"what the script saved before its first round is not used: {error}")
        self._note_habits()

    def place_global(self, model: GlobalModel | None, *, round_: int | None = None) -> None:
        """Put the global model and the merged info where the trainer reads them.

        `round_` is the round that is trained from it; None for a model that is judged, or the last one. Tensors that
        are not shared are this client's own, as they were before that round.
        A model with a seal, which Redis names, is not hashed again; one without is hashed under a name that only this
        site has. Raises `StoreError` for a model that is missing or was changed, and leaves the file that was there.
        """
        self._given, self._reading = model, None
        if self._own is not None:
            self._own.round = round_
        if model is None:
            write_own_variates(self._workspace.global_model, ())
            return
        self._check_named(model.model)
        merged = None
        if model.info is not None:
            self._check_named(model.info)
            merged = self._store.read(model.info, most=_MOST_MERGED_BYTES)
        target = self._workspace.global_model
        ref = model.model
        if self._site.is_placed_as_it_is(model.format):
            self._store.place(ref, target, check=self._site.check)
        else:
            with self._own_file(ref) as source:
                self._site.check(source)
                self._site.from_wire(source, target, model.format)
        write_own_variates(target, () if self._own is None else cast("PartSite", self._site).own_variates())
        if is_sole(target):  # a mark on a link would be on the store's object, too
            if self._reading_told is None:
                self._reading_told = is_told(target.parent)
            self._reading = ReadMark(target, told=self._reading_told)
        if merged is not None:
            for info in self._workspace.merged_infos:
                with replacing(info) as file:
                    file.write(merged)
        self._meter.received(model.size_bytes + len(merged or b""))

    @contextlib.contextmanager
    def _own_file(self, model: ObjectRef) -> Iterator[Path]:
        """A file with the recorded bytes. An object without a seal is hashed where no other party can rename it."""
        if model.seal or self._store.private:
            before = "" if self._store.private else self._store.seal(model.path)
            yield self._store.open(model)
            if before and self._store.seal(model.path) != before:
                raise DigestMismatch(f"object {model.path}: changed in the store while it was read")
            return
        own = temporary_beside(self._workspace.global_model)
        try:
            self._store.place(model, own)
            yield own
        finally:
            own.unlink(missing_ok=True)

    def was_read(self, round_: int) -> bool | None:
        """Whether the trainer has read the global model of this round; None where the file system does not tell.

        Holds for the moment when the trainer set TrainFinished, or for now if its `flavor.cook` left no mark.
        """
        if self._reading is None:
            return None
        mark = read_mark(self._workspace.local_model, round_)
        return self._reading.was_read(at_ns=mark.read_ns if mark else None)

    def _check_named(self, ref: ObjectRef) -> None:
        """Raise `BadObjectPath` unless the object is named with a digest, and a round of the run made it."""
        if not ref.digest:
            raise BadObjectPath(f"object path {ref.path[:200]!r} is named without a digest, and is not read")
        checked_global(ref.path, self._run)

    def collect(self, run: str, round_: int, client: str) -> Update:
        """Put the trainer's checkpoint of this round into the store, and read its info.

        Raises `CheckpointError`, `InvalidInfo`, `StoreError`. The trainer's files stay, so that an edge that is killed
        before the update is on the bus can hand in the same files again. Refuses files that the script has written to
        since it set TrainFinished, also while this method reads them.
        """
        mark = read_mark(self._workspace.local_model, round_)
        self._check_unchanged(mark)
        if self._own is not None:
            self._own.round = round_
        try:
            done = self._collected(run, round_, client)
        except (InvalidUpdate, MisuseError):
            self._check_unchanged(mark)
            raise
        self._check_unchanged(mark)
        return done

    def _check_unchanged(self, mark: FinishedMark | None) -> None:
        if mark is not None and (path := mark.rewritten(self._workspace.local_model)) is not None:
            raise CheckpointError(
                f"the script wrote to {path} after SetEvent('TrainFinished'), and what it had saved before is gone: "
                "save both files first, then set the event (check-fl shows what a script does)"
            )

    def _collected(self, run: str, round_: int, client: str) -> Update:
        info = read_info(self._workspace.local_info)
        source = self._workspace.local_model
        if not self._is_saved():
            beside = npz_hint(source)
            advice = (
                f"{beside}, or run the edge with --format npz"
                if beside
                else "save the checkpoint to $LOCAL_MODEL_PATH before SetEvent('TrainFinished')"
            )
            raise CheckpointError(f"{source}: not written: {advice}")
        prefix = update_prefix(run, round_, client)
        ref, format_ = self._put(source, prefix)
        return Update(
            object=ref,
            info=self._put_info(info, prefix),
            format=format_,
            num_examples=info["metadata"]["datasetSize"],
        )

    def _put_info(self, info: Info, prefix: str) -> ObjectRef:
        data = info_bytes(info)
        digest = hashlib.sha256(data).hexdigest()
        ref = ObjectRef(named(prefix, "info", digest, ".json"), digest)
        with self._store.stage() as staged:
            with naming(staged):
                written(self._store, staged, lambda: staged.write_bytes(data))
            self._store.put(ref, staged)
        self._meter.sent(len(data))
        return ref

    def is_collected_quickly(self) -> bool:
        """Whether the trainer's checkpoint `is_quick` to move; a missing one is."""
        source = self._workspace.local_model
        return self.is_quick(saved_bytes(source) if self._is_saved() else 0)

    def has_local(self) -> bool:
        """Whether the checkpoint and the info.json of a finished round are there."""
        return self._is_saved() and self._workspace.local_info.is_file()

    def _is_saved(self) -> bool:
        """Whether the trainer's checkpoint is there; of the kind `tensors`, a folder can be one."""
        source = self._workspace.local_model
        return is_saved(source) if self._kind.name == TENSORS.name else source.is_file()

    def release_local(self) -> None:
        """Remove the trainer's file, whose update is on the bus; the next file reuses the memory that it frees."""
        remove_saved(self._workspace.local_model)
        mark_path(self._workspace.local_model).unlink(missing_ok=True)

    def _put(self, source: Path, prefix: str) -> tuple[ObjectRef, str]:
        """Put what is sent of the trainer's file into the store; returns the object and the file's format."""
        site = self._site
        with contextlib.ExitStack() as stack:
            given = None
            if site.needs_given and self._given is not None:
                model = self._given.model
                given = Given(stack.enter_context(self._own_file(model)), model.digest)
            staged, wire = stack.enter_context(self._store.stage()), None
            if site.may_share(source) and is_sole(source) and linked(source, staged):
                wire = site.taken(staged)
                if wire is None:
                    staged.unlink()
            wire = wire or written(self._store, staged, lambda: site.to_wire(source, staged, given))
            path = named(prefix, "update", wire.digest, self._kind.object_extension)
            ref = ObjectRef(path, wire.digest, wire.size_bytes)
            self._store.put(ref, staged)
        self._meter.sent(wire.size_bytes)
        self._note_habits()
        return ref, wire.format

    def _note_habits(self) -> None:
        if self._site.habits != self._habits:
            self._habits = self._site.habits
            if self._learned is not None:
                self._learned(self._habits)
