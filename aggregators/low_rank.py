"""Sums of products of thin matrices, M = Σ cₖ BₖAₖ: their norm, and M as one product, without M itself.

Bₖ is `[m, r]` and Aₖ `[r, k]`. With the Bₖ side by side and the Aₖ one below the other, M = [c₁B₁ c₂B₂ …] [A₁; A₂; …].
The triangular factors of a QR decomposition of both give all singular values of M. The matrices are read a few rows at
a time, so that memory does not grow with m and k but for the result. All is computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aggregators.blocks import Scratch
from aggregators.computed import ComputedTensor, Tensor
from aggregators.dtypes import Array, widen
from aggregators.parts import flat, part

_FLOAT64 = np.dtype(np.float64)
_ELEMENTS = 512 * 1024
"""Elements of the rows that are read at a time, of all matrices together."""
_NULL = 1e-12
"""A singular value below this share of the largest one is rounding."""
_LEAST = float(np.finfo(np.float64).tiny / np.finfo(np.float64).eps)
"""A singular value below this is rounding, too: products that are smaller than the normal numbers have no digits."""
_CANCELLED = 1e-14
"""A squared norm below this share of that of its terms is rounding."""


@dataclass(frozen=True)
class Term:
    """cBA: `b` is read as `[m, r]` and `a` as `[r, k]`, also where it has the further dimensions of a convolution."""

    c: float
    b: Tensor
    a: Tensor


class Products:
    """M = Σ cₖ BₖAₖ of `terms`, all of one rank r and one shape `[m, k]`."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = tuple(terms)
        first = self.terms[0]
        self.rank = first.a.shape[0]
        self.m, self.k = first.b.size // self.rank, first.a.size // self.rank
        self.c = np.repeat([term.c for term in self.terms], self.rank)
        self._scratch = Scratch()

    def cores(self) -> tuple[Array, Array]:
        """Return the triangular factors of [B₁ B₂ …] and of [A₁; A₂; …]ᵀ: `[≤ m, nr]` and `[≤ k, nr]`."""
        return self._triangular(self.b_rows), self._triangular(self.a_columns)

    def gram(self) -> Array:
        """Return BᵀB ∘ AAᵀ of B = [B₁ B₂ …] and A = [A₁; A₂; …], `[nr, nr]`."""
        both = [self._gram(self.b_rows), self._gram(self.a_columns)]
        return np.asarray(both[0] * both[1])

    @property
    def gram_cost(self) -> int:
        """The multiplications of `gram`, about."""
        return (self.m + self.k) * len(self.c) ** 2

    def b_rows(self) -> Iterator[tuple[slice, Array]]:
        """Yield a few rows of [B₁ B₂ …] at a time, `[rows, nr]`; each array is overwritten by the next."""
        return self._chunks(self.m, [term.b for term in self.terms], self._read_rows)

    def a_columns(self) -> Iterator[tuple[slice, Array]]:
        """Yield a few columns of [A₁; A₂; …] at a time, as rows `[columns, nr]`; see `b_rows`."""
        return self._chunks(self.k, [term.a for term in self.terms], self._read_columns)

    def _chunks(
        self, length: int, tensors: Sequence[Tensor], read: Callable[[Tensor, int, int, Array], None]
    ) -> Iterator[tuple[slice, Array]]:
        width = len(self.terms) * self.rank
        step = max(width, _ELEMENTS // width)
        flats = [each if isinstance(each, ComputedTensor) else flat(each) for each in tensors]
        for start in range(0, length, step):
            stop = min(length, start + step)
            rows = self._scratch.rows("rows", stop - start, width, _FLOAT64)
            for index, each in enumerate(flats):
                read(each, start, stop, rows[:, index * self.rank : (index + 1) * self.rank])
            yield slice(start, stop), rows

    def _read_rows(self, tensor: Tensor, start: int, stop: int, out: Array) -> None:
        out[:] = self._elements(tensor, start * self.rank, stop * self.rank).reshape(-1, self.rank)

    def _read_columns(self, tensor: Tensor, start: int, stop: int, out: Array) -> None:
        for row in range(self.rank):
            out[:, row] = self._elements(tensor, row * self.k + start, row * self.k + stop)

    def _elements(self, tensor: Tensor, start: int, stop: int) -> Array:
        """Return these elements of a flat tensor, in the type that it is reduced in."""
        if isinstance(tensor, ComputedTensor):
            row = self._scratch.row("decoded factor", stop - start, tensor.row_dtype)
            tensor.decode(start, stop, row, self._scratch)
            return row
        found = part(tensor, start, stop, self._scratch, "factor")
        if found.dtype.itemsize >= 4 and found.dtype.isnative:
            return found
        wide = self._scratch.row("wide factor", stop - start, np.dtype(np.float32))
        widen(found, wide)
        return wide

    @staticmethod
    def _gram(chunks: Callable[[], Iterator[tuple[slice, Array]]]) -> Array:
        found: Array | None = None
        for _, rows in chunks():
            found = rows.T @ rows if found is None else np.add(found, rows.T @ rows, out=found)
        assert found is not None
        return found

    @staticmethod
    def _triangular(chunks: Callable[[], Iterator[tuple[slice, Array]]]) -> Array:
        """Return R of the QR decomposition of the chunks below each other, of which one is in memory at a time."""
        found: Array | None = None
        for _, rows in chunks():
            found = np.asarray(np.linalg.qr(rows if found is None else np.concatenate([found, rows]), mode="r"))
        assert found is not None
        return found


def norms(products: Products) -> tuple[float, float]:
    """Return the Frobenius norms of M and of M without its last term; a norm below 1e-7 of the terms is 0.

    ‖M‖² = cᵀ (BᵀB ∘ AAᵀ) c, with matrices of `[nr, nr]` alone. Its rounding is that of a square, so that half of the
    digits are left where the terms cancel out: enough for a figure, at a twentieth of the time of triangular factors.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        both = products.gram()
        whole, others = (_norm(both[:n, :n], products.c[:n]) for n in (len(products.c), -products.rank))
    return whole, others


def _norm(both: Array, c: Array) -> float:
    squared, largest = float(c @ both @ c), float(np.abs(c) @ np.abs(both) @ np.abs(c))
    if not math.isfinite(squared):
        return math.nan
    return 0.0 if squared <= _CANCELLED * largest else math.sqrt(squared)


def factorise(products: Products, b: Array, a: Array) -> None:
    """Write B' and A' with B'A' as near to M as rank r allows to `b` `[m, r]` and `a` `[r, k]`.

    By the theorem of Eckart and Young B'A' is the truncated singular value decomposition of M; it is M itself if M has
    no more than r singular values. Of all factors of that product the ones are chosen whose A' is nearest to the mean
    Σ cₖAₖ among those with orthogonal rows of one length, the mean length of the sites' rows. So A' is what a site's
    optimizer knows from the round before, no sign and no order of singular vectors is arbitrary, and a direction that
    M lacks has 0 in B' alone, so that it can be trained again.

    Values that are not finite in a term, or that have no finite product, give NaN in both.
    """
    with np.errstate(all="ignore"):
        try:
            _factorise(products, b, a)
        except np.linalg.LinAlgError:  # a decomposition of NaN, or one that does not converge
            b.fill(np.nan)
            a.fill(np.nan)


def _factorise(products: Products, b: Array, a: Array) -> None:
    """See `factorise`. Raises `LinAlgError` for values without a finite product."""
    r, c = products.rank, products.c
    b_core, a_core = products.cores()
    core = (b_core * c) @ a_core.T
    if not np.isfinite(core).all():
        raise np.linalg.LinAlgError
    left, sizes, _ = np.linalg.svd(core, full_matrices=False)
    kept = int(np.count_nonzero(sizes[:r] > max(_NULL * sizes[0], _LEAST))) if sizes.size else 0
    # MᵀU = VS, column by column as long as those of V
    to_right = (c[:, None] * (b_core.T @ left[:, :kept])) / sizes[:kept]
    mean_of = np.tile(np.eye(r), (len(products.terms), 1)) * c[:, None]
    both = np.concatenate([to_right, mean_of], axis=1)
    spanning = np.empty((products.k, kept + r))
    for rows, chunk in products.a_columns():
        np.matmul(chunk, both, out=spanning[rows])
    mean_a = spanning[:, kept:].T.copy()
    basis = np.linalg.qr(spanning)[0][:, :r]  # where M has fewer than r directions, the others are those of the mean A
    onto = np.zeros((len(c), basis.shape[1]))
    for rows, chunk in products.a_columns():
        onto += chunk.T @ basis[rows]
    turn = _polar(mean_a @ basis)
    length = _row_length(products, a_core)
    np.copyto(a, length * (turn @ basis.T), casting="unsafe")
    to_b = (c[:, None] * onto) @ turn.T / length
    for rows, chunk in products.b_rows():
        np.copyto(b[rows], chunk @ to_b, casting="unsafe")


def _polar(matrix: Array) -> Array:
    """Return the matrix with orthonormal columns that is nearest to this one."""
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray(left @ right)


def _row_length(products: Products, a_core: Array) -> float:
    """Return the root mean square length of a row of the Aₖ, each weighed by |cₖ|; 1 where all are 0."""
    weights: Any = np.abs(products.c)
    squared = float(weights @ np.square(a_core).sum(axis=0) / weights.sum())
    return float(np.sqrt(squared)) or 1.0
