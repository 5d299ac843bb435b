"""Algorithms for sites whose data differ, for a script that computes its gradients with numpy: FedProx.

    from flavor.cook.numpy import proximal

    term = proximal(model, mu=0.1)                  # once a round, after the global model is loaded; model: a dict
    pull = term.gradients(model)                    # in each step
    model["weight"] -= lr * (gradient_of_weight + pull["weight"])

`flavor.cook.torch` has the same for PyTorch, where the term is a part of the loss. Importing this module takes as long
as importing numpy and redis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flavor.cook.anchor import Calls, checked
from flavor.errors import InvalidSetting

__all__ = ["Proximal", "proximal"]

Arrays = Mapping[str, Any]
"""The arrays of a model by their names, of any shapes; only arrays of floats are trained."""


class Proximal:
    """The term of FedProx: µ/2 ‖θ − θ_global‖², over the float arrays of a model. `proximal` makes it.

    Li et al. 2020, "Federated Optimization in Heterogeneous Networks" (arXiv 1812.06127), equation 2.
    """

    def __init__(self, model: Arrays, mu: float) -> None:
        self._mu = checked("proximal", "mu", mu, least=0.0, is_least_allowed=True)
        self._calls = Calls("proximal")
        self._remember(model)

    def __call__(self, model: Arrays) -> float:
        """Return the term, to be added to a loss that is reported."""
        return self._mu / 2 * float(sum(np.sum(np.square(each)) for each in self._differences(model).values()))

    def gradients(self, model: Arrays) -> dict[str, NDArray[Any]]:
        """Return the gradient of the term, µ (θ − θ_global), for each float array of the model, in its dtype.

        Raises `InvalidSetting` for a model whose float arrays have other names or shapes than at the making.
        """
        self._calls.note("term")
        found = self._differences(model)
        return {name: (self._mu * each).astype(self._anchors[name].dtype) for name, each in found.items()}

    def _differences(self, model: Arrays) -> dict[str, NDArray[Any]]:
        if self._calls.is_new_round():
            self._remember(model)
        arrays = floats(model)
        for name in sorted(arrays.keys() ^ self._anchors.keys()):
            where = "is new in" if name in arrays else "is missing from"
            raise InvalidSetting(f"proximal: {name!r} {where} the model: make the term from the same arrays")
        for name, array in arrays.items():
            if array.shape != (before := self._anchors[name].shape):
                raise InvalidSetting(f"proximal: {name!r} has the shape {array.shape}, and had {before} at the making")
        return {name: wide(array) - wide(self._anchors[name]) for name, array in arrays.items()}

    def _remember(self, model: Arrays) -> None:
        self._anchors = {name: array.copy() for name, array in floats(model).items()}
        if not self._anchors:
            raise InvalidSetting("proximal: the model has no array of floats, so nothing is trained")


def proximal(model: Arrays, mu: float) -> Proximal:
    """Make the term of FedProx for this round; add `term.gradients(model)` to the gradients of each step.

    `model` has the arrays by their names, such as `{"coef": estimator.coef_}`. Call this function in each round, after
    the global model is loaded: the term copies the arrays as they are now. A term that was made before the loop copies
    them anew at its first call in each later round. Arrays that are not of floats are no part of it. `mu` is µ, 0 or
    more: 0 is FedAvg, and the paper tries 0.001, 0.01, 0.1 and 1.

    Raises `InvalidSetting` (a `ValueError`) for a `mu` that cannot be used, and for a model without arrays of floats.
    """
    return Proximal(model, mu)


def floats(model: Arrays) -> dict[str, NDArray[Any]]:
    """Return the arrays of floats, also of types that numpy lacks, such as `ml_dtypes.bfloat16`."""
    arrays = {name: np.asarray(value) for name, value in model.items()}
    return {name: array for name, array in arrays.items() if array.dtype.kind in "fV"}


def wide(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array in float32, or in float64 if it is of float64."""
    return array.astype(np.float64 if array.dtype == np.float64 else np.float32)
