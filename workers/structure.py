"""The names, shapes and dtypes of an object."""

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
