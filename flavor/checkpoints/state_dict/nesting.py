"""Between nested and flat: read a state_dict as tensors and structure, and write it as a pickle again.

A flat dict of tensors keeps its names. Where dicts, lists and tuples are nested, a name is the path to the tensor,
joined by "/"; "~" and "/" within a key become "~0" and "~1", as in JSON Pointer, and an integer key that has a textual
twin beside it becomes "~i" and its digits. So no two tensors share a name.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np

from flavor.checkpoints.blocks import Array
from flavor.checkpoints.limits import MAX_DEPTH, MAX_NODES, MAX_TENSORS
from flavor.checkpoints.pickles.arrays import PickledArray
from flavor.checkpoints.pickles.reader import Inert
from flavor.checkpoints.pickles.writer import Call, Global, array_value, scalar_value
from flavor.checkpoints.state_dict.structure import Branch, Constant, Leaf, LeafKind, Node, Structure
from flavor.checkpoints.torch.tensors import PickledTensor
from flavor.errors import CheckpointError

KEY = "state_dict"
_SAVE = 'save {"state_dict": model.state_dict()}'
_SCALARS: dict[type, tuple[LeafKind, Any]] = {
    bool: (LeafKind.BOOL, np.bool_),
    int: (LeafKind.INT, np.int64),
    float: (LeafKind.FLOAT, np.float64),
}


def state_dict_of(root: object, where: str) -> object:
    """The value of the key `state_dict`, the only one that is used."""
    if isinstance(root, dict) and KEY in root:
        return root[KEY]
    if isinstance(root, dict):
        first = list(root)[:5]
        shown = [repr(key[:40]) if isinstance(key, str) else f"a {_kind_of(key)}" for key in first]
        more = ", …" if len(root) > 5 else ""
        is_bare = root and all(isinstance(value, PickledTensor | PickledArray) for value in root.values())
        what = "it is a state_dict itself, with " if is_bare else ""
        what += f"no key {KEY!r} (keys: {', '.join(shown) or 'none'}{more})"
    elif isinstance(root, Inert):
        what = f"it holds a {root.global_name}, not a dict"
    else:
        what = f"it holds a {_kind_of(root)}, not a dict"
    advice = _advice(root, _SAVE) if isinstance(root, Inert) else _SAVE
    raise CheckpointError(f"{where}: {what}; {advice}")


class _Flattener:
    """Collects the tensors of one nested state_dict."""

    def __init__(self, where: str, native: LeafKind) -> None:
        self.where, self.native = where, native
        self.tensors: dict[str, Array] = {}
        self.nodes = 0

    def walk(self, value: object, name: str | None, depth: int) -> Node:
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES or len(self.tensors) > MAX_TENSORS:
            raise CheckpointError(
                f"{self.where}: state_dict is over {MAX_DEPTH} levels deep or over {MAX_TENSORS} tensors;"
                " save only the model's weights"
            )
        if isinstance(value, dict):
            return self._dict(value, name, depth)
        if isinstance(value, list | tuple):
            items = tuple(self.walk(item, _join(name, str(index)), depth + 1) for index, item in enumerate(value))
            return Branch("u" if isinstance(value, tuple) else "l", items)
        if value is None or isinstance(value, str):
            return Constant(value)
        name = name or ""
        array, kind = self._leaf(value, name)
        self.tensors[name] = array
        return Leaf(name, kind)

    def _dict(self, value: dict[object, object], name: str | None, depth: int) -> Branch:
        keys: list[str | int] = []
        items: list[Node] = []
        is_flat = depth == 0 and all(
            isinstance(key, str) and not isinstance(item, dict | list | tuple) for key, item in value.items()
        )
        for found, item in value.items():
            key = found.as_key() if isinstance(found, PickledArray) else found
            if not isinstance(key, str) and (type(key) is not int or abs(key) >= 2**63):
                raise CheckpointError(
                    f"{self.where}: {KEY} {name or ''!r} has a {_kind_of(key)} as a key; use text or 64-bit integers"
                )
            if key is not found and key in value:
                raise CheckpointError(
                    f"{self.where}: {KEY} {name or ''!r} has the key {key} twice, as two types of integer"
                )
            part = key if is_flat and isinstance(key, str) else _escape(key, value)
            items.append(self.walk(item, _join(name, part), depth + 1))
            keys.append(key)
        return Branch("d", tuple(items), tuple(keys))

    def _leaf(self, value: object, name: str) -> tuple[Array, LeafKind]:
        where = f"{self.where}: {KEY} {name!r}"
        if isinstance(value, PickledTensor):
            return value.realize(where), LeafKind.TENSOR if self.native is LeafKind.TORCH else LeafKind.TORCH
        if isinstance(value, PickledArray):
            kind = LeafKind.TENSOR if self.native is LeafKind.NUMPY else LeafKind.NUMPY
            return value.realize(where), LeafKind.NUMBER if value.is_scalar else kind
        if type(value) in _SCALARS:
            kind, dtype = _SCALARS[type(value)]
            try:
                return np.array(value, dtype), kind
            except OverflowError:
                raise CheckpointError(f"{where} does not fit 64 bits; leave it out of state_dict") from None
        if isinstance(value, Inert):
            raise CheckpointError(f"{where} is a {value.global_name}, which is not read; {_advice(value)}")
        raise CheckpointError(f"{where} is a {_kind_of(value)}, not a tensor; save plain tensors")


def flatten(state_dict: object, where: str, native: LeafKind) -> tuple[dict[str, Array], Structure | None]:
    """Return the tensors by name, and the structure unless it was a flat dict of tensors with textual keys.

    `native` says which leaves are the tensors of the format: those of torch or those of numpy.
    """
    if not isinstance(state_dict, dict | list | tuple):
        what, advice = _kind_of(state_dict), "save model.state_dict()"
        if isinstance(state_dict, Inert):
            what, advice = state_dict.global_name, _advice(state_dict, advice)
        raise CheckpointError(f"{where}: state_dict is a {what}, not a dict of tensors; {advice}")
    flattener = _Flattener(where, native)
    root = flattener.walk(state_dict, None, 0)
    is_flat = isinstance(root, Branch) and root.form == "d" and root.keys == tuple(flattener.tensors)
    is_plain = isinstance(root, Branch) and all(
        isinstance(item, Leaf) and item.kind is LeafKind.TENSOR for item in root.items
    )
    if not isinstance(root, Branch) or (is_flat and is_plain):
        return flattener.tensors, None
    return flattener.tensors, Structure(root)


_ADVICE = (
    ("FrozenDict", "save flax.core.unfreeze(params), with numpy.asarray of each array"),
    ("jax", "save numpy.asarray(x) of each jax.Array"),
    ("_rebuild_qtensor", "save its dequantize()"),
    ("_rebuild_sparse", "save its to_dense()"),
    ("tensor subclass", "save its as_subclass(torch.Tensor), or plain tensors"),
    ("tensorflow", "save its numpy()"),
    ("pandas", "save its to_numpy()"),
    (
        "sklearn.",
        'save the arrays of the estimator: {"state_dict": {"coef": model.coef_, "intercept": model.intercept_}} '
        "(docs/your-script.md)",
    ),
)
"""Hints for objects whose name contains the given part."""


def _advice(value: Inert, otherwise: str = "save plain tensors") -> str:
    return next((advice for part, advice in _ADVICE if part in value.global_name), otherwise)


def _join(name: str | None, part: str) -> str:
    return part if name is None else f"{name}/{part}"


def _escape(key: str | int, siblings: Container[object]) -> str:
    if isinstance(key, str):
        return key.replace("~", "~0").replace("/", "~1")
    return f"~i{key}" if str(key) in siblings else str(key)


def _kind_of(value: object) -> str:
    return {"PickledTensor": "tensor", "PickledArray": "ndarray"}.get(type(value).__name__, type(value).__name__)


Tensors = Mapping[str, Array]


def nest(
    tensors: Tensors,
    structure: Structure | None,
    where: str,
    native: Callable[[Array], object],
    torch: Callable[[Array], object],
) -> dict[str, object]:
    """Return `{"state_dict": ...}` for `emit`: the structure's dicts, with each tensor in the format's form.

    Raises `CheckpointError` when the tensors are not those of the structure.
    """

    def value_of(node: Node, depth: int = 0) -> object:
        if isinstance(node, Leaf):
            return _leaf_value(node, tensors[node.name], where, native, torch)
        if isinstance(node, Constant):
            return node.value
        items = [value_of(item, depth + 1) for item in node.items]
        if node.form == "d":
            mapping = dict(zip(node.keys, items, strict=True))
            return mapping if depth else Call(Global("collections", "OrderedDict"), items=mapping)
        return tuple(items) if node.form == "u" else items

    root = structure.root if structure else None
    if root is None or structure is None:
        root = Branch("d", tuple(Leaf(name) for name in tensors), tuple(tensors))
    else:
        structure.check(tensors, where)
    return {KEY: value_of(root)}


def _leaf_value(
    leaf: Leaf, array: Array, where: str, native: Callable[[Array], object], torch: Callable[[Array], object]
) -> object:
    match leaf.kind:
        case LeafKind.TENSOR:
            return native(array)
        case LeafKind.TORCH:
            return torch(array)
        case LeafKind.NUMPY:
            return array_value(array)
    if array.size != 1:
        raise CheckpointError(f"{where}: {leaf.name!r} was one number and has the shape {array.shape}; keep it")
    if leaf.kind is LeafKind.NUMBER:
        return scalar_value(array)
    number = array.reshape(-1)[0]
    if leaf.kind is LeafKind.FLOAT:
        return float(number)
    if not np.isfinite(number):
        raise CheckpointError(f"{where}: {leaf.name!r} was an integer and is {number} now; look at the aggregation")
    whole = round(float(number)) if array.dtype.kind not in "iub" else int(number)
    return bool(whole) if leaf.kind is LeafKind.BOOL else whole
