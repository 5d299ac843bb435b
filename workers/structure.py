"""The names, shapes and dtypes of an object."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from flavor.store.formats import TensorFile, TensorSpec
from flavor.store.objects import ObjectStore

Structure = Mapping[str, TensorSpec]


def structure(path: Path) -> Structure:
    """Name to dtype and shape of each tensor of a safetensors file."""
    return {spec.name: spec for spec in TensorFile.open(path).specs}


@functools.lru_cache(8)
def structure_of_object(store: ObjectStore, path: str, digest: str, seal: str = "") -> Structure:
    """The same of an object, after checking its seal or its digest; a worker, which has one store, does so once."""
    return structure(store.local(path, digest=digest, seal=seal))
