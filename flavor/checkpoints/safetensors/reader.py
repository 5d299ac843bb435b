"""A safetensors file, mapped, or read part by part: the only format that crosses the wire."""

from __future__ import annotations

import numpy as np

from flavor.checkpoints.blocks import Array
from flavor.checkpoints.dtypes import DType
from flavor.checkpoints.mapped import Mapped
from flavor.checkpoints.safetensors.header import Header, TensorSpec, parse
from flavor.checkpoints.unmapped import FileTensor, Unmapped
from flavor.checkpoints.zip_entries import ALIGNMENT
from flavor.disk import StrPath
from flavor.errors import CheckpointError


class TensorFile:
    """The tensors of one safetensors file: read-only views of a mapped file, or data that is read from an unmapped one.

    Nothing needs closing: the map, or the open file, lives as long as its views.
    """

    def __init__(self, source: Mapped | Unmapped) -> None:
        """Validate a file; raises `CheckpointError` when its header makes a false claim."""
        self.source = source
        self._header: Header = parse(source.view, source.name)

    @classmethod
    def open(cls, path: StrPath) -> TensorFile:
        """Map and validate a file; raises `CheckpointError`."""
        return cls(Mapped(path))

    @classmethod
    def reading(cls, path: StrPath, name: str = "") -> TensorFile:
        """Validate a file that others may still write to, without mapping it; errors call it `name`.

        Raises `CheckpointError`, and `DigestMismatch` where the file is cut off, now or when its tensors are read.
        """
        return cls(Unmapped(path, name))

    @property
    def path(self) -> str:
        """The file, as it was given."""
        return self.source.name

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors in the trainer's order, which is that of the header."""
        return tuple(self._header.specs)

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Name, element type and shape of each tensor, in the order of `names`."""
        return tuple(self._header.specs.values())

    @property
    def specs_in_file_order(self) -> tuple[TensorSpec, ...]:
        """The same as their data follow each other in the file, without gaps."""
        return self._header.in_file_order

    @property
    def is_aligned(self) -> bool:
        """Whether its data begin where this project's writers let them begin."""
        return self._header.data_start % ALIGNMENT == 0

    @property
    def metadata(self) -> dict[str, str]:
        """The file's free text, as a copy."""
        return dict(self._header.metadata)

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole file."""
        return self._header.size_bytes

    @property
    def data_start(self) -> int:
        """Offset of the first tensor's data in the file."""
        return self._header.data_start

    def dtype(self, name: str) -> DType:
        """Element type of a tensor; bfloat16 is that of ml_dtypes."""
        return self._spec(name).dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self._spec(name).shape

    def tensor(self, name: str) -> Array:
        """A tensor as a read-only C-contiguous view of the file; of one that is only read, a copy of it."""
        stored = self.stored(name)
        return np.asarray(stored) if isinstance(stored, FileTensor) else stored

    def stored(self, name: str) -> Array | FileTensor:
        """Return a tensor as it lies in the file: a view, or for an unmapped file what reads it part by part."""
        spec, begin, view = self._spec(name), self._header.begins[name], self.source.view
        if isinstance(self.source, Unmapped) and not isinstance(view, memoryview):
            return FileTensor(self.source, begin, spec.shape, spec.dtype)
        return np.ndarray(spec.shape, spec.dtype, buffer=view, offset=begin)

    def __contains__(self, name: str) -> bool:
        return name in self._header.specs

    def __len__(self) -> int:
        return len(self._header.specs)

    def _spec(self, name: str) -> TensorSpec:
        try:
            return self._header.specs[name]
        except KeyError:
            raise CheckpointError(f"{self.path}: there is no tensor {name!r}; compare the model's names") from None
