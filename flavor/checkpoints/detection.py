"""Tell the format of a checkpoint by its content, because names and extensions may be wrong."""

from __future__ import annotations

from pathlib import Path

from flavor.checkpoints.format import Format
from flavor.checkpoints.limits import MAX_HEADER_BYTES
from flavor.checkpoints.mapped import Mapped
from flavor.checkpoints.zip_entries import ZipEntries
from flavor.disk import StrPath
from flavor.errors import CheckpointError
from flavor.saved import weights_in

ACCEPTED = "torch.save, pickle of ndarrays, np.savez or safetensors"

LEGACY_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # LONG1 of torch's magic number, STOP
_TEXT_PICKLES = (b"(d", b"}q", b"}.", b"ccollections\n")  # protocols 0 and 1 have no magic of their own


_COMPRESSED = "it is compressed ({}): save it without compression"
_KNOWN = (
    (b"\x93NUMPY", "a bare .npy has no names"),
    (b"\x1f\x8b", _COMPRESSED.format("gzip")),
    (b"BZh", _COMPRESSED.format("bzip2")),
    (b"\xfd7zXZ", _COMPRESSED.format("xz")),
    (b"\x28\xb5\x2f\xfd", _COMPRESSED.format("zstd")),
    (b"\x04\x22\x4d\x18", _COMPRESSED.format("lz4")),
    (b"\x78\x01", _COMPRESSED.format("zlib, as joblib does it")),
    (b"\x78\x5e", _COMPRESSED.format("zlib, as joblib does it")),
    (b"\x78\x9c", _COMPRESSED.format("zlib, as joblib does it")),
    (b"\x78\xda", _COMPRESSED.format("zlib, as joblib does it")),
    (b"\x89HDF", "it is HDF5, as Keras saves it: save a dict of the model's arrays, e.g. of get_weights()"),
    (
        b"{",
        "it is text that begins as JSON; of shards, hand in the folder that has the index and all of them",
    ),
)
"""The first bytes of other files, with the hint for each."""


def detect(path: StrPath) -> Format:
    """Tell the format of a checkpoint from its first bytes, or from the entries of a zip.

    A folder is of safetensors files. Raises `CheckpointError` for a missing or empty file and for anything that no
    reader here accepts.
    """
    if Path(path).is_dir() and weights_in(Path(path)):
        return Format.SAFETENSORS
    return detect_mapped(Mapped(path))


_OPAQUE = "; files that only an aggregator of your own reads need a run with `--checkpoint opaque` (flavor serve)"


def detect_mapped(source: Mapped) -> Format:
    """`detect` for a file that is already mapped."""
    head = bytes(source.view[:64])
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _detect_zip(source)
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER_BYTES:
        return Format.SAFETENSORS
    if LEGACY_MAGIC in head[:24]:  # after PROTO and perhaps a FRAME
        return Format.TORCH
    if (head[:1] == b"\x80" and head[1:2] <= b"\x05") or head.startswith(_TEXT_PICKLES):
        return Format.PICKLE
    hint = next((f"; {what}" for magic, what in _KNOWN if head.startswith(magic)), "")
    raise CheckpointError(f"{source.name}: not a checkpoint that can be read{hint}; save with {ACCEPTED}{_OPAQUE}")


def _detect_zip(source: Mapped) -> Format:
    names = ZipEntries(source).names
    parts = {name.partition("/")[2] for name in names}
    if "data.pkl" in parts and "version" in parts:
        return Format.TORCH
    if all(name.endswith(".npy") for name in names):
        return Format.NPZ
    what = "a zip that neither torch.save nor np.savez wrote"
    raise CheckpointError(f"{source.name}: {what}; save with {ACCEPTED}{_OPAQUE}")
