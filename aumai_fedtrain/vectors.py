"""The numbers of one parameter: a list, as JSON has it, or an array, as frameworks have it.

A list is checked once and kept as an immutable `Vector`, which holds the same numbers as an array: so averaging never
walks over a list again. An array is kept as it is, without a copy or a conversion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Annotated, Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

Array: TypeAlias = npt.NDArray[Any]
_BLOCK = 256 * 1024


class Vector(list[Any]):
    """A list of floats, or of such lists, that cannot be changed; `array` holds the same numbers as float64.

    Equal to, printed as and written to JSON as the plain list of the same numbers; `list(v)` is a copy to change.
    """

    __slots__ = ("array",)
    array: npt.NDArray[np.float64]

    @classmethod
    def of(cls, array: Array) -> Vector:
        """The vector of an array with at least one dimension, any float dtype."""
        array = np.array(array, np.float64)
        array.flags.writeable = False
        return cls._wrap(array.tolist(), array)

    @classmethod
    def _wrap(cls, items: Sequence[Any], array: npt.NDArray[np.float64]) -> Vector:
        if array.ndim > 1:
            items = [cls._wrap(item, part) for item, part in zip(items, array, strict=True)]
        vector = cls(items)
        vector.array = array
        return vector

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("the numbers of an update or a state cannot be changed: copy them with list(...) first")

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = extend = insert = remove = pop = clear = sort = reverse = _refuse

    def __copy__(self) -> Vector:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Vector:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Vector.of, (self.array,)


def checked(value: object) -> Any:
    """`value` as the numbers of a parameter: a `Vector`, a read-only array, or (of no dimension) a float.

    Lists and tuples, also nested ones of equal lengths, become a `Vector`; integers in them become floats. Arrays stay
    what they are if they hold floats, bfloat16 included; integers become float64. Raises `ValueError` for anything
    else, and for NaN and infinities.
    """
    if isinstance(value, Vector):
        return value
    if isinstance(value, np.ndarray):
        return _checked_array(value)
    if isinstance(value, list | tuple):
        return _checked_list(value)
    if _is_number(value):
        number = _as_float(value)
        if not math.isfinite(number):
            raise ValueError(f"{number} is not a finite number")
        return number
    raise ValueError(f"must be a list of numbers or an array, not {_shown(value)}")


def _checked_list(value: list[Any] | tuple[Any, ...]) -> Vector:
    kinds = set(map(type, value))
    if kinds <= {float}:
        array = np.fromiter(value, np.float64, len(value))
        items: Sequence[Any] = value
    else:
        array = _array_of(value)
        items = array.tolist()
    _check_finite(array, value)
    array.flags.writeable = False
    return Vector._wrap(items, array)


def _array_of(value: Sequence[Any]) -> npt.NDArray[np.float64]:
    """The float64 array of a list that is not simply one of floats; `ValueError` says what is wrong with it."""
    parts: list[Any] = []
    for index, item in enumerate(value):
        if isinstance(item, list | tuple):
            parts.append(_checked_list(item).array)
        elif _is_number(item):
            parts.append(_as_float(item))
        else:
            raise ValueError(f"value {index} must be a number, not {_shown(item)}")
    try:
        return np.array(parts, np.float64)
    except ValueError:
        raise ValueError("its lists are of different lengths") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError("a number is too large for a float") from None


def _checked_array(value: Array) -> Any:
    if value.dtype.kind in "iu" or (value.dtype.kind == "f" and value.dtype.itemsize > 8):
        value = value.astype(np.float64)
    elif value.dtype.kind == "f" or value.dtype.name == "bfloat16":
        value = value.astype(value.dtype.newbyteorder("="), copy=False)
    else:
        raise ValueError(f"an array of {value.dtype} cannot be averaged: floats can")
    if value.ndim == 0:
        return checked(float(value))
    _check_finite(value, value)
    view = value.view()
    view.flags.writeable = False
    return view


def is_finite(array: Array) -> bool:
    """Whether no number is NaN or infinite.

    Block by block with `np.isfinite`: the dot product that is faster on an idle machine goes to BLAS, whose threads
    wait for each other, spinning, where simulated nodes share few cores.
    """
    flat = array.reshape(-1)
    return all(bool(np.isfinite(flat[start : start + _BLOCK]).all()) for start in range(0, flat.size, _BLOCK))


def _check_finite(array: Array, value: Any) -> None:
    if not is_finite(array):
        index = int(np.flatnonzero(~np.isfinite(array.astype(np.float64)))[0])
        raise ValueError(
            f"value {index} is {array.reshape(-1)[index]}: look for NaN in the data, "
            "lower the learning rate or clip the gradients"
        )


def _shown(value: object) -> str:
    return f"{repr(value)[:40]} ({type(value).__name__})"


def as_array(value: Any) -> Array:
    """The numbers of a checked parameter as an array, never a copy: float64 where they were a list or a number."""
    if isinstance(value, Vector):
        return value.array
    return np.asarray(value, None if isinstance(value, np.ndarray) else np.float64)


def like(array: Array, examples: Sequence[Any]) -> Any:
    """`array` as what the `examples` are: an array if one of them is, else a `Vector`, or a float for no dimension."""
    if any(isinstance(example, np.ndarray) for example in examples):
        view = array.view()
        view.flags.writeable = False
        return view
    return Vector.of(array) if array.ndim else float(array)


def plain(value: Any) -> Any:
    """The numbers of a parameter as JSON has them: lists of floats, or a float."""
    if not isinstance(value, np.ndarray):
        return value
    return (value if value.dtype.kind == "f" else value.astype(np.float32)).tolist()  # bfloat16 has floats of its own


def plain_dict(vectors: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a whole dict of parameters."""
    return {name: plain(value) for name, value in vectors.items()}


Numbers: TypeAlias = Annotated[
    Any,
    PlainValidator(checked),
    PlainSerializer(plain, when_used="json"),
    WithJsonSchema({"type": "array", "items": {"type": "number"}}),
]
"""A field that holds the numbers of one parameter."""
