"""What two starts of a script handed in, compared."""

from __future__ import annotations

import numpy as np

from flavor.check.again import _weights


def test_tensors_without_elements_or_spread_say_nothing_of_a_seed() -> None:
    like = {
        "w": np.float32([[1, 2], [3, 4]]),
        "nothing": np.zeros((0, 3), np.float32),
        "one": np.zeros((1, 1), np.float32),
        "same": np.ones((2, 2), np.float32),
    }
    assert np.allclose(_weights(like, like), (np.array([1, 2, 3, 4]) - 2.5) / np.std([1, 2, 3, 4]))
    assert _weights({}, {"nothing": like["nothing"]}).size == 0
