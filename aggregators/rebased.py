"""A client's model that was trained from an older global model, moved onto the newest one.

In a buffered asynchronous round (FedBuff, arXiv 2106.06639, Algorithm 1) each client's change is measured against the
global model that the client began from, and scaled by its staleness. The server step adds it to the newest global
model θ. Instead of teaching that to every rule, the client's parameters are replaced by

    θᵢ' = θ + s(τᵢ) (θᵢ − θ_base(i)),

so that any reducer and any server step works on them: the pseudogradient θ − θᵢ' is s(τᵢ) Δᵢ. The weighted mean of
these is θ − Σ nᵢ s(τᵢ) Δᵢ / Σ nᵢ: the normaliser has no s, and staleness makes the step smaller. A model with τ = 0 is
not rebased, so that a round without stale updates gives the same bytes as a synchronous one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from aggregators.blocks import Scratch
from aggregators.computed import ComputedTensor, Tensor
from aggregators.dtypes import Array, Kind, kind_of, widen
from aggregators.parts import Stored, flat, part
from aggregators.quantities import matching
from flavor.errors import AggregationError
from flavor.patterns import STATISTICS, no_parameters

_BOOL = np.dtype(np.bool_)
_UINT64 = np.dtype(np.uint64)


class RebasedTensor(ComputedTensor):
    """One tensor of θᵢ' = θ + s (θᵢ − θ_base(i)).

    - A float is computed in its compute dtype, and not rounded to its own type before it is reduced. An element that
      its client has not changed is that of θ, also where it is infinite.
    - An integer takes the client's whole change, not scaled, because the counters that integers are have no half
      steps: θ + (θᵢ − θ_base(i)), kept within the range of its type.
    - A bool that the client has changed is the client's; another is that of θ.

    Args:
        tensor: θᵢ, plain or computed.
        base: θ_base(i), the global model that the client began from.
        newest: θ, the newest global model.
        scale: s(τᵢ), from 0 to 1.

    Raises:
        AggregationError: tensors of different shapes or dtypes, or a scale outside 0 to 1.

    """

    def __init__(self, tensor: Tensor, base: Stored, newest: Stored, scale: float) -> None:
        if not 0 <= scale <= 1:
            raise AggregationError(f"a stale update cannot be scaled by {scale}: a number from 0 to 1 is needed")
        for what, other in (("the global model that it began from", base), ("the newest global model", newest)):
            if (other.shape, other.dtype) != (tensor.shape, tensor.dtype):
                raise AggregationError(
                    f"a tensor {tensor.dtype} {tensor.shape} cannot be moved onto the newest global model: "
                    f"{what} has {other.dtype} {other.shape}"
                )
        self.shape, self.dtype, self.size = tensor.shape, tensor.dtype, tensor.size
        self._parts = ((scale, tensor), (-scale, base), (1.0, newest))
        self._tensor: Tensor = tensor if isinstance(tensor, ComputedTensor) else flat(tensor)
        self._base, self._newest, self._scale = flat(base), flat(newest), scale
        self._kind = kind_of(tensor.dtype)

    @property
    def parts(self) -> tuple[tuple[float, Tensor], ...]:
        """The tensors of s θᵢ − s θ_base(i) + θ, each with its factor."""
        return self._parts

    def decode(self, start: int, stop: int, out: Array, scratch: Scratch) -> None:
        """See `ComputedTensor`."""
        if isinstance(self._tensor, ComputedTensor):
            self._tensor.decode(start, stop, out, scratch)
        else:
            widen(part(self._tensor, start, stop, scratch, "rebased"), out)
        base = self._row(self._base, start, stop, scratch, "rebased base")
        newest = self._row(self._newest, start, stop, scratch, "rebased newest")
        same = scratch.row("rebased same", out.size, _BOOL)
        np.equal(out, base, out=same)
        if self._kind is Kind.FLOAT:
            np.subtract(out, base, out=out)
            np.copyto(out, 0, where=same)  # also where both are infinite
            np.multiply(out, self._scale, out=out)
            np.add(out, newest, out=out)
        elif self._kind is Kind.INTEGER:
            _move(out, base, newest, scratch)
        np.copyto(out, newest, where=same)

    def _row(self, tensor: Stored, start: int, stop: int, scratch: Scratch, label: str) -> Array:
        """Return these elements in the type of a row."""
        source = part(tensor, start, stop, scratch, label)
        if source.dtype == self.row_dtype:
            return source
        wide = scratch.row(f"{label} wide", source.size, self.row_dtype)
        widen(source, wide)
        return wide


def rebased(
    model: Mapping[str, Tensor],
    base: Mapping[str, Stored],
    newest: Mapping[str, Stored],
    scale: float,
    *,
    statistics: Iterable[str] = STATISTICS,
) -> dict[str, Tensor]:
    """Return a client's `model`, which began from the global model `base`, moved onto the `newest` one.

    A float tensor that is no parameter (it matches a pattern of `statistics`, or has no dimensions) becomes
    θ + s (θᵢ − θ), a mean of the newest value and the client's: the difference of two variances, added to a third,
    may be below 0. No array is computed before its elements are asked for.

    Raises:
        AggregationError: a tensor that `base` or `newest` lacks, or has in another shape or dtype.

    """
    for what, other in (("the global model that it began from", base), ("the newest global model", newest)):
        if missing := [name for name in model if name not in other]:
            raise AggregationError(f"tensor {missing[0]!r} is not in {what}")
    floats = [name for name, tensor in model.items() if kind_of(tensor.dtype) is Kind.FLOAT]
    measured = {*matching(floats, no_parameters(statistics)), *(name for name in floats if not model[name].shape)}
    return {
        name: RebasedTensor(tensor, (newest if name in measured else base)[name], newest[name], scale)
        for name, tensor in model.items()
    }


def _move(out: Array, base: Array, newest: Array, scratch: Scratch) -> None:
    """Replace the integers `out` by newest + (out − base), kept within the range of their type. Nothing overflows."""
    limits = np.iinfo(out.dtype)
    change, room = scratch.rows("rebased change", 2, out.size, _UINT64)
    is_up = scratch.row("rebased up", out.size, _BOOL)
    np.greater(out, base, out=is_up)
    # modulo 2⁶⁴, which is where the larger one minus the smaller one always has room
    np.subtract(np.maximum(out, base), np.minimum(out, base), out=change, dtype=np.uint64, casting="unsafe")
    whole = newest.astype(np.uint64)
    np.subtract(np.uint64(limits.max), whole, out=room)
    np.subtract(whole, np.uint64(int(limits.min) % 2**64), out=room, where=~is_up)
    np.minimum(change, room, out=change)
    np.add(whole, change, out=room)
    np.subtract(whole, change, out=room, where=~is_up)
    np.copyto(out, room, casting="unsafe")
