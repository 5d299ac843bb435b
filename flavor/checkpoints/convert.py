"""Convert between a trainer's file and the wire, on which only safetensors travels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import IO

from flavor.checkpoints.blocks import Array
from flavor.checkpoints.checkpoint import (
    ENCODING_KEY,
    SCALE_PREFIX,
    STRUCTURE_KEY,
    Checkpoint,
    fill,
    read,
    safetensors_metadata,
    write,
)
from flavor.checkpoints.detection import detect
from flavor.checkpoints.format import Format
from flavor.checkpoints.safetensors.reader import TensorFile
from flavor.checkpoints.safetensors.writer import TensorFileWriter
from flavor.checkpoints.state_dict.beside import Beside
from flavor.checkpoints.state_dict.structure import Structure
from flavor.checkpoints.state_dict.wrapper_prefix import bare_names, renamed
from flavor.checkpoints.tied import Twins, equal, one_in_the_file, refused
from flavor.disk import StrPath
from flavor.errors import CheckpointError, NotDivided
from flavor.parts import WHOLE, Parts

FORMAT_KEY = "format"
LIBRARIES = frozenset({"pt", "np", "tf", "flax", "jax", "mlx", "paddle"})
"""Values of `FORMAT_KEY` that other libraries read; any other value may be a text of the site."""


@dataclass(frozen=True, slots=True)
class WireInfo:
    """An edge's record of the file that it sends."""

    sha256: str
    size_bytes: int
    format: Format  # of the trainer's file, in which it wants the global model back
    names: tuple[str, ...]
    structure: Structure | None
    beside: Beside = field(default_factory=dict)  # what else the file held: for `write_beside`, before the file goes
    left_out: tuple[str, ...] = ()  # keys of what cannot be kept of it
    own_names: Mapping[str, str] = field(default_factory=dict)
    """Each name on the wire to the trainer's own name, where prefixes were removed."""
    own_tensors: Mapping[str, Array] = field(default_factory=dict)
    """The tensors that are not shared, by their names on the wire: views of the trainer's file."""
    all_names: tuple[str, ...] = ()
    """The names of all tensors on the wire, shared or not, in the trainer's order."""
    twins: Twins = field(default_factory=dict)
    """Tensors that are not shared, each with a shared one of the same numbers: tied, or equal by chance."""


@dataclass(frozen=True)
class Outgoing:
    """A trainer's checkpoint, and what of it is sent."""

    format: Format
    own: Checkpoint
    """The checkpoint as the trainer has saved it."""
    sent: Checkpoint
    """Its shared tensors, under their names on the wire, without what stays at the site."""
    own_names: Mapping[str, str]
    own_tensors: Mapping[str, Array]
    all_names: tuple[str, ...]
    twins: Twins

    @classmethod
    def of(cls, src: StrPath, fmt: Format | None = None, *, bare: bool = False, parts: Parts = WHOLE) -> Outgoing:
        """Read a trainer's checkpoint. Raises `CheckpointError` for one that cannot be read, aggregated or divided.

        `bare` removes the prefixes of wrappers from the names (see `flavor.checkpoints.state_dict.wrapper_prefix`). A
        part of a model is sent without the nesting, whose keys name the other tensors.
        """
        fmt = fmt or detect(src)
        own = read(src, fmt)
        sent = public(own, os.fspath(src))
        names: dict[str, str] = {}
        if bare:
            names = bare_names(own.tensors)
            sent = renamed(sent, {mine: name for name, mine in names.items()})
        tensors, kept, twins = sent.tensors, dict[str, Array](), dict[str, str]()
        if parts:
            if problem := parts.problem(tensors):
                raise NotDivided(f"{os.fspath(src)}: {problem}", told=parts.problem(tensors, near=False))
            shared = frozenset(parts.shared(tensors))
            kept = {name: array for name, array in tensors.items() if name not in shared}
            for mine, other in one_in_the_file(tensors, shared).items():
                raise refused(mine, other, f"{os.fspath(src)}: ")
            twins = dict(equal(tensors, shared))
            sent = replace(
                sent, tensors={name: array for name, array in tensors.items() if name in shared}, structure=None
            )
        return cls(fmt, own, sent, names, kept, tuple(tensors), twins)

    def info(self, writer: TensorFileWriter | None = None) -> WireInfo:
        """Return the record of the file that `writer` wrote of what is sent; without one, of a file of no bytes."""
        return WireInfo(
            writer.sha256 if writer is not None else "",
            writer.size_bytes if writer is not None else 0,
            self.format,
            tuple(self.sent.tensors),
            self.own.structure,
            self.own.beside,
            self.own.left_out,
            self.own_names,
            self.own_tensors,
            self.all_names,
            self.twins,
        )


def to_safetensors(
    src: StrPath,
    dest: StrPath | IO[bytes],
    fmt: Format | None = None,
    *,
    bare: bool = False,
    parts: Parts = WHOLE,
) -> WireInfo:
    """Convert a trainer's checkpoint for the wire, block by block, with its digest, in one pass.

    `bare` and `parts` are those of `Outgoing.of`. `dest` is a path or a binary file. The structure travels in the
    metadata, without its texts. Of a trainer's own notes in its safetensors file only "format" travels; the others stay
    on the site, as the texts do: `WireInfo` has them. Raises `CheckpointError` for a file that cannot be read or
    aggregated, `StoreError` when `dest` cannot be written.
    """
    outgoing = Outgoing.of(src, fmt, bare=bare, parts=parts)
    with TensorFileWriter(dest, outgoing.sent.specs, safetensors_metadata(outgoing.sent)) as writer:
        fill(writer, outgoing.sent)
    return outgoing.info(writer)


def public(checkpoint: Checkpoint, where: str) -> Checkpoint:
    """Return the checkpoint without the parts that stay on its site: texts, and the trainer's own notes.

    Raises `CheckpointError` if it has no tensors.
    """
    check_not_empty(checkpoint.tensors, where)
    kept = {key: value for key, value in checkpoint.metadata.items() if key == FORMAT_KEY and value in LIBRARIES}
    structure = checkpoint.structure.shared() if checkpoint.structure is not None else None
    return replace(checkpoint, structure=structure, metadata=kept)


def check_not_empty(names: Collection[str], where: str) -> None:
    """Raise `CheckpointError` if a checkpoint has no tensors: a round of such updates would close without training."""
    if not names:
        raise CheckpointError(f"{where}: its state_dict is empty; save model.state_dict() of a model with parameters")


def take_safetensors(path: StrPath) -> WireInfo | None:
    """Return an edge's record of a safetensors file that can be sent as it is, without a copy.

    Returns None when its metadata holds something that should stay on its site: the file must then be converted. Raises
    `CheckpointError`.
    """
    file = TensorFile.open(path)
    if ENCODING_KEY in file.metadata or any(_objection(key, file) for key in file.metadata):
        return None
    check_not_empty(file.names, file.path)
    digest = hashlib.sha256(file.source.view).hexdigest()
    structure = read(path, Format.SAFETENSORS).structure
    return WireInfo(digest, file.size_bytes, Format.SAFETENSORS, file.names, structure)


def check_metadata(source: StrPath | TensorFile) -> None:
    """Raise `CheckpointError` unless the metadata of a file from the wire holds only what an edge writes.

    One client's metadata become the global model's and so reach every site. Allowed are a library's format, this
    project's own entries, and a nesting that fits the tensors and has no text of the site.
    """
    file = source if isinstance(source, TensorFile) else TensorFile.open(source)
    check_not_empty(file.names, file.path)
    for key in file.metadata:
        if objection := _objection(key, file):
            raise CheckpointError(f"{file.path}: {objection}")


def _objection(key: str, file: TensorFile) -> str:
    """Return why the metadata under this key may not cross the wire; '' when it may."""
    value = file.metadata[key]
    if key == STRUCTURE_KEY:
        structure = Structure.from_json(value, file.path)
        structure.check([name for name in file.names if not name.startswith(SCALE_PREFIX)], file.path)
        if structure.shared().to_json() != value:
            return (
                f"its {STRUCTURE_KEY} holds text of the state_dict, or more than an edge writes, and would reach every "
                "site: let an edge of this release write it, which keeps the text at the site"
            )
    elif key == FORMAT_KEY:
        if value not in LIBRARIES:
            return f"metadata {key!r} is none of {', '.join(sorted(LIBRARIES))}; let the edge write it"
    elif key != ENCODING_KEY:
        return f"metadata {key[:40]!r} may not cross the wire; let the edge write it"
    return ""


def check_given(path: StrPath) -> None:
    """Raise `CheckpointError` unless a file is a global model as an aggregator writes it.

    Its header is laid out so that no pickle, archive or script can begin with the same bytes. A library with
    which the trainer opens the file either reads it as safetensors or fails.
    """
    try:
        aligned = TensorFile.reading(path).is_aligned
    except CheckpointError as error:
        raise CheckpointError(f"the global model is no safetensors file: {error}") from None
    if not aligned:
        raise CheckpointError(f"the global model {path} is no file that an aggregator wrote: its header is not aligned")


def from_safetensors(
    src: StrPath,
    dest: StrPath,
    fmt: Format,
    structure: Structure | None = None,
    *,
    beside: Beside | None = None,
    own_names: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Write the global model in a trainer's own format; return the checkpoint as it was written.

    The nesting is that of `structure`, the site's own (from its `WireInfo`), or else the one in the file. `beside` is
    put beside the tensors. `own_names` maps each name on the wire to the trainer's own name. Raises `CheckpointError`
    when the file is damaged or does not hold that structure's tensors.
    """
    return given_as(read(src, Format.SAFETENSORS), dest, fmt, structure, beside=beside, own_names=own_names)


def given_as(
    checkpoint: Checkpoint,
    dest: StrPath,
    fmt: Format,
    structure: Structure | None = None,
    *,
    beside: Beside | None = None,
    own_names: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Write a model that was read from the wire as `from_safetensors` does."""
    made = as_own(checkpoint, structure, beside=beside, own_names=own_names)
    write(dest, made, fmt)
    return made


def as_own(
    checkpoint: Checkpoint,
    structure: Structure | None = None,
    *,
    beside: Beside | None = None,
    own_names: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Return a model that was read from the wire as a trainer's own checkpoint; see `from_safetensors`."""
    if own_names:
        checkpoint = renamed(replace(checkpoint, structure=None), own_names)
    if beside is not None:
        checkpoint = replace(checkpoint, beside=beside)
    if structure is not None:
        checkpoint = replace(checkpoint, structure=structure)
    return checkpoint
