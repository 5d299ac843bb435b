"""How the tensors of one model differ from those of another, in words."""

from __future__ import annotations

from collections.abc import Mapping

from flavor.store.formats.header import TensorSpec

_MOST_TOLD = 3


def structure_problems(update: Mapping[str, TensorSpec], reference: Mapping[str, TensorSpec], whose: str) -> str:
    """The first differences of `update` to `reference` in names, shapes and dtypes, on one line; empty when alike.

    `whose` names the reference: "the global model".
    """
    problems = [f"tensor {name!r} is missing; {whose} has it" for name in reference if name not in update]
    for name, spec in update.items():
        expected = reference.get(name)
        if expected is None:
            problems.append(f"tensor {name!r} is not in {whose}")
        elif spec.shape != expected.shape:
            problems.append(f"tensor {name!r} has shape {spec.shape}; {whose} has {expected.shape}")
        elif spec.dtype != expected.dtype:
            problems.append(f"tensor {name!r} is {spec.dtype}; {whose} has {expected.dtype}")
    more = f"; and {len(problems) - _MOST_TOLD} more" if len(problems) > _MOST_TOLD else ""
    return "; ".join(problems[:_MOST_TOLD]) + more
