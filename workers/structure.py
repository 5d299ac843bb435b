"""The names, shapes and dtypes of an object."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping

from flavor.checkpoints import TensorSpec
from flavor.records.objects import ObjectRef
from flavor.store.protocol import ObjectStore
from workers.reading import reading

Structure = Mapping[str, TensorSpec]


def structure(specs: Iterable[TensorSpec]) -> Structure:
    """Return the specs by name."""
    return {spec.name: spec for spec in specs}


def structure_digest(specs: Iterable[TensorSpec]) -> str:
    """Return a digest that two structures share if and only if they are the same."""
    listed = sorted((spec.name, str(spec.dtype), list(spec.shape)) for spec in specs)
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:32]


@functools.lru_cache(8)
def structure_of_object(store: ObjectStore, ref: ObjectRef) -> Structure:
    """Return the structure of an object, after checking its size and its seal or digest; a worker reads it once."""
    with reading(store) as opened:
        return structure(opened.open(ref).specs)
