"""Checkpoint files: every format that a trainer may use, and the one that crosses the wire.

- `kind`: the kinds of checkpoints of a run; `kinds` finds one by name, `tensors` and `opaque` are built in;
- `format` and `detection`: the formats of a trainer's file, and how to tell the format by the content;
- `checkpoint`: read and write a file of any format; `convert` and `encoding`: between that file and the wire;
- `state_dict/`: how a trainer nests its tensors, and what it saves beside them;
- `safetensors/`, `torch/`, `pickles/`, `npz`: the readers and writers of each format;
- `compare` and `finite`: inspections of the tensors themselves.

Nothing here imports torch or runs anything that a checkpoint names. A file that cannot be used raises a
`CheckpointError` of one line; a disk that cannot be written raises a `StoreError`.

The names below are imported at their first use, so that an edge and a command start without numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flavor.checkpoints.checkpoint import Checkpoint, describe, read, write
    from flavor.checkpoints.convert import (
        WireInfo,
        check_given,
        check_metadata,
        from_safetensors,
        take_safetensors,
        to_safetensors,
    )
    from flavor.checkpoints.detection import detect
    from flavor.checkpoints.encoding import Encoding, encode
    from flavor.checkpoints.finite import Inspection, digest_and_check, is_finite, is_odd
    from flavor.checkpoints.format import Format
    from flavor.checkpoints.safetensors.header import TensorSpec
    from flavor.checkpoints.safetensors.reader import TensorFile
    from flavor.checkpoints.safetensors.writer import TensorFileWriter
    from flavor.checkpoints.state_dict.beside import read_beside
    from flavor.checkpoints.state_dict.structure import Structure
    from flavor.checkpoints.torch.writer import write_beside

__all__ = [
    "Checkpoint",
    "Encoding",
    "Format",
    "Inspection",
    "Structure",
    "TensorFile",
    "TensorFileWriter",
    "TensorSpec",
    "WireInfo",
    "check_given",
    "check_metadata",
    "describe",
    "detect",
    "digest_and_check",
    "encode",
    "from_safetensors",
    "is_finite",
    "is_odd",
    "read",
    "read_beside",
    "take_safetensors",
    "to_safetensors",
    "write",
    "write_beside",
]

_MODULES = {
    "checkpoint": ("Checkpoint", "describe", "read", "write"),
    "convert": (
        "WireInfo",
        "check_given",
        "check_metadata",
        "from_safetensors",
        "take_safetensors",
        "to_safetensors",
    ),
    "detection": ("detect",),
    "encoding": ("Encoding", "encode"),
    "finite": ("Inspection", "digest_and_check", "is_finite", "is_odd"),
    "format": ("Format",),
    "safetensors.header": ("TensorSpec",),
    "safetensors.reader": ("TensorFile",),
    "safetensors.writer": ("TensorFileWriter",),
    "state_dict.beside": ("read_beside",),
    "state_dict.structure": ("Structure",),
    "torch.writer": ("write_beside",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import the module of `name`, and return what it names."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
