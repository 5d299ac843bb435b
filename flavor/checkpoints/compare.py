"""Compare the structure and the bytes of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from flavor.checkpoints.blocks import Array
from flavor.checkpoints.unmapped import FileTensor

_MOST_TOLD = 3
_BLOCK_BYTES = 512 * 1024


def same_bits(one: Array | FileTensor, other: Array | FileTensor) -> bool:
    """Return whether two tensors have the same shape, dtype and bytes; reads both until they differ.

    A tensor in a file is read block by block into the same memory, because fresh pages cost more than the reading.
    """
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    size, step = one.size * one.dtype.itemsize, max(1, _BLOCK_BYTES // one.dtype.itemsize) * one.dtype.itemsize
    bytes_of = [_bytes_of(tensor, min(step, size)) for tensor in (one, other)]
    return all(
        bytes_of[0](start, stop) == bytes_of[1](start, stop)
        for start in range(0, size, step)
        for stop in [min(start + step, size)]
    )


def _bytes_of(tensor: Array | FileTensor, most: int) -> Callable[[int, int], bytearray]:
    """Return a function that reads the tensor's bytes from `start` to `stop`, at most `most`, into one memory."""
    room = bytearray(most)
    flat = np.empty(0, np.uint8)
    if not isinstance(tensor, FileTensor):
        flat = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)

    def read(start: int, stop: int) -> bytearray:
        if stop - start < len(room):
            del room[stop - start :]
        into = np.frombuffer(room, np.uint8)
        if isinstance(tensor, FileTensor):
            tensor.read(start // tensor.dtype.itemsize, into.view(tensor.dtype))
        else:
            into[:] = flat[start:stop]
        return room

    return read


class Structured(Protocol):
    """What has a shape and a dtype: an array, a tensor in a file, an encoded tensor or a `TensorSpec`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its elements."""
        ...


def structure_problems(update: Mapping[str, Structured], reference: Mapping[str, Structured], whose: str) -> str:
    """Return the first differences of `update` to `reference` in names, shapes and dtypes, on one line; '' when alike.

    `whose` names the reference: "the global model".
    """
    if update.keys() == reference.keys() and all(
        (spec.shape, spec.dtype) == (reference[name].shape, reference[name].dtype) for name, spec in update.items()
    ):
        return ""
    problems = [f"tensor {name!r} is missing; {whose} has it" for name in reference if name not in update]
    for name, spec in update.items():
        expected = reference.get(name)
        if expected is None:
            problems.append(f"tensor {name!r} is not in {whose}")
        elif spec.shape != expected.shape:
            problems.append(f"tensor {name!r} has shape {spec.shape}; {whose} has {expected.shape}")
        elif spec.dtype != expected.dtype:
            problems.append(f"tensor {name!r} is {spec.dtype}; {whose} has {expected.dtype}")
    if prefix := _prefix(update, reference):
        problems.insert(0, prefix)
    more = f"; and {len(problems) - _MOST_TOLD} more" if len(problems) > _MOST_TOLD else ""
    return "; ".join(problems[:_MOST_TOLD]) + more


_WRAPPERS = {"module.": "DataParallel", "_orig_mod.": "torch.compile"}


def _prefix(update: Mapping[str, Structured], reference: Mapping[str, Structured]) -> str:
    """Return what to do where the names differ only by the prefix of a wrapper of torch; '' where they do not."""
    for prefix, wrapper in _WRAPPERS.items():
        if {name.replace(prefix, "", 1) for name in update} != {name.replace(prefix, "", 1) for name in reference}:
            continue
        if any(name.startswith(prefix) or f".{prefix}" in name for name in (*(update.keys() ^ reference.keys()),)):
            return (
                f"the names differ by {prefix!r}, which {wrapper} puts before them: save the state_dict of the model "
                "inside it, or start that site's edge with --strip-prefix"
            )
    return ""
