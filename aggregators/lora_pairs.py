"""Which tensors of a model are the two factors of a LoRA adapter (Hu et al. 2021, arXiv 2106.09685): W + (α/r) B A.

A pair is found by its names, as peft gives them: `….lora_A.weight` and `….lora_B.weight`, with or without the name of
an adapter (`….lora_A.default.weight`), and `….lora_embedding_A` and `….lora_embedding_B`. A is `[r, k]` or, of a
convolution, `[r, k, …]`; B is `[m, r]` or `[m, r, 1, …]`. What belongs to a layer beside them (a bias, DoRA's
`lora_magnitude_vector`) is no factor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from aggregators.computed import Tensor
from aggregators.dtypes import Kind, kind_of
from aggregators.quantities import matching
from flavor.errors import AggregationError
from flavor.patterns import no_parameters

PEFT = ("lora_A", "lora_B")
_OF_EMBEDDINGS = ("lora_embedding_A", "lora_embedding_B")
_THIRD = "lora_E"
"""AdaLoRA's singular values, between A and B."""


@dataclass(frozen=True)
class Pair:
    """The names of the two factors of a layer; `scale` is the tensor of its α, as kohya's scripts save it, or ''."""

    a: str
    b: str
    scale: str = ""


def pairs_of(model: Mapping[str, Tensor], factors: tuple[str, str] = PEFT) -> list[Pair]:
    """Return the pairs of a model, in the order of its tensors, and leave out what only looks like one.

    `factors` are the names of A and B inside the names of their tensors, beside those of peft's embeddings.
    """
    return [found for found in _found(model, factors) if isinstance(found, Pair)]


def lookalikes(model: Mapping[str, Tensor], factors: tuple[str, str] = PEFT) -> list[str]:
    """Return the matrices that are part of no pair, and have a partner by the names of the factors and more.

    Such are `q_lora_A` and `q_lora_B`. A name that only has the letters, as `downsample` has `down`, is none.
    """
    variates = frozenset(control_variates(model))
    known = dict.fromkeys((factors, _OF_EMBEDDINGS))
    return [
        name
        for name, tensor in model.items()
        if name not in variates and _is_matrix(tensor)
        if not any(_place(name, a, b) for a, b in known) and _namesake(name, *factors) in model
    ]


def may_match_both(patterns: Iterable[str]) -> bool:
    """Return whether patterns of tensor names look like those of both factors, and not like `*lora_B*` alone."""
    found: set[str] = set()
    for pattern in patterns:
        if "lora" in (low := pattern.lower()):
            found |= {*re.findall(r"lora_(?:embedding_)?([ab])(?![a-z0-9])", low)} or {"a", "b"}
    return len(found) > 1


def on_factors_apart(rule: str) -> str:
    """Say what a rule that takes no products makes of LoRA adapters."""
    return (
        f"{rule} works on the factors A and B of LoRA adapters apart, and not on their product BA, which is what the "
        "sites have learned: what it bounds or leaves out, it does in each factor alone; krum, which keeps the factors "
        "of one site, and lora-exact, which bounds nothing, keep both together"
    )


def require_pairs(model: Mapping[str, Tensor], factors: tuple[str, str] = PEFT) -> list[Pair]:
    """Return the pairs of a model, of which there has to be one; raises `AggregationError` that names a wrong one."""
    pairs = []
    for found in _found(model, factors):
        if isinstance(found, str):
            raise AggregationError(f"lora-exact: {found}")
        pairs.append(found)
    if not pairs:
        names = " and ".join(f"….{factor}.…" for factor in factors)
        raise AggregationError(
            f"lora-exact needs tensors in pairs, called {names}, and this model has none: choose fedavg for a model "
            "without LoRA, or name its factors: --aggregator lora-exact:a=NAME,b=NAME"
        )
    return pairs


def _found(model: Mapping[str, Tensor], factors: tuple[str, str]) -> Iterator[Pair | str]:
    """Yield the pairs, and for a tensor that looks like a factor and belongs to no pair the reason."""
    variates = frozenset(control_variates(model))
    for a, b in dict.fromkeys((factors, _OF_EMBEDDINGS)):
        for name, tensor in model.items():
            place = None if name in variates or not _is_matrix(tensor) else _place(name, a, b)
            if place is None:
                continue
            first, last = name[: place.start(1)], name[place.end(1) :]
            if place[1] == a:
                scale = f"{first}alpha"
                yield _pair(model, name, f"{first}{b}{last}", f"{first}{_THIRD}{last}", scale if scale in model else "")
            elif (partner := f"{first}{a}{last}") not in model:
                yield _alone(name, partner)


def _pair(model: Mapping[str, Tensor], a: str, b: str, third: str, scale: str) -> Pair | str:
    if b not in model:
        return _alone(a, b)
    if third in model:
        return f"{third!r} stands between {a!r} and {b!r} (AdaLoRA), and the mean is of products of two tensors"
    shape_a, shape_b = model[a].shape, model[b].shape
    if model[a].dtype != model[b].dtype:
        return f"{a!r} is {model[a].dtype}, and {b!r} is {model[b].dtype}: both have to be of one type"
    if len(shape_b) < 2 or shape_a[0] != shape_b[1] or math.prod(shape_b[2:]) != 1:
        grouped = " (of a convolution in groups?)" if len(shape_a) > 2 else ""
        return f"{a!r} {shape_a} and {b!r} {shape_b} are no A [r, k] and B [m, r] of one rank r{grouped}"
    return Pair(a, b, scale)


def _alone(name: str, partner: str) -> str:
    return (
        f"tensor {name!r} has no partner {partner!r}, and the mean is of products of both: have the sites send both; "
        "where the other one is frozen, and the same at all sites, fedavg is exact"
    )


def _is_matrix(tensor: Tensor) -> bool:
    return len(tensor.shape) > 1 and kind_of(tensor.dtype) is Kind.FLOAT


def _place(name: str, a: str, b: str) -> re.Match[str] | None:
    """Return where `a` or `b` is a whole part of a dotted name: the last such place; None where there is none."""
    places = list(re.finditer(rf"(?:^|[./])({re.escape(a)}|{re.escape(b)})(?=$|[./])", name))
    return places[-1] if places else None


def _namesake(name: str, a: str, b: str) -> str:
    """Return the name with the other factor's where `a` or `b` stands between no letters and digits; '' for none."""
    places = list(re.finditer(rf"(?<![A-Za-z0-9])(?:{re.escape(a)}|{re.escape(b)})(?![A-Za-z0-9])", name))
    if not places:
        return ""
    place = places[-1]
    return f"{name[: place.start()]}{b if place[0] == a else a}{name[place.end() :]}"


def control_variates(names: Iterable[str]) -> list[str]:
    """Return the tensors that are control variates of SCAFFOLD."""
    return matching(names, no_parameters(()))
