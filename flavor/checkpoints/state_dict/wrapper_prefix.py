"""Prefixes that wrappers put before a model's names: removed for the wire, and restored at the site.

`torch.nn.DataParallel` and `DistributedDataParallel` save every tensor under `module.`; `torch.compile` puts
`_orig_mod.` before the names of the module that it wraps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from flavor.checkpoints.checkpoint import Checkpoint
from flavor.checkpoints.state_dict.structure import Branch, Leaf, Structure
from flavor.errors import CheckpointError

PARALLEL, COMPILED = "module.", "_orig_mod."


def bare_names(names: Iterable[str]) -> dict[str, str]:
    """Return each name without such prefixes, to the name itself; raises `CheckpointError` when two become one.

    Removes `module.` where every name begins with it, and `_orig_mod.` wherever it stands between two dots.
    """
    own = list(names)
    bare = own
    while bare and (shorter := _shorter(bare)) != bare:
        bare = shorter
    if len(set(bare)) != len(bare):
        twice = Counter(bare).most_common(1)[0][0]
        raise CheckpointError(f"--strip-prefix makes two tensors {twice!r}: run the edge without it")
    return dict(zip(bare, own, strict=True))


def _shorter(names: list[str]) -> list[str]:
    if all(name.startswith(PARALLEL) for name in names):
        names = [name.removeprefix(PARALLEL) for name in names]
    return [".".join(part for part in name.split(".") if f"{part}." != COMPILED) for name in names]


def renamed(checkpoint: Checkpoint, names: Mapping[str, str]) -> Checkpoint:
    """Return the checkpoint with the tensors of these names renamed; the others keep their names."""
    tensors = {names.get(name, name): array for name, array in checkpoint.tensors.items()}
    structure = checkpoint.structure
    if structure is not None and structure.root is not None:
        root = structure.root
        flat = root.form == "d" and all(isinstance(item, Leaf) and item.name in names for item in root.items)
        if not flat:
            raise CheckpointError("--strip-prefix is for a flat state_dict, and this one is nested: leave it out")
        items = tuple(replace(item, name=names[item.name]) for item in root.items if isinstance(item, Leaf))
        structure = Structure(Branch("d", items, tuple(item.name for item in items)), structure.prefix)
    return replace(checkpoint, tensors=tensors, structure=structure)
