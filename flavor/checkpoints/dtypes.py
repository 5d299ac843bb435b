"""The element types that a checkpoint may hold, with their names in each format."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

DType = np.dtype[Any]

BFLOAT16: DType = np.dtype(ml_dtypes.bfloat16)
FLOAT8_E4M3: DType = np.dtype(ml_dtypes.float8_e4m3fn)
FLOAT8_E5M2: DType = np.dtype(ml_dtypes.float8_e5m2)
FOREIGN: dict[str, DType] = {dtype.name: dtype for dtype in (BFLOAT16, FLOAT8_E4M3, FLOAT8_E5M2)}
"""Names of the types that numpy has only from ml_dtypes: an npz cannot hold them."""

# numpy, safetensors, torch.NAME, torch.NAMEStorage (None: torch has no typed storage for it)
_TABLE: tuple[tuple[Any, str, str, str | None], ...] = (
    (np.bool_, "BOOL", "bool", "BoolStorage"),
    (FLOAT8_E4M3, "F8_E4M3", "float8_e4m3fn", None),
    (FLOAT8_E5M2, "F8_E5M2", "float8_e5m2", None),
    (np.uint8, "U8", "uint8", "ByteStorage"),
    (np.int8, "I8", "int8", "CharStorage"),
    (np.int16, "I16", "int16", "ShortStorage"),
    (np.uint16, "U16", "uint16", None),
    (np.float16, "F16", "float16", "HalfStorage"),
    (BFLOAT16, "BF16", "bfloat16", "BFloat16Storage"),
    (np.int32, "I32", "int32", "IntStorage"),
    (np.uint32, "U32", "uint32", None),
    (np.float32, "F32", "float32", "FloatStorage"),
    (np.int64, "I64", "int64", "LongStorage"),
    (np.uint64, "U64", "uint64", None),
    (np.float64, "F64", "float64", "DoubleStorage"),
)

BY_SAFETENSORS: dict[str, DType] = {row[1]: np.dtype(row[0]) for row in _TABLE}
BY_TORCH: dict[str, DType] = {row[2]: np.dtype(row[0]) for row in _TABLE}
BY_STORAGE: dict[str, DType] = {row[3]: np.dtype(row[0]) for row in _TABLE if row[3]}

SAFETENSORS_NAMES: dict[DType, str] = {dtype: name for name, dtype in BY_SAFETENSORS.items()}
TORCH_NAMES: dict[DType, str] = {dtype: name for name, dtype in BY_TORCH.items()}
STORAGE_NAMES: dict[DType, str] = {dtype: name for name, dtype in BY_STORAGE.items()}

UNREAD_STORAGES: dict[str, tuple[str, int]] = {
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
    "QInt8Storage": ("quantized qint8", 1),
    "QUInt8Storage": ("quantized quint8", 1),
    "QInt32Storage": ("quantized qint32", 4),
    "QUInt4x2Storage": ("quantized quint4x2", 1),
    "QUInt2x4Storage": ("quantized quint2x4", 1),
}
"""torch.NAME of storages whose elements cannot be aggregated: their type, and the bytes of one element."""

ACCEPTED = ", ".join(sorted(BY_TORCH))


def is_supported(dtype: DType) -> bool:
    """Return whether tensors of this element type can be aggregated; byte order does not matter."""
    return native(dtype) in SAFETENSORS_NAMES


def native(dtype: DType) -> DType:
    """Return the same element type in this machine's byte order."""
    return dtype if dtype.isnative else dtype.newbyteorder("=")
