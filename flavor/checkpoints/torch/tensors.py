"""The tensors behind the names that torch writes into pickles: strided views of storages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from flavor.checkpoints.blocks import Array
from flavor.checkpoints.dtypes import BY_STORAGE, BY_TORCH, UNREAD_STORAGES, DType
from flavor.checkpoints.limits import is_bomb, is_shape, shape_bytes
from flavor.checkpoints.pickles.arrays import NUMPY_GLOBALS
from flavor.checkpoints.pickles.reader import Globals, Inert, Recipe
from flavor.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class StorageType:
    """torch.FloatStorage and its kind; `dtype` is None for untyped bytes, and for elements that are not read."""

    dtype: DType | None
    itemsize: int = 1
    unread: str = ""  # what the elements are that cannot be aggregated, e.g. complex64

    @classmethod
    def of(cls, dtype: DType) -> StorageType:
        """The storage of an element type that is read."""
        return cls(dtype, dtype.itemsize)


@dataclass(slots=True, eq=False)  # by identity: a pickle may use it as a key
class Storage:
    """The elements that one or more tensors look at; legacy files tell where they lie after the pickle."""

    kind: StorageType
    data: memoryview | None = None

    @property
    def dtype(self) -> DType | None:
        """The element type; None for untyped bytes."""
        return self.kind.dtype

    def part(self, offset: int, size: int) -> Storage:
        """Some elements of it, as old files share storages."""
        itemsize = self.kind.itemsize
        if self.data is None or offset < 0 or size < 0 or (offset + size) * itemsize > len(self.data):
            raise ValueError("a storage beyond its own end")
        return Storage(self.kind, self.data[offset * itemsize : (offset + size) * itemsize])


@dataclass(slots=True, eq=False)  # by identity: a pickle may use it as a key
class PickledTensor:
    """A tensor as pickled; `realize` makes it an array."""

    storage: object
    offset: object
    shape: object
    strides: object
    dtype: object = None
    is_lazy_math: bool = False  # a negated or conjugated view: its bytes are not its values

    def set_state(self, state: object) -> None:
        """Ignore the attributes of a tensor, which are not part of its values."""

    def realize(self, where: str) -> Array:
        """A strided view of the storage, checked against its end; raises `CheckpointError`."""
        storage = self.storage
        dtype = storage.dtype if self.dtype is None and isinstance(storage, Storage) else self.dtype
        if isinstance(storage, Storage) and storage.kind.unread:
            raise CheckpointError(f"{where}: a tensor of {storage.kind.unread}, which cannot be averaged; {_ADVICE}")
        if self.is_lazy_math or not isinstance(storage, Storage) or not isinstance(dtype, np.dtype):
            raise CheckpointError(f"{where}: a tensor of an element type or layout not read; save a plain dense tensor")
        shape, strides = self.shape, self.strides
        size = shape_bytes(cast(tuple[int, ...], shape), dtype.itemsize) if is_shape(shape) else None
        is_sound = size is not None and is_shape(strides) and type(self.offset) is int and self.offset >= 0
        if size is None or not is_sound or storage.data is None:
            raise CheckpointError(f"{where}: an impossible tensor; save the checkpoint again")
        sizes, steps, offset = (
            cast(tuple[int, ...], shape),
            cast(tuple[int, ...], strides),
            cast(int, self.offset),
        )
        if len(steps) != len(sizes):
            raise CheckpointError(f"{where}: an impossible tensor; save the checkpoint again")
        if size == 0:
            return np.empty(sizes, dtype)
        last = offset + sum((length - 1) * step for length, step in zip(sizes, steps, strict=True))
        if (last + 1) * dtype.itemsize > len(storage.data):
            raise CheckpointError(f"{where}: the tensor reaches beyond its storage; save the checkpoint again")
        if is_bomb(size, len(storage.data)):
            raise CheckpointError(f"{where}: an expanded tensor of {size} bytes; save its contiguous() or leave it out")
        # A stride along a dimension of one element means nothing, and may be too large for numpy.
        in_bytes = [
            step * dtype.itemsize if length > 1 else dtype.itemsize for length, step in zip(sizes, steps, strict=True)
        ]
        view: Array = np.ndarray(sizes, dtype, storage.data, offset * dtype.itemsize, in_bytes)
        return view


def _tensor_v1(storage: object, offset: object, shape: object, strides: object, *_: object) -> PickledTensor:
    return PickledTensor(storage, offset, shape, strides)


def _tensor_v2(storage: object, offset: object, shape: object, strides: object, *rest: object) -> PickledTensor:
    """After the strides: requires_grad, hooks and perhaps the metadata."""
    return PickledTensor(storage, offset, shape, strides, is_lazy_math=any(map(_is_lazy_math, rest[2:])))


def _tensor_v3(storage: object, offset: object, shape: object, strides: object, *rest: object) -> PickledTensor:
    """After the strides: requires_grad, hooks, element type and perhaps the metadata."""
    dtype = rest[2] if len(rest) > 2 and isinstance(rest[2], np.dtype) else Inert("an unread element type")
    return PickledTensor(storage, offset, shape, strides, dtype, any(map(_is_lazy_math, rest[3:])))


def _is_lazy_math(metadata: object) -> bool:
    return isinstance(metadata, dict) and any(metadata.values())


def _parameter(tensor: object, *_: object) -> object:
    return tensor


def _typed(function: object, kind: object, arguments: object, state: object = None) -> object:
    """Return a tensor with attributes, or of a subclass, as the tensor, unless a subclass has a state of its own."""
    if not isinstance(function, Recipe) or not isinstance(arguments, tuple):
        return Inert("torch tensor of a kind that is not read")
    name = kind.global_name if isinstance(kind, Inert) else "torch.Tensor"
    if name in _PLAIN_TENSORS or not _has_state(state):
        return function.make(*arguments)
    return Inert(f"{name} (a tensor subclass with a state of its own)")


def _has_state(state: object) -> bool:
    """Return whether a state has content: a dict of attributes, or such a dict and one of slots."""
    return any(map(bool, state)) if isinstance(state, tuple) else bool(state)


def _size(values: object = ()) -> object:
    return tuple(values) if isinstance(values, list | tuple) else Inert("torch.Size")


_ADVICE = "save what it stands for as floats: torch.view_as_real of a complex one, dequantize() of a quantized one"
_PLAIN_TENSORS = frozenset({"torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Buffer"})


_STORAGES = {
    **{name: StorageType.of(dtype) for name, dtype in BY_STORAGE.items()},
    **{name: StorageType(None, size, unread) for name, (unread, size) in UNREAD_STORAGES.items()},
    "UntypedStorage": StorageType(None),
}


def torch_globals(load_from_bytes: Callable[[object], object]) -> Globals:
    """The table for torch files, which may hold ndarrays too; the argument reads a file within the pickle."""
    recipes: dict[tuple[str, str], Callable[..., object]] = {
        ("torch._utils", "_rebuild_tensor"): _tensor_v1,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor_v2,
        ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
        ("torch._tensor", "_rebuild_from_type"): _typed,
        ("torch._tensor", "_rebuild_from_type_v2"): _typed,
        ("torch", "Size"): _size,
        ("torch.storage", "_load_from_bytes"): load_from_bytes,
    }
    return {
        **NUMPY_GLOBALS,
        **{name: Recipe(".".join(name), make) for name, make in recipes.items()},
        **{("torch", name): dtype for name, dtype in BY_TORCH.items()},
        **{
            (module, name): kind
            for module in ("torch", "torch.storage", "torch.cuda")
            for name, kind in _STORAGES.items()
        },
    }
