"""What a trainer saved beside its `state_dict`: epoch, hyper-parameters, versions, optimizer, callbacks.

None of it leaves the site. Its edge keeps it, and puts it beside the global model's tensors when it writes them in the
trainer's own format, so that a framework which resumes from its whole checkpoint (Lightning's `ckpt_path`) finds one.

The edge keeps what the allow-list of `flavor.checkpoints.pickles` reads: numbers, texts, bytes, None, dicts, lists,
tuples, tensors and arrays. An item that holds anything else is left out whole, and named.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np

from flavor.checkpoints.blocks import Array
from flavor.checkpoints.dtypes import TORCH_NAMES
from flavor.checkpoints.limits import MAX_DEPTH, MAX_NODES
from flavor.checkpoints.mapped import Mapped
from flavor.checkpoints.pickles.arrays import PickledArray
from flavor.checkpoints.pickles.writer import Call, Global, scalar_value
from flavor.checkpoints.state_dict.nesting import KEY
from flavor.checkpoints.torch.reader import load_torch
from flavor.checkpoints.torch.tensors import PickledTensor
from flavor.disk import StrPath
from flavor.errors import CheckpointError

Beside = Mapping[str | int, object]
"""Key of the checkpoint to its unpickled value."""
_WHERE = "beside state_dict"
_PLAIN = (bool, int, float, str, type(None))


class _NotKept(Exception):
    """An item holds what cannot be written again."""


def beside_of(root: object) -> tuple[Beside, tuple[str, ...]]:
    """Return the parts of a checkpoint beside its `state_dict` that can be kept, and the keys of the others."""
    kept: dict[str | int, object] = {}
    left_out = []
    for key, value in root.items() if isinstance(root, dict) else ():
        if key == KEY:
            continue
        try:
            if not isinstance(key, str) and type(key) is not int:
                raise _NotKept
            emittable(value, native=lambda array: array, torch=lambda array: array)
        except (_NotKept, CheckpointError):
            left_out.append(str(key)[:80] if isinstance(key, str | int) else f"a {type(key).__name__}")
        else:
            kept[key] = value
    return kept, tuple(left_out)


def read_beside(path: StrPath) -> Beside:
    """Return what `write_torch(path, {}, None, ..., beside)` kept; nothing if there is no such file."""
    if not os.path.exists(path):
        return {}
    return beside_of(load_torch(Mapped(path)))[0]


def emittable(value: object, *, native: Callable[[Array], object], torch: Callable[[Array], object]) -> object:
    """Return an item for `emit`; `torch` converts tensors, `native` converts arrays."""
    nodes = 0

    def walk(item: object, depth: int) -> object:
        nonlocal nodes
        nodes += 1
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise _NotKept
        if isinstance(item, PickledTensor):
            return torch(item.realize(_WHERE))
        if isinstance(item, PickledArray):
            array = item.realize(_WHERE)
            return scalar_value(array) if item.is_scalar else native(array)
        if isinstance(item, bytes | memoryview):
            text = bytes(item).decode("latin-1")
            return Call(Global("_codecs", "encode"), (text, "latin1"))
        if isinstance(item, dict):
            return {_key(key): walk(each, depth + 1) for key, each in item.items()}
        if isinstance(item, list):
            return [walk(each, depth + 1) for each in item]
        if type(item) is tuple:
            return tuple(walk(each, depth + 1) for each in item)
        if isinstance(item, np.dtype) and item in TORCH_NAMES:
            return Global("torch", TORCH_NAMES[item])
        if type(item) in _PLAIN:
            return item
        raise _NotKept

    return walk(value, 0)


def _key(key: object) -> str | int:
    if isinstance(key, PickledArray):
        key = key.as_key()
    if isinstance(key, str) or type(key) is int:
        return key
    raise _NotKept
