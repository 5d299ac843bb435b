"""Write torch files and pickles without torch; tensors go from their map straight into the new file."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping

from flavor.atomic import replacing
from flavor.checkpoints.blocks import Array, byte_blocks
from flavor.checkpoints.pickles.writer import (
    Bytes,
    Call,
    Global,
    Persistent,
    array_value,
    emit,
    storage_id,
    tensor_value,
)
from flavor.checkpoints.state_dict.beside import Beside, emittable
from flavor.checkpoints.state_dict.nesting import nest
from flavor.checkpoints.state_dict.structure import Structure
from flavor.checkpoints.torch.reader import LEGACY_NUMBER
from flavor.checkpoints.zip_entries import open_entry
from flavor.disk import StrPath

_NOTHING: Beside = {}
_ROOT = "archive"
_UNTYPED = Global("torch.storage", "UntypedStorage")
_BYTES = Global("torch", "ByteStorage")  # torch's legacy reader cannot read its own untyped storages


def write_torch(
    path: StrPath, tensors: Mapping[str, Array], structure: Structure | None, where: str, beside: Beside = _NOTHING
) -> None:
    """Write `{"state_dict": ..., **beside}` as torch.save does; `torch.load` reads it with weights_only and mmap."""
    stored: list[Array] = []

    def tensor(array: Array) -> Call:
        stored.append(array)
        return tensor_value(array, Persistent(storage_id(array, str(len(stored) - 1), _UNTYPED)))

    root = nest(tensors, structure, where, native=tensor, torch=tensor)
    text = io.BytesIO()
    emit(text, _with_beside(root, beside, native=array_value, torch=tensor), protocol=2)
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in ("data.pkl", text.getvalue()), ("byteorder", b"little"):
            with open_entry(archive, file, f"{_ROOT}/{name}", len(data)) as entry:
                entry.write(data)
        for key, array in enumerate(stored):
            with open_entry(archive, file, f"{_ROOT}/data/{key}", array.nbytes) as entry:
                for block in byte_blocks(array):
                    entry.write(block)
        with open_entry(archive, file, f"{_ROOT}/version", 2) as entry:
            entry.write(b"3\n")


def write_pickle(
    path: StrPath, tensors: Mapping[str, Array], structure: Structure | None, where: str, beside: Beside = _NOTHING
) -> None:
    """Write `{"state_dict": ..., **beside}` as a pickle of ndarrays, or of torch tensors where there were such."""
    root = nest(tensors, structure, where, native=array_value, torch=_pickled_tensor)
    with replacing(path) as file:
        emit(file, _with_beside(root, beside, native=array_value, torch=_pickled_tensor))


def write_beside(path: StrPath, beside: Beside) -> None:
    """Keep the data beside a state_dict, for `read_beside`."""
    write_torch(path, {}, None, str(path), beside)


def _with_beside(
    root: dict[str, object], beside: Beside, native: Callable[[Array], object], torch: Callable[[Array], object]
) -> dict[str | int, object]:
    whole: dict[str | int, object] = {
        key: emittable(value, native=native, torch=torch) for key, value in beside.items()
    }
    return whole | root


def _pickled_tensor(array: Array) -> Call:
    """A torch tensor as plain pickle spells it: its storage is a legacy torch file within the pickle."""
    head = io.BytesIO()
    emit(head, LEGACY_NUMBER, protocol=2)
    emit(head, 1001, protocol=2)
    emit(head, {"protocol_version": 1001, "little_endian": True}, protocol=2)
    *kind, count = storage_id(array, "0", _BYTES)
    emit(head, Persistent((*kind, count, None)), protocol=2)
    emit(head, ["0"], protocol=2)
    head.write(count.to_bytes(8, "little"))

    def blocks() -> Iterator[bytes | memoryview]:
        yield head.getvalue()
        yield from byte_blocks(array)

    data = Bytes(head.tell() + array.nbytes, blocks())
    return tensor_value(array, Call(Global("torch.storage", "_load_from_bytes"), (data,)))
