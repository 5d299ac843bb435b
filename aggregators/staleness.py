"""How much a stale update counts: the weight s(τ) of one that was trained from a global model τ rounds old.

Xie, Koyejo, Gupta 2019, "Asynchronous federated optimization" (arXiv 1903.03934), section 5.2, names the three rules.
Nguyen et al. 2022, "Federated learning with buffered asynchronous aggregation" (FedBuff, arXiv 2106.06639), scales each
update of a buffer by one of them. Each rule gives 1 for τ = 0, and never more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from flavor.errors import InvalidSetting


class Staleness(Protocol):
    """A rule that says how much an update of a given staleness counts. `str` gives the text that `parse` reads."""

    def factor(self, rounds: int) -> float:
        """Return s(τ), from 0 to 1, of an update whose base is τ = `rounds` >= 0 rounds older than the newest model."""
        ...


@dataclass(frozen=True)
class Constant:
    """s(τ) = 1: a stale update counts like a fresh one."""

    def __str__(self) -> str:
        return "constant"

    def factor(self, rounds: int) -> float:
        """See `Staleness`."""
        return 1.0


@dataclass(frozen=True)
class Polynomial:
    """s(τ) = (1 + τ)^−a, with a >= 0. FedBuff takes a = 0.5 in its experiments."""

    a: float = 0.5

    def __post_init__(self) -> None:
        _check("polynomial", "a", self.a)

    def __str__(self) -> str:
        return f"polynomial:{_shown(self.a)}"

    def factor(self, rounds: int) -> float:
        """See `Staleness`."""
        return float((1.0 + rounds) ** -self.a)


@dataclass(frozen=True)
class Hinge:
    """s(τ) = 1 for τ <= b, and 1 / (a (τ − b) + 1) beyond, with a, b >= 0. The source takes a = 10 and b = 4."""

    a: float = 10.0
    b: float = 4.0

    def __post_init__(self) -> None:
        _check("hinge", "a", self.a)
        _check("hinge", "b", self.b)

    def __str__(self) -> str:
        return f"hinge:{_shown(self.a)}:{_shown(self.b)}"

    def factor(self, rounds: int) -> float:
        """See `Staleness`."""
        return 1.0 if rounds <= self.b else 1.0 / (self.a * (rounds - self.b) + 1.0)


_RULES = {"constant": (Constant, 0), "polynomial": (Polynomial, 1), "hinge": (Hinge, 2)}
"""Each rule with the number of values that it takes."""
USAGE = "constant, polynomial:A, hinge:A:B"


def parse_staleness(text: str) -> Staleness:
    """Return the rule that a text such as `polynomial:0.5` or `hinge:10:4` stands for; values have defaults.

    Raises:
        InvalidSetting: one line that names what is wrong and lists the rules.

    """
    name, *values = text.split(":")
    if name not in _RULES:
        raise InvalidSetting(f"unknown staleness rule {name!r}; there are: {USAGE}")
    rule, most = _RULES[name]
    if len(values) > most:
        raise InvalidSetting(
            f"{text!r}: {name} takes {most or 'no'} value{'' if most == 1 else 's'}; there are: {USAGE}"
        )
    numbers = []
    for value in values:
        try:
            numbers.append(float(value))
        except ValueError:
            raise InvalidSetting(f"{text!r}: {value!r} is no number; there are: {USAGE}") from None
    built: Staleness = rule(*numbers)
    return built


def _shown(value: float) -> str:
    """Return the number so that it can be read again: a run keeps its rule by name."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _check(rule: str, name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise InvalidSetting(f"staleness rule {rule} needs a finite {name} >= 0, got {value:g}")
