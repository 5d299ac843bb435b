"""Whether a model has the names, shapes and dtypes of another."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from flavor.store.formats import TensorFile, TensorSpec

Structure = Mapping[str, TensorSpec]


def structure(path: Path) -> Structure:
    """Name to dtype and shape of each tensor of a safetensors file."""
    return {spec.name: spec for spec in TensorFile.open(path).specs}


structure_of_object = functools.lru_cache(8)(structure)  # objects are written once


def structure_problems(update: Structure, reference: Structure, whose: str) -> list[str]:
    """How the tensors of `update` differ from those of `reference`, one line each."""
    problems = [f"tensor {name!r} is missing; {whose} has it" for name in reference if name not in update]
    for name, spec in update.items():
        expected = reference.get(name)
        if expected is None:
            problems.append(f"tensor {name!r} is not in {whose}")
        elif spec.shape != expected.shape:
            problems.append(f"tensor {name!r} has shape {spec.shape}; {whose} has {expected.shape}")
        elif spec.dtype != expected.dtype:
            problems.append(f"tensor {name!r} is {spec.dtype}; {whose} has {expected.dtype}")
    return problems
