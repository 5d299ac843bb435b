"""Checkpoints on their way between a trainer's files and the store.

Only safetensors crosses the wire (and opaque checkpoints, which nothing looks into), without the texts of a
state_dict: they are put back into the global model. A trainer that saves safetensors
has its file linked into the store and the global model linked out of it; any other format is converted in one pass. A
file that has another name as well, or is a symbolic link, is copied instead: it is not the edge's to share or to lock.
Where the run compresses, the change to the global model that the trainer was given is encoded instead, whatever the
trainer's format.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flavor.disk import naming
from flavor.edge.belongings import Habits
from flavor.edge.workspace import Workspace
from flavor.errors import BadObjectPath, CheckpointError, DigestMismatch
from flavor.patterns import STATISTICS
from flavor.programs.readmark import ReadMark, is_told
from flavor.records.info import Info, info_bytes, read_info
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.update import Update
from flavor.store.digests import sha256_file
from flavor.store.links import copied, is_sole, linked
from flavor.store.paths import OPAQUE, checked_global, named, update_prefix
from flavor.store.protocol import ObjectStore
from flavor.watch import current_watch

if TYPE_CHECKING:
    from flavor.checkpoints import Format, Structure, WireInfo

_QUICK_BYTES = 2**20
_MOST_MERGED_BYTES = 2**28


class Exchange:
    """Moves one client's checkpoints.

    `format_` is the trainer's, where the site says so; `compress` and the patterns of
    `statistics`, which are never compressed, are the run's. `habits` are what an earlier process of
    this edge has learned of how the trainer saves, and `learned` is called when that is news. `bare` takes the prefixes
    of wrappers off the names of tensors, and puts them back on the global model.
    """

    def __init__(
        self,
        store: ObjectStore,
        workspace: Workspace,
        *,
        run: str,
        format_: str | None = None,
        compress: Literal["none", "bf16", "int8"] = "none",
        statistics: Sequence[str] = STATISTICS,
        opaque: bool = False,
        bare: bool = False,
        habits: Habits | None = None,
        learned: Callable[[Habits], None] | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        self._store, self._workspace, self._run = store, workspace, run
        self._compress, self._opaque, self._bare = compress, opaque, bare
        self._statistics = tuple(statistics)
        self._habits, self._learned, self._tell = habits or Habits(), learned, tell
        self._left_out: tuple[str, ...] = ()  # what was told about already
        self._told_texts = False
        self._format = format_ or self._habits.format
        self._structure: Structure | None = None  # how this trainer nests its state_dict; None as long as none was seen
        self._given: GlobalModel | None = None  # what the trainer trains from
        self._reading: ReadMark | None = None  # whether it reads that
        self._reading_told: bool | None = None  # by this file system; None while that is not known

    def is_quick(self, size_bytes: int) -> bool:
        """Whether to move so much takes no longer than to ask another thread to do it."""
        return not self._store.private and size_bytes <= _QUICK_BYTES

    def place_global(self, model: GlobalModel | None) -> None:
        """Put the global model and the merged info where the trainer reads them.

        A model's seal, which Redis names, spares its digest; one without is hashed under a name of this site's alone.
        Raises `StoreError` (missing, changed) and leaves what was there.
        """
        self._given, self._reading = model, None
        if model is None:
            return
        self._check_named(model.model)
        merged = None
        if model.info is not None:
            self._check_named(model.info)
            merged = self._store.read(model.info.path, most=_MOST_MERGED_BYTES, digest=model.info.digest)
        target = self._workspace.global_model
        if self._opaque:
            self._store.place(model.model, target)
        else:
            self._place_tensors(model, target)
        if is_sole(target):  # a mark on a link would be on the store's object, too
            if self._reading_told is None:
                self._reading_told = is_told(target.parent)
            self._reading = ReadMark(target, told=self._reading_told)
        if merged is not None:
            for info in self._workspace.merged_infos:
                temporary = info.with_name(f".{info.name}.{os.getpid()}")
                with naming(temporary):
                    temporary.write_bytes(merged)
                current_watch().check()
                os.replace(temporary, info)

    def _place_tensors(self, model: GlobalModel, target: Path) -> None:
        """Place a model of tensors in the trainer's format; `CheckpointError` for a file that is none.

        A trainer may read it in a way that runs what stands in a file of another kind.
        """
        from flavor.checkpoints import Format, check_given, from_safetensors, read_beside

        format_ = self._format or model.format or Format.SAFETENSORS
        if format_ not in tuple(Format):
            raise CheckpointError(f"the run's checkpoints are in the format {format_[:40]!r}, which there is not")
        names = self._habits.names if self._bare else {}
        if format_ == Format.SAFETENSORS and not names:
            self._store.place(model.model, target, check=check_given)
            return
        with self._own_file(model.model) as source:
            check_given(source)
            beside = read_beside(self._workspace.beside)
            own = self._known_structure()
            placed = from_safetensors(source, target, Format(format_), own, beside=beside, own_names=names).structure
        if own is None and placed is not None and (texts := placed.texts) and not self._told_texts:
            self._told_texts = True
            self._tell(
                f"the model has a text at {', '.join(texts[:5])}{', …' if len(texts) > 5 else ''}: texts never leave "
                "their site, and the trainer finds an empty one there until it has saved its own"
            )

    @contextlib.contextmanager
    def _own_file(self, model: ObjectRef) -> Iterator[Path]:
        """A file that is what was recorded. What has no seal is hashed where no other party can rename it."""
        if model.seal or self._store.private:
            before = "" if self._store.private else self._store.seal(model.path)
            yield self._store.open(model)
            if before and self._store.seal(model.path) != before:
                raise DigestMismatch(f"object {model.path}: changed in the store while it was read")
            return
        own = self._workspace.global_model.with_name(f".given.{os.getpid()}")
        try:
            self._store.place(model, own)
            yield own
        finally:
            own.unlink(missing_ok=True)

    def was_read(self) -> bool | None:
        """Whether the trainer has read the global model that was placed; None where that cannot be told."""
        return None if self._reading is None else self._reading.was_read()

    def _check_named(self, ref: ObjectRef) -> None:
        """Raise `BadObjectPath` unless a round of the run made what is named to this site, and its digest is known."""
        if not ref.digest:
            raise BadObjectPath(f"object path {ref.path[:200]!r} is named without a digest, and is not read")
        checked_global(ref.path, self._run)

    def _known_structure(self) -> Structure | None:
        """How this trainer nests, as seen by this process or an earlier one; None when none has seen it."""
        if self._structure is None and self._habits.structure:
            from flavor.checkpoints import Structure

            self._structure = Structure.from_json(self._habits.structure, str(self._workspace.root))
        return self._structure

    def collect(self, run: str, round_: int, client: str) -> Update:
        """Put the trainer's checkpoint of this round into the store, and read its info.

        Raises `CheckpointError`, `InvalidInfo`, `StoreError`. The trainer's files stay, so that an edge that is killed
        before the update is on the bus can hand in the same ones again.
        """
        info = read_info(self._workspace.local_info)
        source = self._workspace.local_model
        if not source.is_file():
            beside = source.with_name(source.name + ".npz")
            advice = (
                f"{beside.name} is there: np.savez appends .npz, "
                "so run the edge with --format npz or save to an open file"
                if beside.is_file()
                else "save the checkpoint to $LOCAL_MODEL_PATH before SetEvent('TrainFinished')"
            )
            raise CheckpointError(f"{source}: not written: {advice}")
        prefix = update_prefix(run, round_, client)
        ref = self._put_opaque(source, prefix) if self._opaque else self._put_tensors(source, prefix)
        return Update(
            object=ref,
            info=self._put_info(info, prefix),
            format=OPAQUE if self._opaque else self._format or "",
            num_examples=info["metadata"]["datasetSize"],
        )

    def _put_info(self, info: Info, prefix: str) -> ObjectRef:
        data = info_bytes(info)
        digest = hashlib.sha256(data).hexdigest()
        path = named(prefix, "info", digest, ".json")
        with self._store.stage() as staged:
            with naming(staged):
                staged.write_bytes(data)
            self._store.put(path, staged, digest=digest)
        return ObjectRef(path, digest)

    def is_collected_quickly(self) -> bool:
        """Whether the trainer's checkpoint `is_quick` to move; so is one that is not there."""
        source = self._workspace.local_model
        return self.is_quick(source.stat().st_size if source.is_file() else 0)

    def has_local(self) -> bool:
        """Whether the files of a finished round are there."""
        return self._workspace.local_model.is_file() and self._workspace.local_info.is_file()

    def release_local(self) -> None:
        """The update is on the bus: free the trainer's file, whose pages are what the next one is written to."""
        self._workspace.local_model.unlink(missing_ok=True)

    def _put_opaque(self, source: Path, prefix: str) -> ObjectRef:
        if not source.stat().st_size:
            raise CheckpointError(f"{source}: empty: save the checkpoint before SetEvent('TrainFinished')")
        with self._store.stage() as staged:
            if not (is_sole(source) and linked(source, staged)):
                copied(source, staged)
            digest, size = sha256_file(staged)
            path = named(prefix, "update", digest, ".bin")
            self._store.put(path, staged, digest=digest)
        return ObjectRef(path, digest, size)

    def _put_tensors(self, source: Path, prefix: str) -> ObjectRef:
        from flavor.checkpoints import Structure, detect

        format_ = detect(source)
        self._format = format_.value
        if self._compress == "none" or self._given is None:
            path, wire = self._put_whole(source, format_, prefix)
        else:
            path, wire = self._put_change(source, format_, prefix, self._compress, self._given)
        structure = wire.structure or Structure()  # a flat one, whatever other sites' are
        if structure != self._structure or self._format != self._habits.format or self._habits.names != wire.own_names:
            self._structure = structure
            self._habits = replace(
                self._habits, format=self._format, structure=structure.to_json(), names=dict(wire.own_names)
            )
            if self._learned is not None:
                self._learned(self._habits)
        self._keep_beside(wire)
        return ObjectRef(path, wire.sha256, wire.size_bytes)

    def _keep_beside(self, wire: WireInfo) -> None:
        """Keep what the trainer saved beside its state_dict, which it finds beside the global model's."""
        from flavor.checkpoints import write_beside

        if wire.beside:
            write_beside(self._workspace.beside, wire.beside)
        else:
            self._workspace.beside.unlink(missing_ok=True)
        if wire.left_out and wire.left_out != self._left_out:
            self._left_out = wire.left_out
            self._tell(
                f"the checkpoint's {', '.join(wire.left_out[:10])} will not stand beside the global model: "
                "of what is beside state_dict, numbers, texts, tensors, dicts and lists are kept"
            )

    def _put_whole(self, source: Path, format_: Format, prefix: str) -> tuple[str, WireInfo]:
        """Put the trainer's parameters into the store, linked there where they can be sent as they are."""
        from flavor.checkpoints import Format, take_safetensors, to_safetensors

        with self._store.stage() as staged:
            taken = None
            as_it_is = format_ is Format.SAFETENSORS and not self._bare
            if as_it_is and is_sole(source) and linked(source, staged):
                taken = take_safetensors(staged)
                if taken is None:
                    staged.unlink()
            wire = taken or to_safetensors(source, staged, format_, bare=self._bare)
            path = named(prefix, "update", wire.sha256, ".safetensors")
            self._store.put(path, staged, digest=wire.sha256)
        return path, wire

    def _put_change(
        self, source: Path, format_: Format, prefix: str, kind: Literal["bf16", "int8"], given: GlobalModel
    ) -> tuple[str, WireInfo]:
        """Put the change from the global model `given` to the trainer's parameters into the store."""
        from flavor.checkpoints import Encoding, TensorFile, encode

        with self._own_file(given.model) as model, self._store.stage() as staged:
            base = TensorFile.open(model)
            plain = [name for name in base.names if any(fnmatchcase(name, pattern) for pattern in self._statistics)]
            encoding = Encoding.sparing(kind, given.model.digest, base.specs, plain)
            wire = encode(source, staged, base, encoding, format_, bare=self._bare)
            path = named(prefix, "update", wire.sha256, ".safetensors")
            self._store.put(path, staged, digest=wire.sha256)
        return path, wire
