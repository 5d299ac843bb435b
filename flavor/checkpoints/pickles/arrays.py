"""The arrays behind the names that numpy writes into pickles; each is checked before it is created."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from flavor.checkpoints.blocks import Array
from flavor.checkpoints.dtypes import ACCEPTED, FOREIGN, DType, is_supported, native
from flavor.checkpoints.limits import is_shape, shape_bytes
from flavor.checkpoints.pickles.reader import Globals, Inert, Recipe
from flavor.errors import CheckpointError

_PLAIN = re.compile(r"[<>=|]?([biuf][1248]|\?)")
_COMPLEX = re.compile(r"[<>=|]?c(8|16)")


@dataclass(slots=True, eq=False)  # by identity: a pickle may use it as a key
class PickledDtype:
    """A dtype as pickled: a code such as "f4", and a state that holds the byte order."""

    code: object
    order: str = "="

    def set_state(self, state: object) -> None:
        """Take numpy's state of a dtype, of which only the byte order matters to plain types."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in {"<", ">", "|", "="}:
            raise ValueError("a damaged dtype")
        self.order = state[1]

    def resolve(self) -> DType | None:
        """The dtype, or None if it is not one that can be aggregated."""
        if isinstance(self.code, np.dtype):
            return self.code
        if not isinstance(self.code, str) or not _PLAIN.fullmatch(self.code):
            return None
        try:
            return np.dtype((self.order if self.order in "<>" else "") + self.code.lstrip("<>=|"))
        except TypeError:
            return None


@dataclass(slots=True, eq=False)  # by identity: a pickle may use it as a key
class PickledArray:
    """An array as pickled; `realize` makes it one."""

    shape: object = None
    dtype: object = None
    data: object = None
    is_fortran: bool = False
    is_scalar: bool = False
    axes: object = None  # how to transpose what was pickled in memory order

    def set_state(self, state: object) -> None:
        """Take numpy's state of an array: version, shape, dtype, order, bytes."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("a damaged array")
        _, self.shape, self.dtype, self.is_fortran, self.data = state

    def realize(self, where: str) -> Array:
        """The array, as a view of the mapped file where possible; raises `CheckpointError`."""
        dtype = self.dtype.resolve() if isinstance(self.dtype, PickledDtype) else None
        if dtype is None or not is_supported(dtype):
            raise CheckpointError(f"{where}: {self._refused()}")
        size = shape_bytes(cast(tuple[int, ...], self.shape), dtype.itemsize) if is_shape(self.shape) else None
        if size is None or not isinstance(self.data, bytes | memoryview) or len(self.data) != size:
            raise CheckpointError(f"{where}: the array's bytes do not fit its shape; save the checkpoint again")
        shape = cast(tuple[int, ...], self.shape)
        if size == 0:
            return np.empty(shape, native(dtype))
        array: Array = np.ndarray(shape, dtype, buffer=self.data, order="F" if self.is_fortran else "C")
        if self.axes is not None:
            if not is_shape(self.axes) or sorted(cast(tuple[int, ...], self.axes)) != list(range(array.ndim)):
                raise CheckpointError(f"{where}: a damaged order of axes; save the checkpoint again")
            array = array.transpose(cast(tuple[int, ...], self.axes))
        return array if dtype.isnative else array.astype(native(dtype))

    def as_key(self) -> object:
        """Return a value as the key of a dict: an int for a scalar of integers, else the value itself."""
        dtype = self.dtype.resolve() if self.is_scalar and isinstance(self.dtype, PickledDtype) else None
        if dtype is None or dtype.kind not in "iu":
            return self
        return int(self.realize("a key"))

    def _refused(self) -> str:
        code = self.dtype.code if isinstance(self.dtype, PickledDtype) else None
        if isinstance(code, str) and (found := _COMPLEX.fullmatch(code)):
            return (
                f"an array of complex{int(found[1]) * 8}, which cannot be averaged; "
                "save its real and its imaginary part apart"
            )
        if isinstance(code, str) and code.lstrip("<>=|").startswith("O"):
            return "an array of Python objects is refused; save numeric arrays only"
        label = repr(code[:20]) if isinstance(code, str) else "that is not plain"
        return f"an array of dtype {label} is refused; save one of {ACCEPTED}"


def _reconstruct(kind: object, *_: object) -> object:
    return PickledArray() if kind is NDARRAY else Inert("numpy subclass of ndarray")


def _frombuffer(data: object, dtype: object, shape: object, order: object, axes: object = None) -> PickledArray:
    return PickledArray(shape, dtype, data, order == "F", axes=axes)


def _scalar(dtype: object, data: object) -> PickledArray:
    return PickledArray((), dtype, data, is_scalar=True)


def _encode(text: object, encoding: object) -> bytes:
    """Stand for `_codecs.encode`, by which protocols below 3 write bytes."""
    if not isinstance(text, str) or encoding not in {"latin1", "latin-1"}:
        raise ValueError("bytes in an odd encoding")
    return text.encode("latin-1")


def _bytes(data: object = b"", encoding: object = None) -> object:
    """Stand for `bytes` and `bytearray`; refuses a length, which would only fill memory."""
    if isinstance(data, bytes | memoryview) and encoding is None:
        return data
    return _encode(data, encoding)


def _dict(items: object = ()) -> dict[object, object]:
    return dict(cast(Mapping[object, object], items)) if isinstance(items, dict | list | tuple) else {}


def _defaultdict(*_: object) -> dict[object, object]:
    return {}


NDARRAY = Recipe("numpy.ndarray", lambda *_: Inert("numpy.ndarray"))

NUMPY_GLOBALS: Globals = {
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): Recipe("numpy.dtype", lambda code, *_: PickledDtype(code)),
    **{("ml_dtypes", name): dtype for name, dtype in FOREIGN.items()},
    ("_codecs", "encode"): Recipe("_codecs.encode", _encode),
    ("collections", "OrderedDict"): Recipe("collections.OrderedDict", _dict),
    ("collections", "defaultdict"): Recipe("collections.defaultdict", _defaultdict),
    **{
        (module, name): Recipe(f"{module}.{name}", _bytes)
        for module in ("builtins", "__builtin__")
        for name in ("bytes", "bytearray")
    },
    **{
        (f"numpy.{core}.{module}", name): Recipe(f"numpy.{core}.{module}.{name}", make)
        for core in ("core", "_core")
        for module, name, make in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
}
