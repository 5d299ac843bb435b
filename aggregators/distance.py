"""Squared Euclidean distances between whole models, added up block by block.

Differences are taken before they are squared, never |a|² + |b|² − 2ab: the clients of one round differ little, and that
form loses the digits in which they differ, or lets one huge client hide them.

Distances too large for squares in float32 are computed in float64, which has room for the square of any float32. In
float64 a distance beyond 1e154 is infinite, which still tells such a client from the others.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from aggregators.dtypes import Array
from aggregators.protocols import Block, Scan

CHUNK = 4096
"""Elements that are summed in the block's own type before float64 takes over.

Also short enough that no BLAS shares one dot product among threads, which would let their number show in the sum.
"""

_WIDE_ELEMS = 16 * 1024

_PAIR_BYTES = 4 * 2**20
_PAIR_ELEMS = 96 * 1024
"""Elements of a block of `pairwise`, unless its rows fill more than those bytes in float32."""

_BATCH_BYTES = 2560 * 1024
"""Bytes of the differences that one call takes.

Few long calls are faster than data in a near cache: two threads that take the interpreter's lock every few microseconds
are slower than one. See "What was tried" in benchmarks/README.md.
"""

Dot = tuple[Array, Array, Array]
"""Arguments of a matmul that is a stack of dot products."""


def _dots(rows: Array, out: Array) -> list[Dot]:
    """Return the calls that write Σ row² over each chunk of `rows` `[k, B]` to `out` `[k, chunks]`, the rest last."""
    whole = rows.shape[1] // CHUNK * CHUNK
    parts = [(rows[:, :whole].reshape(len(rows), -1, CHUNK), out[:, : whole // CHUNK])] if whole else []
    if whole < rows.shape[1]:
        parts.append((rows[:, whole:], out[:, -1]))
    return [(part[..., None, :], part[..., :, None], sums[..., None, None]) for part, sums in parts]


def squared_distances(block: Block, centre: Array) -> Array:
    """Return ‖rowᵢ − centre‖² for each row: `[n]`, float64."""
    n = len(block.rows)
    differences = block.temporary("differences", _batch_rows(n, block.size))
    dots = block.scratch.rows("dots", n, -(-block.size // CHUNK), block.dtype)
    for start in range(0, n, len(differences)):
        batch = differences[: min(len(differences), n - start)]
        for row, difference in zip(block.rows[start : start + len(batch)], batch, strict=True):
            np.subtract(row, centre, out=difference)
        for left, right, out in _dots(batch, dots[start : start + len(batch)]):
            np.matmul(left, right, out=out)
    distances: Array = dots.sum(axis=1, dtype=np.float64)
    for i in np.flatnonzero(~np.isfinite(distances)):
        distances[i] = squared_distance(block.rows[int(i)], centre)
    return distances


def squared_distance(row: Array, other: Array) -> float:
    """Return ‖row − other‖² in float64; inf where float64 has no room for it, NaN if a row has one."""
    total = 0.0
    for start in range(0, row.size, _WIDE_ELEMS):
        part = row[start : start + _WIDE_ELEMS].astype(np.float64)
        np.subtract(part, other[start : start + _WIDE_ELEMS], out=part)
        total += float(np.einsum("i,i", part, part))  # no BLAS, whose threads would show in the sum
    return total


def pairwise(scan: Scan) -> Array:
    """Return ‖θᵢ − θⱼ‖² over all float tensors: `[n, n]`, float64, symmetric, 0 on the diagonal.

    A client that holds NaN or inf counts as infinitely far. The order of the clients changes no entry, not even its
    last bit.
    """
    n = scan.n
    block_elems = min(max(_PAIR_BYTES // (4 * n) // CHUNK, 1) * CHUNK, _PAIR_ELEMS)
    # All rows minus all rows one further, two further, and so on around: few calls, each on many rows.
    pairs = [(i, (i + shift) % n) for shift in range(1, n // 2 + 1) for i in range(n if 2 * shift < n else n // 2)]
    index = np.array(pairs, int).reshape(-1, 2)
    first, second = index[:, 0], index[:, 1]

    def part(block: Block) -> Array:
        scratch, size = block.scratch, block.size
        rows = block.temporary("rows", n + n // 2)
        dots = scratch.rows("dots", len(pairs), -(-size // CHUNK), block.dtype)
        np.concatenate([*block.rows, *block.rows[: n // 2]], out=rows.reshape(-1))
        # The interpreter's lock is held between two calls, so most blocks find their arguments ready.
        make = partial(_steps, n, rows, block.temporary("differences", _batch_rows(n, size)), dots)
        steps = scratch.kept(("pairwise", n, block.dtype), make) if size == block_elems else make()
        for higher, lower, difference, squares in steps:
            np.subtract(higher, lower, out=difference)
            for left, right, out in squares:
                np.matmul(left, right, out=out)
        sums = dots.sum(axis=1, dtype=np.float64)
        for i in np.flatnonzero(~np.isfinite(sums)):
            sums[i] = squared_distance(rows[second[i]], rows[first[i]])
        result = np.zeros((n, n))
        result[first, second] = sums
        return result

    total = scan.sum(part, (n, n), block_elems)
    total += total.T
    total[np.isnan(total)] = np.inf
    np.fill_diagonal(total, 0)
    return total


def _steps(n: int, rows: Array, differences: Array, dots: Array) -> list[tuple[Array, Array, Array, list[Dot]]]:
    """Return the arguments of all calls on one block: what to subtract, where to, and what to square of it."""
    steps = []
    done = 0
    for shift in range(1, n // 2 + 1):
        count = n if 2 * shift < n else n // 2
        for start in range(0, count, len(differences)):
            stop = min(start + len(differences), count)
            batch = differences[: stop - start]
            squares = _dots(batch, dots[done : done + len(batch)])
            steps.append((rows[start + shift : stop + shift], rows[start:stop], batch, squares))
            done += len(batch)
    return steps


def _batch_rows(n: int, size: int) -> int:
    return max(1, min(n, _BATCH_BYTES // (4 * size)))
