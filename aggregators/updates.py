"""A client's file as a model for the engine: parameters, or a rounded difference to the global model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from aggregators.blocks import Scratch
from aggregators.computed import Tensor
from aggregators.dtypes import Array
from aggregators.encoded import EncodedTensor
from flavor.checkpoints import TensorFile, TensorSpec, is_finite, is_odd
from flavor.checkpoints.checkpoint import ENCODING_KEY, SCALE_PREFIX
from flavor.checkpoints.compare import structure_problems
from flavor.checkpoints.encoding import Encoding
from flavor.errors import CheckpointError

_SPAN = 128 * 1024


@dataclass(frozen=True)
class ClientModel:
    """One client's model, as its reducer sees it.

    `specs` are its tensors in the trainer's order; `tensors` the same in the order in which they lie in a plain file;
    `metadata` is that of a plain file, with the nesting of the trainer's checkpoint.
    """

    specs: tuple[TensorSpec, ...]
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    encoding: Encoding | None = None

    @classmethod
    def of(cls, file: TensorFile, base: TensorFile | None) -> ClientModel:
        """Return the update in `file`; `base` is the global model, which only an encoded update needs.

        The caller checks that the update is a difference to `base`: `encoding.base` is the digest. Raises
        `CheckpointError` for an encoding that does not exist or does not fit `base`.
        """
        encoding = Encoding.of(file)
        if encoding is None:
            plain: dict[str, Tensor] = {spec.name: file.stored(spec.name) for spec in file.specs_in_file_order}
            return cls(file.specs, plain, file.metadata)
        if base is None:
            raise CheckpointError("the update is a difference to a global model, and there is none in this round")
        encoding = encoding.of_file(file, base.specs)
        expected = {spec.name: spec for spec in encoding.specs(base.specs)}
        whose = f"an {encoding.kind} update of the global model"
        if problems := structure_problems({spec.name: spec for spec in file.specs}, expected, whose):
            raise CheckpointError(problems)
        metadata = file.metadata
        del metadata[ENCODING_KEY]
        specs = tuple(
            TensorSpec(name, base.dtype(name), base.shape(name))
            for name in file.names
            if name in base  # the rest are scales
        )
        tensors = {spec.name: _tensor(file, base, encoding, spec) for spec in base.specs_in_file_order}
        return cls(specs, tensors, metadata, encoding)

    def nonfinite(self) -> str | None:
        """Return the first difference that decodes to NaN or infinity somewhere; None when all are finite.

        The inspection of the file covers tensors that travelled as they are.
        """
        return next((name for name, tensor in self._encoded() if not all(map(is_finite, _rows(tensor)))), None)

    def odd(self) -> tuple[str, ...]:
        """Return the differences that decode to values that are not finite or whose squares have no room (`is_odd`)."""
        return tuple(name for name, tensor in self._encoded() if any(map(is_odd, _rows(tensor))))

    def _encoded(self) -> Iterator[tuple[str, EncodedTensor]]:
        return ((name, tensor) for name, tensor in self.tensors.items() if isinstance(tensor, EncodedTensor))


def _tensor(file: TensorFile, base: TensorFile, encoding: Encoding, spec: TensorSpec) -> Tensor:
    if not encoding.covers(spec.name, spec.dtype):
        return file.stored(spec.name)
    scales = file.tensor(SCALE_PREFIX + spec.name) if encoding.kind == "int8" else None
    return EncodedTensor(base.stored(spec.name), file.stored(spec.name), scales, encoding.block)


def _rows(tensor: EncodedTensor) -> Iterator[Array]:
    """Yield the decoded values block by block; each block is overwritten by the next."""
    scratch = Scratch()
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, tensor.size, _SPAN):
            stop = min(start + _SPAN, tensor.size)
            row = scratch.row("row", stop - start, np.dtype(np.float32))
            tensor.decode(start, stop, row, scratch)
            yield row
