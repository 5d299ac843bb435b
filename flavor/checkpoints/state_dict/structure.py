"""How a trainer nested its tensors, apart from the tensors: what turns flat names into its dict again.

On the wire a structure is JSON, with one short key a node::

    {"t": NAME}  {"t": NAME, "as": "int"}     a leaf: a tensor, or what was not one before
    {"c": null}  {"c": ""}                    a constant, which no aggregation touches: None; a text stood here
    {"d": [[KEY, NODE], ...]}                 a dict; a key is text or an integer
    {"l": [NODE, ...]}  {"u": [NODE, ...]}    a list, a tuple

No text of a site is on the wire: its edge keeps the texts, and puts them back into the global model. At the site, where
its own structure is kept, `{"c": "text"}` has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from flavor.checkpoints.limits import MAX_DEPTH, check_json
from flavor.errors import CheckpointError


class LeafKind(StrEnum):
    """What a leaf was in the trainer's file."""

    TENSOR = "tensor"  # what the format itself calls a tensor
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
    kind: LeafKind = LeafKind.TENSOR


@dataclass(frozen=True, slots=True)
class Constant:
    """None or a text between the tensors."""

    value: str | None


NO_TEXT = Constant("")
"""Stands on the wire for a text, or for a dict, list or tuple of texts without a tensor in it."""


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

    def shared(self) -> Structure:
        """Return what other sites may see of it: no text, but for keys that lead to tensors or stand by such.

        A branch that leads to no tensor becomes one constant, without its keys: they name nothing that is averaged.
        """
        if self.root is None:
            return self
        root, _ = _shared(self.root)
        return Structure(root if isinstance(root, Branch) else Branch(self.root.form, ()), self.prefix)

    @property
    def texts(self) -> tuple[str, ...]:
        """The path of each text, or of the branch without a tensor that holds it."""
        root = self.shared().root
        return tuple(_texts(root, "")) if root is not None else ()

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


def _to_json(node: Node) -> dict[str, object]:
    if isinstance(node, Leaf):
        return {"t": node.name} if node.kind is LeafKind.TENSOR else {"t": node.name, "as": node.kind}
    if isinstance(node, Constant):
        return {"c": node.value}
    items = [_to_json(item) for item in node.items]
    return {node.form: [list(pair) for pair in zip(node.keys, items, strict=True)] if node.form == "d" else items}


def _shared(node: Node) -> tuple[Node, bool]:
    """Return the node that other sites may see, and whether there is a tensor in it."""
    if isinstance(node, Leaf):
        return node, True
    if isinstance(node, Constant):
        return node if node.value is None else NO_TEXT, False
    parts = [_shared(item) for item in node.items]
    items = tuple(item for item, _ in parts)
    has_tensor = any(has for _, has in parts)
    if not has_tensor and (node.keys or NO_TEXT in items):  # keys are texts, too
        return NO_TEXT, False
    return Branch(node.form, items, node.keys), has_tensor


def _texts(node: Node, path: str) -> Iterator[str]:
    """Yield the paths of the texts that were removed from a shared node, which is at `path`."""
    if node == NO_TEXT:
        yield path
    elif isinstance(node, Branch):
        for key, item in zip(node.keys or range(len(node.items)), node.items, strict=True):
            yield from _texts(item, f"{path}/{key}" if path else str(key))


def _from_json(value: object, depth: int) -> Node:
    if not isinstance(value, dict) or depth > MAX_DEPTH:
        raise ValueError("a node is no object, or too deep")
    match value:
        case {"t": str(name), **rest} if rest.keys() <= {"as"}:
            return Leaf(name, LeafKind(rest.get("as", LeafKind.TENSOR)))
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
