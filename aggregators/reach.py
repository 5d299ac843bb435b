"""How far each client moves some tensors of the result, by the shares and scales of the rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aggregators.blocks import Scratch, spans
from aggregators.dtypes import Array
from aggregators.models import Models
from aggregators.protocols import Plan, scan_block


def reach_of(source: Models, plan: Plan, names: Sequence[str]) -> Array:
    """Return the farthest that each client moves an element of the float tensors `names`, times its weight: `[n]`.

    Clients are measured as the rule reduces them, after the rules before it have scaled their changes; without an old
    global model, by their values. 0 for clients whose parameters do not enter.
    """
    farthest = np.zeros(source.n)
    weights = plan.weights / max(1.0, float(plan.weights.max(initial=0.0)))
    scratch = Scratch()
    sizes = {name: source.flat[name][0].size for name in names}
    with np.errstate(all="ignore"):
        for span in spans(sizes, dict.fromkeys(sizes, scan_block(source.n))):
            block = source.block(span, plan.clients, scratch)
            for client, row in zip(plan.clients, plan.moved(block).rows, strict=True):
                change = row.astype(np.float64)
                if block.base is not None:
                    change -= block.base
                most = float(np.abs(change).max(initial=0.0)) * float(weights[client])
                farthest[client] = max(farthest[client], np.inf if np.isnan(most) else most)
    return farthest
