"""Rows that are written when they are asked for, by which a mean takes as much memory for many clients as for two."""

from __future__ import annotations

import numpy as np
import pytest

from aggregators.blocks import Scratch
from aggregators.dtypes import Array
from aggregators.mean import Average, EqualPlaces
from aggregators.models import Streamed
from aggregators.protocols import Block

CLIENTS, SIZE = 5, 1000


class Source:
    """Rows in two places, as files would be read into them; counts how often each is read."""

    def __init__(self, rows: Array) -> None:
        self.rows, self.room = rows, np.empty((2, SIZE), rows.dtype)
        self.read = [0] * len(rows)

    def __call__(self, index: int, slot: int) -> Array:
        self.read[index] += 1
        self.room[slot] = self.rows[index]
        written: Array = self.room[slot]
        return written


def rows_of(equal: float, dtype: type = np.float32) -> Array:
    """Rows that are the same at this share of their places."""
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((CLIENTS, SIZE)).astype(dtype)
    same = rng.random(SIZE) < equal
    rows[:, same] = rows[0, same]
    return rows


@pytest.mark.parametrize("shares", [[0.2] * CLIENTS, [0.1, 0.3, 0.2, 0.15, 0.25], [1 - 4e-9, *[1e-9] * 4]])
@pytest.mark.parametrize("equal", [0.0, 0.02, 0.5, 1.0])
def test_a_mean_reads_each_row_once_and_is_the_same_to_the_last_bit(equal, shares):
    rows = rows_of(equal)
    source, out, expected = Source(rows), np.empty(SIZE, np.float32), np.empty(SIZE, np.float32)
    Average(shares)(Block(list(rows), None, Scratch()), expected)
    Average(shares)(Block(Streamed(CLIENTS, source), None, Scratch()), out)
    assert out.tobytes() == expected.tobytes()
    assert source.read == [1] * CLIENTS
    same = (rows == rows[0]).all(axis=0)
    assert (out[same] == rows[0, same]).all()


def test_a_sum_that_is_too_large_on_the_way_is_repaired_from_rows_that_are_read_again():
    rows = rows_of(0.0)
    rows[:, ::7] = np.finfo(np.float32).max
    source, out, expected = Source(rows), np.empty(SIZE, np.float32), np.empty(SIZE, np.float32)
    with np.errstate(all="ignore"):  # as the engine has it
        Average([0.2] * CLIENTS)(Block(list(rows), None, Scratch()), expected)
        Average([0.2] * CLIENTS)(Block(Streamed(CLIENTS, source), None, Scratch()), out)
    assert np.isfinite(out).all()
    assert out.tobytes() == expected.tobytes()


def test_the_first_row_stays_and_the_others_take_turns():
    rows = rows_of(0.0)
    source = Source(rows)
    streamed = Streamed(CLIENTS, source)
    first = streamed[0]
    for index, row in enumerate(streamed):
        np.testing.assert_array_equal(row, rows[index])
    np.testing.assert_array_equal(first, rows[0])
    assert len(streamed) == CLIENTS
    assert source.read == [1] * CLIENTS
    with pytest.raises(IndexError):
        streamed[CLIENTS]


@pytest.mark.parametrize("equal", [0.0, 0.02, 0.5, 1.0])
def test_rows_may_be_seen_again(equal):
    rows, out = rows_of(equal), np.zeros(SIZE, np.float32)
    places = EqualPlaces(rows[0])
    for row in (*rows[1:], *rows):
        places.see(row)
    places.put(out)
    same = (rows == rows[0]).all(axis=0)
    assert (out[same] == rows[0, same]).all()
    assert not out[~same].any()
