"""Checkpoints on their way between a trainer's files and the store.

Only safetensors crosses the wire (and opaque checkpoints, which nothing looks into). A trainer that saves safetensors
has its file linked into the store and the global model linked out of it; any other format is converted in one pass.
Where the run compresses, the change to the global model that the trainer was given is encoded instead, whatever the
trainer's format.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flavor.bus.state import GlobalModel
from flavor.edge.workspace import Workspace
from flavor.errors import CheckpointError
from flavor.store.info import Info, read_info
from flavor.store.links import linked
from flavor.store.objects import ObjectStore, sha256_file
from flavor.store.paths import OPAQUE, named, update_prefix

if TYPE_CHECKING:
    from flavor.store.formats import Format, Structure, WireInfo


@dataclass(frozen=True)
class Submission:
    """An update that lies in the store."""

    path: str
    digest: str
    size_bytes: int
    format: str
    info: Info


class Exchange:
    """Moves one client's checkpoints.

    `format_` is the trainer's, where it is known before its first checkpoint; `compress` is the run's.
    """

    def __init__(
        self,
        store: ObjectStore,
        workspace: Workspace,
        *,
        format_: str | None = None,
        compress: Literal["none", "bf16", "int8"] = "none",
        opaque: bool = False,
        tell: Callable[[str], None] = print,
    ) -> None:
        self._store, self._workspace, self._format = store, workspace, format_
        self._tell = tell
        self._left_out: tuple[str, ...] = ()  # what was told about already
        self._compress, self._opaque = compress, opaque
        self._structure: Structure | None = None  # how this trainer nests its state_dict
        self._given: GlobalModel | None = None  # what the trainer trains from

    def place_global(self, model: GlobalModel | None) -> None:
        """Put the global model and the merged info where the trainer reads them.

        Raises `StoreError` (missing, changed) and leaves what was there.
        """
        self._given = model
        if model is None:
            return
        merged = None
        if model.info_path:  # without a digest in a run that an older release has begun
            merged = self._store.local(model.info_path, digest=model.info_digest).read_bytes()
        target = self._workspace.global_model
        format_ = self._format or model.format or "safetensors"
        if self._opaque or format_ == "safetensors":
            self._store.fetch(model.path, target, digest=model.digest, seal=model.seal)
        else:
            from flavor.store.formats import Format, from_safetensors, read_beside

            source = self._store.local(model.path, digest=model.digest, seal=model.seal)
            beside = read_beside(self._workspace.beside)
            from_safetensors(source, target, Format(format_), self._structure, beside=beside)
        if merged is not None:
            info = self._workspace.global_info
            temporary = info.with_name(f".{info.name}.{os.getpid()}")
            temporary.write_bytes(merged)
            os.replace(temporary, info)

    def collect(self, run: str, round_: int, client: str) -> Submission:
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
        return self._opaque_file(source, prefix, info) if self._opaque else self._tensors(source, prefix, info)

    def has_local(self) -> bool:
        """Whether the files of a finished round are there."""
        return self._workspace.local_model.is_file() and self._workspace.local_info.is_file()

    def release_local(self) -> None:
        """The update is on the bus: free the trainer's file, whose pages are what the next one is written to."""
        self._workspace.local_model.unlink(missing_ok=True)

    def _opaque_file(self, source: Path, prefix: str, info: Info) -> Submission:
        if not source.stat().st_size:
            raise CheckpointError(f"{source}: empty: save the checkpoint before SetEvent('TrainFinished')")
        with self._store.stage() as staged:
            if not linked(source, staged):
                shutil.copyfile(source, staged)
            digest, size = sha256_file(staged)
            path = named(prefix, "update", digest, ".bin")
            self._store.put(path, staged, digest=digest)
        return Submission(path, digest, size, OPAQUE, info)

    def _tensors(self, source: Path, prefix: str, info: Info) -> Submission:
        from flavor.store.formats import detect

        format_ = detect(source)
        self._format = format_.value
        if self._compress == "none" or self._given is None:
            path, wire = self._put_whole(source, format_, prefix)
        else:
            path, wire = self._put_change(source, format_, prefix, self._compress, self._given)
        self._structure = wire.structure
        self._keep_beside(wire)
        return Submission(path, wire.sha256, wire.size_bytes, self._format, info)

    def _keep_beside(self, wire: WireInfo) -> None:
        """Keep what the trainer saved beside its state_dict, which it finds beside the global model's."""
        from flavor.store.formats import write_beside

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
        from flavor.store.formats import Format, take_safetensors, to_safetensors

        with self._store.stage() as staged:
            taken = None
            if format_ is Format.SAFETENSORS and linked(source, staged):
                taken = take_safetensors(staged)
                if taken is None:
                    staged.unlink()
            wire = taken or to_safetensors(source, staged, format_)
            path = named(prefix, "update", wire.sha256, ".safetensors")
            self._store.put(path, staged, digest=wire.sha256)
        return path, wire

    def _put_change(
        self, source: Path, format_: Format, prefix: str, kind: Literal["bf16", "int8"], given: GlobalModel
    ) -> tuple[str, WireInfo]:
        """Put the change from the global model `given` to the trainer's parameters into the store."""
        from flavor.store.formats import Encoding, TensorFile, encode

        base = TensorFile.open(self._store.local(given.path, digest=given.digest, seal=given.seal))
        with self._store.stage() as staged:
            wire = encode(source, staged, base, Encoding(kind, given.digest), format_)
            path = named(prefix, "update", wire.sha256, ".safetensors")
            self._store.put(path, staged, digest=wire.sha256)
        return path, wire
