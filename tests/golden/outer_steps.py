"""Trajectories of the server steps with momentum, from a closed form: `outer_steps.json`.

Each site i trains by `inner_steps` steps of gradient descent with rate α on ½(θ − cᵢ)², so its model is
cᵢ + (1 − α)ᴴ(θ − cᵢ). With s = 1 − (1 − α)ᴴ and the weighted mean c of the cᵢ, the pseudogradient is Δ = s(θ − c). So
each coordinate's (θ − c, b) is multiplied by one 2 × 2 matrix A a round:

    momentum   b ← βb + Δ, θ ← θ − ηb           A = [[1 − ηs, −ηβ], [s, β]]                 FedAvgM, arXiv 1909.06335
    nesterov   b ← μb + Δ, θ ← θ − η(Δ + μb)    A = [[1 − ηs(1 + μ), −ημ²], [s, μ]]         DiLoCo, arXiv 2311.08105

By Cayley and Hamilton Aⁿ = Uₙ A − det(A) Uₙ₋₁ I with Uₙ = Σₖ (−1)ᵏ C(n − 1 − k, k) tr(A)ⁿ⁻¹⁻²ᵏ det(A)ᵏ. Everything
is computed in fractions and rounded once, to the nearest float64. Nothing of `aggregators` takes part.

Write the file again with `python tests/golden/outer_steps.py`.
"""

from __future__ import annotations

import json
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("outer_steps.json")
ROUNDS = 12
SITES = {"start": ["2", "-0.5", "0", "64"], "targets": [["1", "3", "0.25", "-8"], ["-2", "0.5", "0.25", "16"]]}
CASES: dict[str, dict[str, Any]] = {
    "momentum": {"step": "momentum", "lr": "1", "momentum": "0.9", "inner_lr": "0.25", "inner_steps": 1},
    "nesterov": {"step": "nesterov", "lr": "0.5", "momentum": "0.8", "inner_lr": "0.25", "inner_steps": 1},
    "diloco": {"step": "nesterov", "lr": "0.7", "momentum": "0.9", "inner_lr": "0.125", "inner_steps": 4},
}
WEIGHTS = [100, 300]
Matrix = tuple[tuple[Fraction, Fraction], tuple[Fraction, Fraction]]


def matrix(step: str, lr: Fraction, momentum: Fraction, s: Fraction) -> Matrix:
    """A round's linear map of (θ − c, b)."""
    if step == "momentum":
        return (1 - lr * s, -lr * momentum), (s, momentum)
    return (1 - lr * s * (1 + momentum), -lr * momentum**2), (s, momentum)


def lucas(n: int, trace: Fraction, determinant: Fraction) -> Fraction:
    """Uₙ; 0 for n = 0."""
    terms = range((n + 1) // 2)
    return sum(((-1) ** k * comb(n - 1 - k, k) * trace ** (n - 1 - 2 * k) * determinant**k for k in terms), Fraction(0))


def state(a: Matrix, n: int, x: Fraction) -> tuple[Fraction, Fraction]:
    """(θ − c, b) after n rounds from (x, 0)."""
    if not n:
        return x, Fraction(0)
    trace, determinant = a[0][0] + a[1][1], a[0][0] * a[1][1] - a[0][1] * a[1][0]
    u, before = lucas(n, trace, determinant), lucas(n - 1, trace, determinant)
    return (u * a[0][0] - determinant * before) * x, u * a[1][0] * x


def trajectory(case: dict[str, Any]) -> list[dict[str, list[float]]]:
    """The model and the momentum after each round."""
    s = 1 - (1 - Fraction(case["inner_lr"])) ** int(case["inner_steps"])
    a = matrix(case["step"], Fraction(case["lr"]), Fraction(case["momentum"]), s)
    shares = [Fraction(weight, sum(WEIGHTS)) for weight in WEIGHTS]
    means = [
        sum((share * Fraction(c) for share, c in zip(shares, targets, strict=True)), Fraction(0))
        for targets in zip(*SITES["targets"], strict=True)
    ]
    rounds = []
    for n in range(1, ROUNDS + 1):
        states = [state(a, n, Fraction(x) - c) for x, c in zip(SITES["start"], means, strict=True)]
        model = [float(c + x) for c, (x, _) in zip(means, states, strict=True)]
        rounds.append({"model": model, "momentum": [float(b) for _, b in states]})
    return rounds


def text() -> str:
    """The content of the file."""
    cases = {name: {**case, "rounds": trajectory(case)} for name, case in CASES.items()}
    return json.dumps({**SITES, "weights": WEIGHTS, "cases": cases}, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
