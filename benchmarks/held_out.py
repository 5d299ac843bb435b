"""The part of a data set that no site trains on, for all benchmarks that measure accuracy or loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def fifth_of_each(labels: NDArray[Any], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw a fifth of the examples of each label, from the least label on; `[n]`, true where an example is drawn."""
    drawn = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        of_label = rng.permutation(np.flatnonzero(labels == label))
        drawn[of_label[: len(of_label) // 5]] = True
    return drawn
