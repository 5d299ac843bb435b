"""Squared Euclidean distances between whole models, added up block by block.

Differences are taken before they are squared, never |a|² + |b|² − 2ab: clients of one round differ little,
and that form would lose just the digits that tell them apart, or let one huge client drown them.
"""

from __future__ import annotations

import numpy as np

from aggregators.dtypes import Array
from aggregators.protocols import Block, Scan

CHUNK = 4096
"""Elements that are summed in the block's own type before float64 takes over."""


def squared_norm(row: Array) -> float:
    """Return Σ row² of a 1-D `row`, float32 or float64: in float64 from one chunk to the next."""
    whole = row.size // CHUNK * CHUNK
    chunks = row[:whole].reshape(-1, CHUNK)
    total = np.vecdot(chunks, chunks).sum(dtype=np.float64)
    return float(total) + float(np.dot(row[whole:], row[whole:]))


def squared_distances(block: Block, centre: Array) -> Array:
    """Return ‖rowᵢ − centre‖² for each row: `[n]`, float64."""
    difference = block.temporary("difference")[0]
    result = np.empty(len(block.rows))
    for client, row in enumerate(block.rows):
        np.subtract(row, centre, out=difference)
        result[client] = squared_norm(difference)
    return result


def pairwise(scan: Scan) -> Array:
    """Return ‖θᵢ − θⱼ‖² over all float tensors: `[n, n]`, float64, symmetric, 0 on the diagonal.

    What is not finite (a client holds NaN or inf) counts as infinitely far.
    """

    def part(block: Block) -> Array:
        difference = block.temporary("difference")[0]
        result = np.zeros((scan.n, scan.n))
        for i in range(scan.n):
            for j in range(i):
                np.subtract(block.rows[i], block.rows[j], out=difference)
                result[i, j] = result[j, i] = squared_norm(difference)
        return result

    total = scan.sum(part, (scan.n, scan.n))
    total[np.isnan(total)] = np.inf
    np.fill_diagonal(total, 0)
    return total
