"""Find the update that makes the result of a round infinite, where each update is finite by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from aggregators.computed import Tensor
from aggregators.dtypes import Array
from flavor.errors import AggregationError, AggregatorFailed, UpdatesRefused

Try = Callable[[Sequence[str]], Sequence[str]]
"""Aggregates the updates of these clients, and returns the tensors that are not finite."""

_CHUNK = 256 * 1024


def refusal(
    models: Mapping[str, Mapping[str, Tensor]],
    shares: Mapping[str, float],
    names: Sequence[str],
    old: Mapping[str, Array] | None,
    aggregated: Try,
) -> AggregatorFailed:
    """Return the error of a round whose result is not finite in the tensors `names` of the model or the server state.

    Leaves out clients, first the one that moves these tensors farthest, until the result of the others is finite. Takes
    back each client without which the result would be infinite no less. `models` and `shares` are by client.
    """
    tensors = [name for name in next(iter(models.values())) if any(n == name or n.endswith(f"/{name}") for n in names)]
    left = sorted(models, key=lambda client: -_reach(models[client], shares[client], tensors, old))
    removed: list[str] = []
    while left and not (removed and _is_finite(aggregated, left)):
        removed.append(left.pop(0))
    if not left and len(models) > 1:
        return AggregatorFailed(
            f"the new global model is not finite in {_some(names)}, whichever clients are left out: "
            "lower the learning rate of the server step, or begin a new run from an earlier model (--init-model)"
        )
    for client in removed[:-1]:
        if _is_finite(aggregated, [*left, client]):
            left.append(client)
            removed.remove(client)
    reason = f"with this update the new global model, or the server's state, is not finite in {_some(names)}"
    return UpdatesRefused(dict.fromkeys(removed, reason))


def _is_finite(aggregated: Try, clients: Sequence[str]) -> bool:
    try:
        return not aggregated(clients)
    except AggregationError:  # too few for the rule: the coordinator says what the rule needs
        return True


def _reach(model: Mapping[str, Tensor], share: float, names: Sequence[str], old: Mapping[str, Array] | None) -> float:
    """Return an upper bound of how far this client moves these tensors."""
    most = 0.0
    for name in names:
        flat = np.asarray(model[name]).reshape(-1)
        base = None if old is None else np.asarray(old[name]).reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            part = flat[start : start + _CHUNK].astype(np.float64)
            if base is not None:
                part -= base[start : start + _CHUNK].astype(np.float64)
            most = max(most, float(np.abs(part).max(initial=0.0)))
    return most * share


def _some(names: Sequence[str]) -> str:
    told = ", ".join(repr(name) for name in names[:3])
    return told + (f" and {len(names) - 3} more" if len(names) > 3 else "")
