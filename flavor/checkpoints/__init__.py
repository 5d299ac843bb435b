"""Checkpoint bytes: every format that a trainer may use, and the one that crosses the wire.

Nothing here imports torch or runs anything that a checkpoint names. Whatever is wrong with a file is
a `CheckpointError` of one line; a disk that does not take what is written is a `StoreError`.
"""

from flavor.checkpoints.beside import read_beside
from flavor.checkpoints.checkpoint import Checkpoint, describe, read, write
from flavor.checkpoints.convert import (
    WireInfo,
    check_given,
    check_metadata,
    from_safetensors,
    take_safetensors,
    to_safetensors,
)
from flavor.checkpoints.encoding import Encoding, encode
from flavor.checkpoints.finite import Inspection, check_finite, digest_and_check, is_finite, is_odd
from flavor.checkpoints.format import Format, detect
from flavor.checkpoints.header import TensorSpec
from flavor.checkpoints.structure import Structure
from flavor.checkpoints.tensorfile import TensorFile
from flavor.checkpoints.tensorwriter import TensorFileWriter
from flavor.checkpoints.torchwriter import write_beside

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
