"""How a trainer nested its tensors, apart from the tensors: what turns flat names into its dict again.

On the wire a structure is JSON, with one short key a node::

    {"t": NAME}  {"t": NAME, "as": "int"}     a leaf: a tensor, or what was not one before
    {"c": null}                               a constant, which no aggregation touches; its text stays at the site
    {"d": [[KEY, NODE], ...]}                 a dict; a key is text or an integer
    {"l": [NODE, ...]}  {"u": [NODE, ...]}    a list, a tuple
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from flavor.errors import CheckpointError
from flavor.store.formats.limits import MAX_DEPTH, check_json


class Kind(StrEnum):
    """What a leaf was in the trainer's file."""

    TENSOR = "tensor"  # whatever the format itself calls a tensor
    TORCH = "torch"  # a torch tensor in a plain pickle
    NUMPY = "numpy"  # an ndarray in a torch file
    NUMBER = "number"  # a numpy scalar
    BOOL = "bool"
    INT = "int"
    FLOAT = "float"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A tensor of the flat dictionary, under its name there."""

    name: str
    kind: Kind = Kind.TENSOR


@dataclass(frozen=True, slots=True)
class Constant:
    """None or a text between the tensors."""

    value: str | None


@dataclass(frozen=True, slots=True)
class Branch:
    """A dict, whose keys stand beside its items, or a list or tuple, without keys."""

    form: str  # "d", "l" or "u", as in the JSON
    items: tuple[Node, ...]
    keys: tuple[str | int, ...] = ()


Node = Leaf | Constant | Branch


@dataclass(frozen=True, slots=True)
class Structure:
    """The nesting of a state_dict, or (`root` is None) a flat one whose names had a common prefix."""

    root: Branch | None = None
    prefix: str = ""

    def leaves(self) -> Iterator[Leaf]:
        """Every leaf, in the trainer's order."""
        stack: list[Node] = [self.root] if self.root else []
        while stack:
            node = stack.pop()
            if isinstance(node, Leaf):
                yield node
            elif isinstance(node, Branch):
                stack.extend(reversed(node.items))

    @property
    def texts(self) -> tuple[str, ...]:
        """Where a text is, as paths, in the trainer's order: no more than ten."""
        found: list[str] = []
        stack: list[tuple[Node, str]] = [(self.root, "")] if self.root else []
        while stack and len(found) < 10:
            node, path = stack.pop()
            if isinstance(node, Constant) and node.value is not None:
                found.append(path)
            elif isinstance(node, Branch):
                keys = node.keys or range(len(node.items))
                below = [(item, f"{path}/{key}".lstrip("/")) for key, item in zip(keys, node.items, strict=True)]
                stack.extend(reversed(below))
        return tuple(found)

    def without_texts(self) -> Structure:
        """The same nesting with None for each text: what may leave the site."""
        if not self.texts:
            return self
        root = _without_texts(self.root)
        assert isinstance(root, Branch)
        return replace(self, root=root)

    def check(self, names: Iterable[str], where: str) -> None:
        """Raise `CheckpointError` unless the leaves are exactly these tensors."""
        leaves = [leaf.name for leaf in self.leaves()]
        odd = set(leaves) ^ set(names)
        if self.root is not None and (odd or len(set(leaves)) != len(leaves)):
            example = min(odd, default="a name twice")
            raise CheckpointError(f"{where}: the tensors are not those of its structure ({example!r}); write both anew")

    def to_json(self) -> str:
        """The structure as compact JSON."""
        table: dict[str, object] = {}
        if self.root is not None:
            table["root"] = _to_json(self.root)
        if self.prefix:
            table["prefix"] = self.prefix
        return json.dumps(table, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, where: str) -> Structure:
        """Read and validate `to_json`; raises `CheckpointError`."""
        try:
            check_json(text)
            table = json.loads(text)
            if not isinstance(table, dict):
                raise ValueError("not an object")
            root = _from_json(table["root"], 0) if "root" in table else None
            if not isinstance(root, Branch | None):
                raise ValueError("its root is a leaf")
            return cls(root, _text(table.get("prefix", "")))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise CheckpointError(
                f"{where}: its flavor.structure is damaged ({error}); let the edge write the file again"
            ) from None


def _without_texts(node: Node | None) -> Node:
    if isinstance(node, Branch):
        return replace(node, items=tuple(_without_texts(item) for item in node.items))
    return node if isinstance(node, Leaf) else Constant(None)


def _to_json(node: Node) -> dict[str, object]:
    if isinstance(node, Leaf):
        return {"t": node.name} if node.kind is Kind.TENSOR else {"t": node.name, "as": node.kind}
    if isinstance(node, Constant):
        return {"c": node.value}
    items = [_to_json(item) for item in node.items]
    return {node.form: [list(pair) for pair in zip(node.keys, items, strict=True)] if node.form == "d" else items}


def _from_json(value: object, depth: int) -> Node:
    if not isinstance(value, dict) or depth > MAX_DEPTH:
        raise ValueError("a node is no object, or too deep")
    match value:
        case {"t": str(name), **rest} if rest.keys() <= {"as"}:
            return Leaf(name, Kind(rest.get("as", Kind.TENSOR)))
        case {"c": str() | None as constant}:
            return Constant(constant)
        case {"d": list(pairs)}:
            keys = tuple(_key(key) for key, _ in pairs)
            if len(set(keys)) != len(keys):
                raise ValueError("a key appears twice")
            return Branch("d", tuple(_from_json(item, depth + 1) for _, item in pairs), keys)
        case {"l": list(items)}:
            return Branch("l", tuple(_from_json(item, depth + 1) for item in items))
        case {"u": list(items)}:
            return Branch("u", tuple(_from_json(item, depth + 1) for item in items))
    raise ValueError(f"a node has the keys {sorted(value)[:5]}")


def _key(value: object) -> str | int:
    if isinstance(value, str) or type(value) is int:
        return value
    raise ValueError("a key is neither text nor integer")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("its prefix is no text")
