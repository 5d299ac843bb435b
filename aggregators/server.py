"""Server steps: the new global model from the old one θ and the clients' reduced one.

With the pseudogradient Δ = θ − reduced (old minus new) and the direction d = −Δ::

    replace    θ' = θ + d = reduced                          FedAvg, arXiv 1602.05629
    momentum   b ← βb + Δ;  θ' = θ − ηb                      FedAvgM, arXiv 1909.06335
    nesterov   b ← μb + Δ;  θ' = θ − η(Δ + μb)               DiLoCo, arXiv 2311.08105; as torch's SGD
    adagrad    v ← v + d²                                    FedOpt, arXiv 2003.00295, Alg. 2:
    adam       v ← β₂v + (1 − β₂)d²                            m ← β₁m + (1 − β₁)d
    yogi       v ← v − (1 − β₂)d² sign(v − d²)                 θ' = θ + ηm / (√v + τ)

b and m start at 0, so the first b is Δ. v starts at τ², as the paper requires (v₋₁ ≥ τ²). There is no bias correction.
Steps compute in the type of the reduction, and keep their state in it, even for float16 and bfloat16 tensors.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aggregators.blocks import Scratch
from aggregators.dtypes import Array
from flavor.errors import AggregationError

_GLOBAL = "an old global model"


@dataclass(frozen=True)
class Replace:
    """The reduced model becomes the global one.

    θ' = reduced, bit for bit (FedAvg).
    """

    name = "replace"
    source = "McMahan et al. 2017, arXiv 1602.05629"
    condition = "nothing"
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


@dataclass(frozen=True)
class Momentum:
    """Heavy-ball momentum on the pseudogradient (FedAvgM).

    b ← βb + Δ; θ' = θ − ηb. `lr` is η > 0, `beta` is β in [0, 1).
    """

    lr: float = 1.0
    beta: float = 0.9

    name = "momentum"
    source = "Hsu et al. 2019, arXiv 1909.06335"
    condition = _GLOBAL
    needs_global = True

    def __post_init__(self) -> None:
        _positive(self.name, "lr", self.lr)
        _fraction(self.name, "beta", self.beta)

    @property
    def slots(self) -> Mapping[str, float]:
        """`momentum`: b, from 0."""
        return {"momentum": 0.0}

    def step(
        self, base: Array | None, reduced: Array, state: Mapping[str, Array], out: Array, scratch: Scratch
    ) -> None:
        """Write θ' `[B]` to `out`, updating b."""
        theta = _theta(base)
        delta = scratch.row("pseudogradient", out.size, out.dtype)
        np.subtract(theta, reduced, out=delta)
        b = state["momentum"]
        np.multiply(b, self.beta, out=b)
        np.add(b, delta, out=b)
        np.multiply(b, self.lr, out=delta)
        np.subtract(theta, delta, out=out)


@dataclass(frozen=True)
class Nesterov:
    """Nesterov momentum on the pseudogradient (DiLoCo's outer step).

    b ← μb + Δ; θ' = θ − η(Δ + μb). `lr` is η > 0, `momentum` is μ in [0, 1).

    The same as `torch.optim.SGD(lr, momentum, nesterov=True)` given Δ as the gradient.
    """

    lr: float = 0.7
    momentum: float = 0.9

    name = "nesterov"
    source = "Douillard et al. 2023, arXiv 2311.08105"
    condition = _GLOBAL
    needs_global = True

    def __post_init__(self) -> None:
        _positive(self.name, "lr", self.lr)
        _fraction(self.name, "momentum", self.momentum)

    @property
    def slots(self) -> Mapping[str, float]:
        """`momentum`: b, from 0."""
        return {"momentum": 0.0}

    def step(
        self, base: Array | None, reduced: Array, state: Mapping[str, Array], out: Array, scratch: Scratch
    ) -> None:
        """Write θ' `[B]` to `out`, updating b."""
        theta = _theta(base)
        delta = scratch.row("pseudogradient", out.size, out.dtype)
        ahead = scratch.row("look-ahead", out.size, out.dtype)
        np.subtract(theta, reduced, out=delta)
        b = state["momentum"]
        np.multiply(b, self.momentum, out=b)
        np.add(b, delta, out=b)
        np.multiply(b, self.momentum, out=ahead)
        np.add(delta, ahead, out=delta)
        np.multiply(delta, self.lr, out=delta)
        np.subtract(theta, delta, out=out)


@dataclass(frozen=True)
class _Adaptive(ABC):
    """m ← β₁m + (1 − β₁)d; v by rule; θ' = θ + ηm / (√v + τ)."""

    lr: float = 0.1
    beta1: float = 0.9
    tau: float = 1e-3

    name = ""
    source = "Reddi et al. 2020, arXiv 2003.00295, Algorithm 2"
    condition = _GLOBAL
    needs_global = True

    def __post_init__(self) -> None:
        _positive(self.name, "lr", self.lr)
        _fraction(self.name, "beta1", self.beta1)
        _positive(self.name, "tau", self.tau)

    @property
    def slots(self) -> Mapping[str, float]:
        """`m` from 0 and `v` from τ²."""
        return {"m": 0.0, "v": self.tau**2}

    def step(
        self, base: Array | None, reduced: Array, state: Mapping[str, Array], out: Array, scratch: Scratch
    ) -> None:
        """Write θ' `[B]` to `out`, updating m and v."""
        theta = _theta(base)
        d, square = scratch.rows("adaptive", 2, out.size, out.dtype)
        m, v = state["m"], state["v"]
        np.subtract(reduced, theta, out=d)
        np.multiply(d, d, out=square)
        self._second_moment(v, square, scratch)
        np.multiply(m, self.beta1, out=m)
        np.multiply(d, 1 - self.beta1, out=d)
        np.add(m, d, out=m)
        np.sqrt(v, out=square)
        np.add(square, self.tau, out=square)
        np.multiply(m, self.lr, out=d)
        np.divide(d, square, out=d)
        np.add(theta, d, out=out)

    @abstractmethod
    def _second_moment(self, v: Array, square: Array, scratch: Scratch) -> None:
        """Update `v` in place by d² = `square`, which may be overwritten."""


@dataclass(frozen=True)
class Adagrad(_Adaptive):
    """FedAdagrad.

    v ← v + d². `lr` is η > 0, `beta1` is β₁ in [0, 1), `tau` is τ > 0.
    """

    name = "adagrad"

    def _second_moment(self, v: Array, square: Array, scratch: Scratch) -> None:
        np.add(v, square, out=v)


@dataclass(frozen=True)
class Adam(_Adaptive):
    """FedAdam.

    v ← β₂v + (1 − β₂)d². Options as for `Adagrad`; `beta2` is β₂ in [0, 1).
    """

    beta2: float = 0.99

    name = "adam"

    def __post_init__(self) -> None:
        super().__post_init__()
        _fraction(self.name, "beta2", self.beta2)

    def _second_moment(self, v: Array, square: Array, scratch: Scratch) -> None:
        np.multiply(v, self.beta2, out=v)
        np.multiply(square, 1 - self.beta2, out=square)
        np.add(v, square, out=v)


@dataclass(frozen=True)
class Yogi(_Adaptive):
    """FedYogi.

    v ← v − (1 − β₂)d² sign(v − d²). Options as for `Adagrad`; `beta2` is β₂ in [0, 1).
    """

    beta2: float = 0.99

    name = "yogi"

    def __post_init__(self) -> None:
        super().__post_init__()
        _fraction(self.name, "beta2", self.beta2)

    def _second_moment(self, v: Array, square: Array, scratch: Scratch) -> None:
        sign = scratch.row("sign", v.size, v.dtype)
        np.subtract(v, square, out=sign)
        np.sign(sign, out=sign)
        np.multiply(square, 1 - self.beta2, out=square)
        np.multiply(square, sign, out=square)
        np.subtract(v, square, out=v)


def _theta(base: Array | None) -> Array:
    if base is None:
        raise AggregationError("this server step needs the old global model, and there is none")
    return base


def _positive(step: str, option: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise AggregationError(f"{step} needs {option} > 0, got {value}")


def _fraction(step: str, option: str, value: float) -> None:
    if not 0 <= value < 1:
        raise AggregationError(f"{step} needs 0 <= {option} < 1, got {value}")
