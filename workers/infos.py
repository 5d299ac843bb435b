"""Read the information of clients from the store, within a limit of size."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from flavor.records.info import MAX_BYTES, Info, parse_info
from flavor.records.objects import ObjectRef
from flavor.records.update import Update
from flavor.store.protocol import ObjectStore
from workers.reading import as_accepted


def read_client_info(store: ObjectStore, ref: ObjectRef) -> Info:
    """Return the information that was handed in as the object `ref`.

    Raises `InvalidInfo` for invalid information, `StoreError` unless the object is what was recorded.
    """
    return parse_info(_data(store, ref), where="info.json")  # type: ignore[arg-type]


def accepted_infos(store: ObjectStore, updates: Iterable[Update]) -> list[Info]:
    """Return the information of each of these accepted updates; raises what `read_client_info` raises."""
    found = []
    for update in updates:
        with as_accepted(update.info.path):
            found.append(read_client_info(store, update.info))
    return found


@functools.lru_cache(256)  # a worker often aggregates what it inspected, and a bucket answers slowly
def _data(store: ObjectStore, ref: ObjectRef) -> bytes:
    return store.read(ref, most=MAX_BYTES)
