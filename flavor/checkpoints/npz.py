"""Checkpoints of np.savez: one .npy in a zip for each tensor, and never an object array.

An npz cannot nest without pickle, so its keys are the names of the tensors. If every key begins with
"state_dict/" or "state_dict.", that prefix is not part of the names; it is remembered and written again.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from typing import cast

import numpy as np

from flavor.atomic import replacing
from flavor.checkpoints.blocks import Array, byte_blocks
from flavor.checkpoints.dtypes import ACCEPTED, FOREIGN, DType, is_supported, native
from flavor.checkpoints.limits import is_shape, shape_bytes
from flavor.checkpoints.mapped import Mapped
from flavor.checkpoints.state_dict.structure import Structure
from flavor.checkpoints.zip_entries import ZipEntries, open_entry
from flavor.disk import StrPath
from flavor.errors import CheckpointError

PREFIXES = ("state_dict/", "state_dict.")
_SUFFIX = ".npy"
_MAX_HEADER_BYTES = 4096


def read_npz(source: Mapped) -> tuple[dict[str, Array], Structure | None]:
    """Return the tensors in the order of the zip; stored ones are views of the file, deflated ones copies."""
    archive = ZipEntries(source)
    arrays: dict[str, Array] = {}
    for entry in archive.names:
        if not entry.endswith(_SUFFIX):
            raise CheckpointError(f"{source.name}: {entry!r} is no array; save the checkpoint with np.savez")
        name = entry.removesuffix(_SUFFIX)
        arrays[name] = _parse(archive.read(entry), name, f"{source.name}: {name!r}")
    for prefix in PREFIXES:
        if arrays and all(name.startswith(prefix) for name in arrays):
            return {name.removeprefix(prefix): array for name, array in arrays.items()}, Structure(prefix=prefix)
    return arrays, None


def write_npz(path: StrPath, tensors: Mapping[str, Array], structure: Structure | None, where: str) -> None:
    """Write an uncompressed npz that np.load reads without pickle; a nested structure becomes names."""
    prefix = structure.prefix if structure else ""
    for name, array in tensors.items():
        if array.dtype.name in FOREIGN:
            kind = array.dtype.name
            raise CheckpointError(f"{where}: {name!r} is {kind}, which npz cannot hold; use torch or safetensors")
        if "\0" in name or not _is_unicode(name):
            raise CheckpointError(f"{where}: the name {name!r} cannot stand in a zip; rename the tensor")
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in tensors.items():
            head = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                head, {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
            )
            size = head.tell() + array.nbytes
            with open_entry(archive, file, prefix + name + _SUFFIX, size) as entry:
                entry.write(head.getbuffer())
                for block in byte_blocks(array):
                    entry.write(block)


def _parse(data: memoryview, name: str, where: str) -> Array:
    head = io.BytesIO(bytes(data[:_MAX_HEADER_BYTES]))
    try:
        version = np.lib.format.read_magic(head)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        shape, is_fortran, dtype = readers[version](head, max_header_size=_MAX_HEADER_BYTES)
    except Exception as error:  # numpy evaluates the header as a literal, which can fail in many ways
        raise CheckpointError(f"{where}: a damaged .npy ({type(error).__name__}); save it again") from None
    if dtype.hasobject:
        hint = "np.savez(path, **state_dict)" if name == "state_dict" else "numeric arrays only"
        raise CheckpointError(f"{where}: an array of Python objects is refused; save {hint}")
    return _view(data[head.tell() :], shape, dtype, is_fortran, where)


def _view(data: memoryview, shape: object, dtype: DType, is_fortran: bool, where: str) -> Array:
    if not is_supported(dtype):
        hint = "np.savez loses bfloat16 and float8; " if dtype.kind == "V" else ""
        raise CheckpointError(f"{where}: dtype {dtype} is refused; {hint}save one of {ACCEPTED}")
    size = shape_bytes(cast(tuple[int, ...], shape), dtype.itemsize) if is_shape(shape) else None
    if size is None or size != len(data):
        raise CheckpointError(f"{where}: its bytes do not fit its shape; save the checkpoint again")
    sizes = cast(tuple[int, ...], shape)
    if math.prod(sizes) == 0:
        return np.empty(sizes, native(dtype))
    array: Array = np.ndarray(sizes, dtype, data, order="F" if is_fortran else "C")
    return array if dtype.isnative else array.astype(native(dtype))


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
