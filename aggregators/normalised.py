"""FedNova: clients that take different numbers of local steps, without a pull towards those that take most.

Wang et al. 2020, "Tackling the objective inconsistency problem in heterogeneous federated optimization" (arXiv
2007.07481), equation 11: each client's change is divided by its local steps aᵢ, and their mean is multiplied by τ_eff.
With θ the old global model and pᵢ the client's share of the weights::

    dᵢ = (θ − θᵢ) / aᵢ;  θ' = θ − τ_eff Σ pᵢ dᵢ

The shares choose the direction, and τ_eff how far the model moves in it. The server is free to choose τ_eff: the usual
choice is Σ pᵢ aᵢ, by which a single client that reports 10¹² steps makes the changes of all others larger. Here it is
the weighted median of the steps, which clients with less than half of the weight cannot move beyond what others report.
A client that reports hardly any steps cannot make its own change larger than a bound. So the model is the mean of the
clients θ + min(100, τ_eff / aᵢ) (θᵢ − θ), and is computed so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from aggregators.dtypes import Array
from aggregators.mean import Mean
from aggregators.protocols import Plan, Reducer, Scan, Weights
from aggregators.scaled import BeforeAnother, Scaling, depth
from flavor.errors import AggregationError

MOST_ENLARGED = 100.0
"""A client's change is made larger by this factor at most."""

_ROUNDING = 1e-12


@dataclass(frozen=True)
class FedNova(BeforeAnother):
    """Mean of changes per local step, times the median number of steps (metadata.localSteps); may go before a rule.

    Replaces each θᵢ by θ + min(100, τ / aᵢ) (θᵢ − θ), then applies `then`.

    aᵢ are the clients' local steps, and τ is their median: the fewest steps such that the clients with no more of them
    have at least half of the weight. Each client weighs alike in it where weights do not count in `then`. Where all aᵢ
    of the clients that count are equal, each θᵢ is taken bit for bit. Tensors that are no parameters (statistics, and
    those of no dimensions) and integers go to `then` as they are. Needs the old global model θ.
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
        counting = weights.raw if self.weighs else np.ones(scan.n)
        effective = effective_steps(counting, weights.steps)
        scales = effective / np.maximum(weights.steps, effective / MOST_ENLARGED)
        return Scaling(scales, depth(self), skips_statistics=True).plan(self.then, scan, weights)


def effective_steps(weights: Array, steps: Array) -> float:
    """Return τ_eff: the fewest steps such that the clients with no more of them have at least half of the weight.

    It lies within the steps of the good clients as long as these have more than half of the weight; where they have
    just half of it, it is no more than theirs. Clients whose weight is 0 have no say.
    """
    order = np.argsort(steps, kind="stable")
    reached = np.cumsum(weights[order] / weights.max())
    half = float(reached[-1]) * (0.5 - _ROUNDING)
    return float(steps[order[int(np.searchsorted(reached, half))]])
