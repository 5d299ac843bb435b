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
from aggregators.low_rank import Products, Term, norms
from aggregators.mean import Mean
from aggregators.parts import Stored
from aggregators.protocols import Reducer, ServerStep, Weights
from aggregators.server import Replace

MOST_WORK = 10**10
"""Multiplications for one residual, a few seconds at most: beyond it, only some of the pairs count."""
MOST_COLUMNS = 2048
"""The largest n r, sites times rank, of a pair that counts: the memory grows with its square."""


@dataclass(frozen=True)
class LoraResidual:
    """The residual of all adapters together, in the Frobenius norm, as the mean of products was written to a model.

    - `relative`: ‖M − B'A'‖ / ‖M‖ over the pairs that count, 0 where both are 0, infinite where M alone is, NaN where
      no pair counts;
    - `pairs`: the number of pairs that count;
    - `worst` and `most`: the tensor B of the pair with the largest relative residual, and that residual;
    - `left_out`: the number of pairs that do not count, because all together would take too long;
    - `failure`: why it could not be computed; '' where it was.
    """

    relative: float
    pairs: int
    worst: str
    most: float
    left_out: int = 0
    failure: str = ""

    @classmethod
    def failed(cls, failure: str) -> LoraResidual:
        """A residual that could not be computed."""
        return cls(math.nan, 0, "", math.nan, failure=failure)


def lora_residual(
    models: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float] | Array | None,
    made: Mapping[str, Stored],
    *,
    factors: tuple[str, str] = PEFT,
    held: Collection[str] = (),
) -> LoraResidual | None:
    """Return the residual of the model `made` of the clients' `models`; None where they have no LoRA adapters.

    Never computes a product BA, and takes `MOST_WORK` at most: of more, only each second, third, … pair counts.
    `weights` `[n]` are in any unit, and None weighs all alike. Pairs of which a factor is `held` do not count. Models
    that are not finite give NaN. A residual below 1e-7 is 0.
    """
    shares = Weights.of(weights, len(models)).normalised
    counting = [int(client) for client in np.flatnonzero(shares)]
    every = []
    for pair in pairs_of(models[0], factors):
        if pair.a in held or pair.b in held or not models[0][pair.a].size or not models[0][pair.b].size:
            continue
        b, a = ([models[client][name] for client in counting] for name in (pair.b, pair.a))
        terms = terms_of(b, a, [float(shares[client]) for client in counting])
        every.append((pair, Products([*terms, Term(-1.0, made[pair.b], made[pair.a])])))
    left, whole, worst, most = 0.0, 0.0, "", -1.0
    chosen = _affordable([products for _, products in every])
    for pair, products in (each for each, counts in zip(every, chosen, strict=True) if counts):
        off, of_mean = norms(products)
        left, whole = math.hypot(left, off), math.hypot(whole, of_mean)
        if not (relative := _relative(off, of_mean)) <= most:
            worst, most = pair.b, relative
    count = sum(chosen)
    if not every:
        return None
    relative = _relative(left, whole) if count else math.nan
    return LoraResidual(relative, count, worst, most, left_out=len(every) - count)


def _affordable(every: Sequence[Products]) -> list[bool]:
    """Return which pairs count: evenly spread ones, which together take `MOST_WORK` at most."""
    fit = [index for index, each in enumerate(every) if len(each.c) <= MOST_COLUMNS and each.gram_cost <= MOST_WORK]
    step = 1
    while sum(every[index].gram_cost for index in fit[::step]) > MOST_WORK:
        step += 1
    chosen = set(fit[::step])
    return [index in chosen for index in range(len(every))]


def residual_factors(reducer: Reducer, step: ServerStep) -> tuple[str, str] | None:
    """Return how the factors are called whose residual a rule's result has; None where it is no mean of the sites'."""
    if not isinstance(reducer, Mean) or not isinstance(step, Replace):
        return None
    return (reducer.a, reducer.b) if isinstance(reducer, LoraExact) else PEFT


def _relative(off: float, whole: float) -> float:
    if whole:
        return off / whole
    return math.inf if off else 0.0
