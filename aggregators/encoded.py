"""A client's tensor that arrived as a rounded difference to the global model: decoded to θᵢ = θ − Δᵢ."""

from __future__ import annotations

import numpy as np

from aggregators.blocks import Scratch
from aggregators.computed import SPAN, ComputedTensor
from aggregators.dtypes import Array, widen
from aggregators.parts import Stored, flat, part
from flavor.errors import AggregationError


class EncodedTensor(ComputedTensor):
    """θᵢ = θ − Δᵢ, of the shape and dtype of θ, where Δᵢ is bfloat16, or int8 times its block's scale.

    Args:
        base: θ, C-contiguous; float32, or float16 or bfloat16.
        values: Δᵢ in bfloat16, or q in int8; C-contiguous, of the shape of θ.
        scales: float32 `[⌈elements / block⌉]` for int8, None for bfloat16.
        block: consecutive elements that share a scale.

    Computed in float32; of a float16 or bfloat16 tensor each element is then rounded to its own type, as if
    the client had sent it.

    Raises:
        AggregationError: arrays that do not fit together.

    """

    def __init__(self, base: Stored, values: Stored, scales: Array | None = None, block: int = 1) -> None:
        if values.shape != base.shape or (scales is not None and scales.shape != (-(-base.size // block),)):
            raise AggregationError(f"an encoded tensor {values.shape} does not fit its base {base.shape} or its scales")
        self.shape, self.dtype, self.size = base.shape, base.dtype, base.size
        self._base, self._values = flat(base), flat(values)
        self._scales, self._block = scales, block

    @property
    def is_unchanged(self) -> bool:
        """Return whether Δᵢ is 0 throughout; reads it up to the first other value."""
        scratch = Scratch()
        starts = range(0, self.size, SPAN)
        return not any(part(self._values, i, min(i + SPAN, self.size), scratch, "encoded").any() for i in starts)

    def decode(self, start: int, stop: int, out: Array, scratch: Scratch) -> None:
        """Write elements `start` to `stop` (exclusive) of the flattened θᵢ to `out`, float32 `[stop - start]`."""
        widen(part(self._values, start, stop, scratch, "encoded"), out)
        if self._scales is not None:
            self._scale(self._scales, start, out)
        base = part(self._base, start, stop, scratch, "encoded base")
        if base.dtype == out.dtype:
            np.subtract(base, out, out=out)
            return
        wide = scratch.row("decoded base", out.size, out.dtype)
        widen(base, wide)
        np.subtract(wide, out, out=out)
        own = scratch.row("decoded", out.size, base.dtype)
        np.copyto(own, out, casting="unsafe")
        widen(own, out)

    def _scale(self, scales: Array, start: int, out: Array) -> None:
        """Multiply `out`, whose elements begin at `start`, by the scale of each element's block."""
        first, offset = divmod(start, self._block)
        head = min(out.size, -offset % self._block)
        if head:
            np.multiply(out[:head], scales[first], out=out[:head])
            first += 1
        whole = head + (out.size - head) // self._block * self._block
        if whole > head:
            rows = out[head:whole].reshape(-1, self._block)
            np.multiply(rows, scales[first : first + len(rows), None], out=rows)
            first += len(rows)
        if whole < out.size:
            np.multiply(out[whole:], scales[first], out=out[whole:])
