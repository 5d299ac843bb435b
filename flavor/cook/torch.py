"""Algorithms for sites whose data differ, in a PyTorch script: FedProx.

    from flavor.cook.torch import proximal

    term = proximal(model, mu=0.1)                  # once a round, after the global model is loaded
    loss = criterion(model(x), y) + term()          # in each step

The server's part is flavor's default, the weighted mean. `flavor.cook.numpy` has the same for arrays.
docs/your-script.md says when to choose which. Importing this module imports torch.
"""

from __future__ import annotations

from typing import Any

import torch

from flavor.cook.anchor import Calls, checked
from flavor.errors import InvalidSetting

__all__ = ["Proximal", "proximal"]


class Proximal:
    """The term of FedProx: µ/2 ‖θ − θ_global‖², over the parameters of a model that are trained. `proximal` makes it.

    Li et al. 2020, "Federated Optimization in Heterogeneous Networks" (arXiv 1812.06127), equation 2.
    """

    def __init__(self, model: torch.nn.Module, mu: float) -> None:
        self._mu = checked("proximal", "mu", mu, least=0.0, is_least_allowed=True)
        self._parameters = [each for each in model.parameters() if each.requires_grad]
        if not self._parameters:
            raise InvalidSetting("proximal: no parameter of the model requires a gradient, so nothing is trained")
        self._calls = Calls("proximal")
        self._remember()

    def __call__(self) -> torch.Tensor:
        """Return the term, a tensor of no dimensions, whose gradient is µ (θ − θ_global).

        The sum is computed in float32, or in float64 for a parameter of float64.
        """
        if self._calls.is_new_round():
            self._remember()
        self._calls.note("term")
        total: Any = 0.0
        for parameter, anchor in zip(self._parameters, self._anchors, strict=True):
            difference = parameter - anchor.to(parameter.device)
            wide = difference.to(torch.promote_types(difference.dtype, torch.float32))
            total = total + (wide * wide).sum().to(self._parameters[0].device)
        return self._mu / 2 * total

    def _remember(self) -> None:
        self._anchors = [each.detach().clone() for each in self._parameters]


def proximal(model: torch.nn.Module, mu: float) -> Proximal:
    """Make the term of FedProx for this round: `loss = loss + term()` pulls each step towards the global model.

    Call it in each round, after the global model is loaded into `model`: the term remembers the parameters as they are
    now. A term that was made before the loop remembers them anew at its first call in each later round. Parameters that
    do not require a gradient, and buffers, are no part of it. `mu` is µ, 0 or more: 0 is FedAvg, and the paper tries
    0.001, 0.01, 0.1 and 1. The term takes the memory of one more copy of the trained parameters.

    Raises `InvalidSetting` (a `ValueError`) for a `mu` that cannot be used, and for a model without trained parameters.
    """
    return Proximal(model, mu)
