"""Checkpoint bytes: every format that a trainer may use, and the one that crosses the wire.

Nothing here imports torch or runs anything that a checkpoint names. Whatever is wrong with a file is
a `CheckpointError` of one line; a disk that does not take what is written is a `StoreError`.
"""

from flavor.store.formats.beside import read_beside
from flavor.store.formats.checkpoint import Checkpoint, describe, read, write
from flavor.store.formats.encoding import Encoding, encode
from flavor.store.formats.finite import Inspection, check_finite, digest_and_check, is_finite, is_odd
from flavor.store.formats.format import Format, detect
from flavor.store.formats.header import TensorSpec
from flavor.store.formats.structure import Structure
from flavor.store.formats.tensorfile import TensorFile
from flavor.store.formats.tensorwriter import TensorFileWriter
from flavor.store.formats.torchwriter import write_beside
from flavor.store.formats.wire import (
    WireInfo,
    check_given,
    check_metadata,
    from_safetensors,
    take_safetensors,
    to_safetensors,
)

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
    "check_finite",
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
