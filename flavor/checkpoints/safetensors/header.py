"""The header of a safetensors file: parsed with suspicion, and laid out for alignment.

A file is eight bytes of little-endian length, a JSON object of that length, then the data::

    {"__metadata__": {str: str}, NAME: {"dtype": "F32", "shape": [2, 3], "data_offsets": [BEGIN, END]}, ...}

The order of the JSON keys is the trainer's order of its tensors, which the format leaves free; the data lie
by element size, then by name, so that every tensor is aligned and equal models have equal layouts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flavor.checkpoints.dtypes import BY_SAFETENSORS, SAFETENSORS_NAMES, DType
from flavor.checkpoints.limits import (
    MAX_HEADER_BYTES,
    MAX_JSON_OBJECTS,
    MAX_NAME_CHARS,
    MAX_TENSORS,
    check_json,
    is_shape,
    shape_bytes,
)
from flavor.checkpoints.zip_entries import ALIGNMENT
from flavor.errors import CheckpointError

METADATA_KEY = "__metadata__"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor's name, type and shape."""

    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of its values."""
        return shape_bytes(self.shape, self.dtype.itemsize) or 0


@dataclass(frozen=True, slots=True)
class Header:
    """The layout of one file; `specs` and `begins` have the names in the trainer's order."""

    specs: dict[str, TensorSpec]
    begins: dict[str, int]  # offsets into the file, not into the data
    metadata: dict[str, str]
    data_start: int
    size_bytes: int
    in_file_order: tuple[TensorSpec, ...]  # as their data follow each other


def plan(specs: Sequence[TensorSpec], metadata: Mapping[str, str], where: str) -> tuple[bytes, Header]:
    """Lay out a new file; returns the bytes before its data, padded to a multiple of 64, and the header.

    Raises `CheckpointError` for names or element types that the format cannot hold.
    """
    for spec in specs:
        _check_spec(spec, where)
    if len({spec.name for spec in specs}) != len(specs):
        raise CheckpointError(f"{where}: two tensors have one name; rename one of them")
    offsets: dict[str, int] = {}
    end = 0
    in_file_order = tuple(sorted(specs, key=lambda spec: (-spec.dtype.itemsize, spec.name)))
    for spec in in_file_order:
        offsets[spec.name] = end
        end += spec.size_bytes
    table: dict[str, object] = {METADATA_KEY: dict(metadata)} if metadata else {}
    for spec in specs:
        begin = offsets[spec.name]
        table[spec.name] = {
            "dtype": SAFETENSORS_NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [begin, begin + spec.size_bytes],
        }
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(specs) > MAX_TENSORS or len(text) > MAX_HEADER_BYTES:
        raise CheckpointError(_too_many(where, len(specs)))
    start = 8 + len(text)
    header = Header(
        specs={spec.name: spec for spec in specs},
        begins={spec.name: start + offsets[spec.name] for spec in specs},
        metadata=dict(metadata),
        data_start=start,
        size_bytes=start + end,
        in_file_order=in_file_order,
    )
    return len(text).to_bytes(8, "little") + text, header


def _check_spec(spec: TensorSpec, where: str) -> None:
    if spec.dtype not in SAFETENSORS_NAMES:
        raise CheckpointError(f"{where}: tensor {spec.name!r} is {spec.dtype}, which cannot be aggregated; cast it")
    if not is_shape(spec.shape) or shape_bytes(spec.shape, spec.dtype.itemsize) is None:
        raise CheckpointError(f"{where}: tensor {spec.name!r} has the impossible shape {spec.shape}; check the trainer")
    _check_name(spec.name, where)
    if spec.name == METADATA_KEY:
        raise CheckpointError(f"{where}: no tensor may be called {METADATA_KEY!r} in safetensors; rename it")
    try:
        spec.name.encode()
    except UnicodeEncodeError:
        raise CheckpointError(f"{where}: the name {spec.name!r} is not Unicode text; rename it") from None


def _check_name(name: str, where: str) -> None:
    if len(name) > MAX_NAME_CHARS:
        raise CheckpointError(
            f"{where}: tensor {name[:40]!r}… has a name of {len(name)} characters; at most {MAX_NAME_CHARS} are read"
        )


def _too_many(where: str, count: int) -> str:
    return f"{where}: {count} tensors; at most {MAX_TENSORS} are carried: save them as fewer, stacked ones"


def parse(view: memoryview, where: str) -> Header:
    """Read and validate the header of a whole file; raises `CheckpointError` at the first false claim."""
    length = int.from_bytes(view[:8], "little")
    if len(view) < 8 or length > len(view) - 8:
        raise CheckpointError(f"{where}: cut short inside its header; write or fetch the file again")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(f"{where}: a header of {length} bytes; at most {MAX_HEADER_BYTES} are accepted")
    text = bytes(view[8 : 8 + length])
    # Counted before it is parsed, which takes seconds for a million entries. Quotes within a name are escaped.
    if (count := text.count(b'"dtype"')) > MAX_TENSORS:
        raise CheckpointError(_too_many(where, count))
    if (count := text.count(b"{")) > MAX_JSON_OBJECTS:
        raise CheckpointError(f"{where}: {count} objects in its header; at most {MAX_JSON_OBJECTS} are read")
    table = _parse_json(text, where)
    metadata = table.pop(METADATA_KEY, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{where}: {METADATA_KEY} does not map text to text; write the file again")
    if len(table) > MAX_TENSORS:
        raise CheckpointError(_too_many(where, len(table)))
    start = 8 + length
    specs: dict[str, TensorSpec] = {}
    begins: dict[str, int] = {}
    parts: list[tuple[int, int, str]] = []
    for name, entry in table.items():
        specs[name], begin, size = _parse_entry(name, entry, where)
        begins[name] = start + begin
        parts.append((start + begin, size, name))
    parts.sort()
    end = start
    for begin, size, name in parts:
        if begin != end:
            raise CheckpointError(f"{where}: tensor {name!r} overlaps or leaves a gap; write the file again")
        end += size
    header = Header(specs, begins, metadata, start, len(view), tuple(specs[name] for _, _, name in parts))
    if end != len(view):
        what = "cut short" if end > len(view) else "longer than its header says"
        raise CheckpointError(f"{where}: {what} ({len(view)} bytes, {end} declared); write or fetch the file again")
    return header


def _parse_json(text: bytes, where: str) -> dict[str, object]:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise ValueError("a name appears twice")
        return table

    try:
        if not text.startswith(b"{"):
            raise ValueError("it does not start with '{'")
        check_json(text)
        table: dict[str, object] = json.loads(text.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: a damaged safetensors header ({error}); write the file again") from None
    return table


def _parse_entry(name: str, entry: object, where: str) -> tuple[TensorSpec, int, int]:
    """Return the tensor's spec, where in the data it begins, and its size in bytes."""
    _check_name(name, where)
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where}: tensor {name!r} lacks dtype, shape or data_offsets; write the file again")
    label, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    dtype = BY_SAFETENSORS.get(label) if isinstance(label, str) else None
    if dtype is None:
        hint = "complex numbers cannot be averaged; " if str(label).startswith("C") else ""
        raise CheckpointError(f"{where}: tensor {name!r} is {label!r}; {hint}save it as F32, F16 or BF16")
    size = shape_bytes(shape, dtype.itemsize) if is_shape(shape) else None
    if size is None:
        raise CheckpointError(f"{where}: tensor {name!r} has an impossible shape; write the file again")
    if not is_shape(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != size:
        raise CheckpointError(f"{where}: tensor {name!r}: its data_offsets do not fit {label} {shape}; write it again")
    return TensorSpec(name, dtype, tuple(shape)), offsets[0], size
