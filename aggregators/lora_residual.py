"""How far a global model's LoRA adapters are from the mean of the sites' products: ‖Σ pᵢBᵢAᵢ − B'A'‖ / ‖Σ pᵢBᵢAᵢ‖."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aggregators.computed import Tensor
from aggregators.dtypes import Array
from aggregators.lora_exact import LoraExact, terms_of
from aggregators.lora_pairs import PEFT, pairs_of
from aggregators.low_rank import Products, Term, norm
from aggregators.mean import Mean
from aggregators.parts import Stored
from aggregators.protocols import Reducer, ServerStep, Weights
from aggregators.server import Replace


@dataclass(frozen=True)
class LoraResidual:
    """The residual of all adapters together, in the Frobenius norm, as the mean of products was written to a model.

    - `relative`: ‖M − B'A'‖ / ‖M‖ over all pairs, 0 where both are 0, infinite where M alone is;
    - `pairs`: the number of pairs;
    - `worst` and `most`: the tensor B of the pair with the largest relative residual, and that residual.
    """

    relative: float
    pairs: int
    worst: str
    most: float


def lora_residual(
    models: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float] | Array | None,
    made: Mapping[str, Stored],
    *,
    factors: tuple[str, str] = PEFT,
    held: Collection[str] = (),
) -> LoraResidual | None:
    """Return the residual of the model `made` of the clients' `models`; None where they have no LoRA adapters.

    Never computes a product: the norm comes from triangular factors. `weights` `[n]` are in any unit, and None weighs
    all alike. Pairs of which a factor is `held` do not count. Models that are not finite give NaN.
    """
    pairs = [pair for pair in pairs_of(models[0], factors) if pair.a not in held and pair.b not in held]
    shares = Weights.of(weights, len(models)).normalised
    counting = [int(client) for client in np.flatnonzero(shares)]
    left, whole, worst, most = 0.0, 0.0, "", -1.0
    count = 0
    for pair in pairs:
        if not models[0][pair.a].size or not models[0][pair.b].size:
            continue
        b, a = ([models[client][name] for client in counting] for name in (pair.b, pair.a))
        terms = terms_of(b, a, [float(shares[client]) for client in counting])
        products = Products([*terms, Term(-1.0, made[pair.b], made[pair.a])])
        cores = products.cores()
        off, of_mean = norm(*cores, products.c), norm(*cores, products.c[: -products.rank])
        left, whole, count = math.hypot(left, off), math.hypot(whole, of_mean), count + 1
        if not (relative := _relative(off, of_mean)) <= most:
            worst, most = pair.b, relative
    return LoraResidual(_relative(left, whole), count, worst, most) if count else None


def residual_factors(reducer: Reducer, step: ServerStep) -> tuple[str, str] | None:
    """Return how the factors are called whose residual a rule's result has; None where it is no mean of the sites'."""
    if not isinstance(reducer, Mean) or not isinstance(step, Replace):
        return None
    return (reducer.a, reducer.b) if isinstance(reducer, LoraExact) else PEFT


def _relative(off: float, whole: float) -> float:
    if whole:
        return off / whole
    return math.inf if off else 0.0
