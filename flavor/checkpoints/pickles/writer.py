"""Pickles written opcode by opcode, with large byte strings streamed instead of held.

`pickle.Pickler` would need torch's own functions to name them, and a copy of each tensor as bytes. Every
opcode here is of protocol 4 or below, which torch and Python 3.4 read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from flavor.checkpoints.blocks import Array, byte_blocks
from flavor.checkpoints.dtypes import FOREIGN, STORAGE_NAMES, TORCH_NAMES, DType


class Sink(Protocol):
    """What takes the bytes: a file, or an entry of a zip."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Take some bytes."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the reader imports."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """What a global returns for these arguments; then filled with a dict's items, then given a state."""

    function: Global
    arguments: tuple[object, ...] = ()
    items: dict[str | int, object] | None = None
    state: tuple[object, ...] | None = None


@dataclass(frozen=True, slots=True)
class Persistent:
    """What a persistent id stands for."""

    pid: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Bytes:
    """A bytes object of known size, streamed."""

    size: int
    blocks: Iterable[bytes | memoryview]


def emit(sink: Sink, value: object, protocol: int = 4) -> None:
    """Write one pickle of a value made of plain Python and the classes above."""
    sink.write(b"\x80" + bytes([protocol]))
    _emit(sink, value)
    sink.write(b".")


def _emit(sink: Sink, value: object) -> None:  # noqa: PLR0912  (one branch for each kind of value)
    match value:
        case None:
            sink.write(b"N")
        case bool():
            sink.write(b"\x88" if value else b"\x89")
        case int():
            _emit_integer(sink, value)
        case float():
            sink.write(b"G" + struct.pack(">d", value))
        case str():
            data = value.encode("utf-8", "surrogatepass")
            sink.write(b"X" + struct.pack("<I", len(data)) + data)
        case Bytes():
            sink.write(b"\x8e" + struct.pack("<Q", value.size))
            for block in value.blocks:
                sink.write(block)
        case tuple() | list():
            sink.write(b"(" if isinstance(value, tuple) else b"](")
            for item in value:
                _emit(sink, item)
            sink.write(b"t" if isinstance(value, tuple) else b"e")
        case dict():
            sink.write(b"}")
            _emit_items(sink, value)
        case Global():
            sink.write(f"c{value.module}\n{value.name}\n".encode())
        case Persistent():
            _emit(sink, value.pid)
            sink.write(b"Q")
        case Call():
            _emit(sink, value.function)
            _emit(sink, value.arguments)
            sink.write(b"R")
            if value.items is not None:
                _emit_items(sink, value.items)
            if value.state is not None:
                _emit(sink, value.state)
                sink.write(b"b")
        case _:
            raise TypeError(f"a {type(value).__name__} has no pickle here")


def _emit_items(sink: Sink, items: dict[str | int, object]) -> None:
    sink.write(b"(")
    for key, item in items.items():
        _emit(sink, key)
        _emit(sink, item)
    sink.write(b"u")


def _emit_integer(sink: Sink, value: int) -> None:
    if -(2**31) <= value < 2**31:
        sink.write(b"J" + struct.pack("<i", value))
    else:
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        sink.write(b"\x8b" + struct.pack("<i", len(data)) + data)


def dtype_value(dtype: DType) -> Call:
    """A numpy dtype, as numpy pickles it."""
    if dtype.name in FOREIGN:
        code, order, size, flags = Global("ml_dtypes", dtype.name), "<", dtype.itemsize, 64
        return Call(
            Global("numpy", "dtype"),
            (code, False, True),
            state=(3, order, None, None, None, size, size, flags),
        )
    order = "|" if dtype.itemsize == 1 else "<"
    return Call(Global("numpy", "dtype"), (dtype.str[1:], False, True), state=(3, order, None, None, None, -1, -1, 0))


def array_value(array: Array) -> Call:
    """An ndarray, under the module name that numpy 1 and 2 both know."""
    return Call(
        Global("numpy.core.multiarray", "_reconstruct"),
        (Global("numpy", "ndarray"), (0,), Bytes(1, [b"b"])),
        state=(1, array.shape, dtype_value(array.dtype), False, Bytes(array.nbytes, byte_blocks(array))),
    )


def scalar_value(array: Array) -> Call:
    """A numpy scalar with the value of an array of one element."""
    value = Bytes(array.nbytes, byte_blocks(array))
    return Call(Global("numpy.core.multiarray", "scalar"), (dtype_value(array.dtype), value))


def tensor_value(array: Array, storage: object) -> Call:
    """A dense torch tensor over a storage that holds exactly its elements."""
    strides, step = [], 1
    for size in reversed(array.shape):
        strides.append(step)
        step *= max(size, 1)
    head = (
        storage,
        0,
        array.shape,
        tuple(reversed(strides)),
        False,
        Call(Global("collections", "OrderedDict")),
    )
    if array.dtype in STORAGE_NAMES:
        return Call(Global("torch._utils", "_rebuild_tensor_v2"), head)
    dtype = Global("torch", TORCH_NAMES[array.dtype])  # those for which torch has no typed storage
    return Call(Global("torch._utils", "_rebuild_tensor_v3"), (*head, dtype))


def storage_id(array: Array, key: str, untyped: Global) -> tuple[str, Global, str, str, int]:
    """How torch refers to the storage of this array: type, key, device, number of elements.

    `untyped` is the type for elements that have no typed storage; its elements are bytes.
    """
    typed = STORAGE_NAMES.get(array.dtype)
    if typed is None:
        return "storage", untyped, key, "cpu", array.nbytes
    return "storage", Global("torch", typed), key, "cpu", array.size
