"""FedNova: clients that take different numbers of local steps, without a pull towards those that take most.

Wang et al. 2020, "Tackling the objective inconsistency problem in heterogeneous federated optimization" (arXiv
2007.07481), equation 11 with τ_eff = Σ pᵢ aᵢ: each client's change is divided by its local steps aᵢ, and their mean is
multiplied by the mean of the steps. With θ the old global model and pᵢ the client's share of the weights::

    dᵢ = (θ − θᵢ) / aᵢ;  θ' = θ − (Σ pᵢ aᵢ) Σ pᵢ dᵢ

This is the mean of the clients θ + (Σ pⱼ aⱼ / aᵢ) (θᵢ − θ), and is computed so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from aggregators.dtypes import Array
from aggregators.mean import Mean
from aggregators.protocols import Plan, Reducer, Scan, Weights
from aggregators.scaled import BeforeAnother, Scaling, depth
from flavor.errors import AggregationError


@dataclass(frozen=True)
class FedNova(BeforeAnother):
    """Mean of changes per local step, times the mean number of steps (metadata.localSteps); may go before a rule.

    Replaces each θᵢ by θ + (Σ pⱼ aⱼ / aᵢ) (θᵢ − θ), then applies `then`.

    aᵢ are the clients' local steps and pᵢ their shares of the weights. Where all aᵢ of the clients that count are
    equal, each θᵢ is taken bit for bit. Tensors that are no parameters (statistics, and those of no dimensions) and
    integers go to `then` as they are. Needs the old global model θ.
    """

    then: Reducer = field(default_factory=Mean)

    called = "fednova"
    source = "Wang et al. 2020, arXiv 2007.07481"
    condition = "local steps of all clients, an old global model, and that of the reducer behind"
    needs_global = True
    needs_steps = True

    def plan(self, scan: Scan, weights: Weights) -> Plan:
        """Let the rule behind plan with clients whose changes are those of equally many steps."""
        if weights.steps is None:
            raise AggregationError("fednova needs the number of local steps of each client (local_steps)")
        scales = effective_steps(weights) / weights.steps
        return Scaling(scales, depth(self), skips_statistics=True).plan(self.then, scan, weights)


def effective_steps(weights: Weights) -> float:
    """Return τ_eff = Σ pᵢ aᵢ: the mean of the clients' local steps; exact where those that count are equal."""
    assert weights.steps is not None
    steps: Array = weights.steps[np.flatnonzero(weights.raw)]
    if (steps == steps[0]).all():
        return float(steps[0])
    return math.fsum(weights.normalised * weights.steps)
