"""The mean of LoRA adapters: that of their products BA, and not of A and of B apart.

Averaging A and B apart gives (Σ pᵢBᵢ)(Σ pᵢAᵢ), which is not Σ pᵢBᵢAᵢ: each site's B then multiplies the A of all
sites. The exact mean has the factors [p₁B₁ … pₙBₙ] and [A₁; …; Aₙ] (FLoRA, arXiv 2409.05976), and a rank of up to n r.
The scripts of the sites go on with factors of rank r, so the mean is factorised again, to the product of rank r that is
nearest to it (`aggregators.low_rank`). What is cut off is the residual, 0 where the mean has no more than r directions.
(FLoRA and FedEx-LoRA, arXiv 2410.09432, add what they cannot send in factors to the frozen weights of the sites, which
a checkpoint of adapters does not have.)

A pair whose A is the same at all sites, or whose B is, becomes the plain mean, which is exact then: n equal updates are
that update, bit for bit, and an A that the sites keep frozen stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aggregators.computed import ComputedTensor, Tensor
from aggregators.dtypes import Array, Kind
from aggregators.lora_pairs import PEFT, Pair, control_variates, require_pairs
from aggregators.low_rank import Products, Term, factorise
from aggregators.mean import Mean
from aggregators.models import Models
from aggregators.protocols import Plan, Scan, Weights
from aggregators.rebased import RebasedTensor
from flavor.checkpoints.compare import same_bits
from flavor.errors import AggregationError


@dataclass(frozen=True)
class LoraExact(Mean):
    """Mean of the products BA of LoRA adapters, factorised again to their rank; all other tensors as in mean.

    B'A' is the truncated singular value decomposition of Σ pᵢ BᵢAᵢ, with pᵢ = weightᵢ / Σ weights. `a` and `b` are the
    names of the factors within the names of tensors. Weights count. The rank of a pair is the same at all sites.
    """

    a: str = PEFT[0]
    b: str = PEFT[1]

    source = "Wang et al. 2024, arXiv 2409.05976; Singhal et al. 2024, arXiv 2410.09432"
    condition = "n >= 1, and tensors called lora_A and lora_B in pairs"
    why_no_step = (
        "lora-exact chooses new factors B and A in each round, and a server step would add the changes of earlier "
        "factors to them: leave the server step out, or choose fedavg"
    )
    why_alone = "lora-exact reads A and B together, and no rule that changes one of them can go before it"

    def __post_init__(self) -> None:
        if not self.a or not self.b or self.a == self.b:
            raise AggregationError(f"lora-exact needs two different names a and b, got {self.a!r} and {self.b!r}")

    def plan(self, scan: Scan, weights: Weights) -> Plan:
        """Find the pairs, and leave those to the mean of which a factor is the same at all sites."""
        if not isinstance(scan, Models):
            raise AggregationError(self.why_alone)
        plan = super().plan(scan, weights)
        shares = [float(weights.normalised[client]) for client in plan.clients]
        if variates := control_variates(scan.names):
            raise AggregationError(
                f"lora-exact: {variates[0]!r} is a control variate of SCAFFOLD, which belongs to the factors of the "
                "round before, and the rule chooses new ones: choose fedavg, or leave SCAFFOLD out"
            )
        joint = []
        for pair in require_pairs(scan.like, (self.a, self.b)):
            if _is_held(scan, pair):
                continue
            if pair.scale:
                _require_one_scale(pair.scale, _of(scan, pair.scale, plan.clients), plan.clients)
            b, a = _of(scan, pair.b, plan.clients), _of(scan, pair.a, plan.clients)
            if not is_plain(b, a):
                joint.append(JointPair(pair, terms_of(b, a, shares)))
        return replace(plan, joint=tuple(joint))


@dataclass(frozen=True)
class JointPair:
    """A pair of factors that is made of the clients' products; see `aggregators.protocols.Joint`."""

    pair: Pair
    terms: tuple[Term, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """A and B."""
        return (self.pair.a, self.pair.b)

    def reduce(self, out: Mapping[str, Array]) -> None:
        """Write both factors to `out`, flat."""
        products = Products(self.terms)
        b, a = out[self.pair.b], out[self.pair.a]
        factorise(products, b.reshape(products.m, products.rank), a.reshape(products.rank, products.k))


def terms_of(b: Sequence[Tensor], a: Sequence[Tensor], shares: Sequence[float]) -> tuple[Term, ...]:
    """Return the terms of Σ pᵢ BᵢAᵢ, given each client's B and A.

    A stale client's change s (BᵢAᵢ − B_base A_base) is that of its product, added to the newest one: the factors of the
    newest global model are others than those that the client began from, and cannot be added to.
    """
    return tuple(
        Term(share * factor, each_b, each_a)
        for one_b, one_a, share in zip(b, a, shares, strict=True)
        for (factor, each_b), (_, each_a) in zip(_parts(one_b), _parts(one_a), strict=True)
        if factor
    )


def is_plain(b: Sequence[Tensor], a: Sequence[Tensor]) -> bool:
    """Return whether the plain mean of both factors is exact, because one of them is the same at all sites."""
    return not a[0].size or not b[0].size or _is_same(a) or _is_same(b)


def _is_same(tensors: Sequence[Tensor]) -> bool:
    every = [each for tensor in tensors for _, each in _parts(tensor)]
    return all(each is every[0] or same_bits(_stored(every[0]), _stored(each)) for each in every[1:])


def _stored(tensor: Tensor) -> Array:
    return np.asarray(tensor) if isinstance(tensor, ComputedTensor) else tensor  # type: ignore[return-value]


def _parts(tensor: Tensor) -> tuple[tuple[float, Tensor], ...]:
    return tensor.parts if isinstance(tensor, RebasedTensor) else ((1.0, tensor),)


def _is_held(scan: Models, pair: Pair) -> bool:
    """Return whether both factors are those of the global model (--keep); one alone cannot be."""
    held = [name for name in (pair.a, pair.b) if scan.kinds[name] is Kind.HELD]
    if len(held) == 1:
        raise AggregationError(f"lora-exact: {held[0]!r} is kept as it is, and its partner is not: keep both, or none")
    return bool(held)


def _of(scan: Models, name: str, clients: Sequence[int]) -> list[Tensor]:
    tensors = scan.tensors(name)
    return [tensors[client] for client in clients]


def _require_one_scale(name: str, scales: Sequence[Tensor], clients: Sequence[int]) -> None:
    """Raise unless the clients' products are scaled alike."""
    values = [np.asarray(_stored(scale)) for scale in scales]
    for client, value in zip(clients, values, strict=True):
        if not np.array_equal(value, values[0]):
            raise AggregationError(
                f"lora-exact: {name!r} is {values[0]} at client {clients[0]} and {value} at client {client}: the "
                "products have to be scaled alike"
            )
