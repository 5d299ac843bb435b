"""Server steps: what becomes of the old global model θ, given the clients' reduced one.

With the pseudogradient Δ = θ − reduced (old minus new) and the direction d = −Δ:

============ ============================================================ ==============================
replace      θ' = θ + d = reduced                                         FedAvg, arXiv 1602.05629
============ ============================================================ ==============================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aggregators.dtypes import Array
from aggregators.walk import Scratch


@dataclass(frozen=True)
class Replace:
    """θ' = reduced: the clients' reduced model becomes the global one, bit for bit (FedAvg)."""

    name = "replace"
    needs_global = False

    @property
    def slots(self) -> Mapping[str, float]:
        """No state."""
        return {}

    def step(
        self, base: Array | None, reduced: Array, state: Mapping[str, Array], out: Array, scratch: Scratch
    ) -> None:
        """Copy `reduced` `[B]` to `out`."""
        if out is not reduced:
            np.copyto(out, reduced)
