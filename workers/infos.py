"""The information of clients, read from the store: small, and never more than that."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from flavor.records.info import MAX_BYTES, Info, parse_info
from flavor.records.objects import ObjectRef
from flavor.records.update import Update
from flavor.store.protocol import ObjectStore
from workers.reading import as_accepted


def read_client_info(store: ObjectStore, ref: ObjectRef) -> Info:
    """The information that was handed in as the object `ref`.

    Raises `InvalidInfo` for what is none, `StoreError` unless it is what was recorded.
    """
    return parse_info(_data(store, ref.path, ref.digest), where="info.json")  # type: ignore[arg-type]


def accepted_infos(store: ObjectStore, updates: Iterable[Update]) -> list[Info]:
    """The information that belongs to each of these accepted updates; raises what `read_client_info` raises."""
    found = []
    for update in updates:
        with as_accepted(update.info.path):
            found.append(read_client_info(store, update.info))
    return found


@functools.lru_cache(256)  # what a worker inspects it often aggregates, too, and a bucket answers slowly
def _data(store: ObjectStore, path: str, digest: str) -> bytes:
    return store.read(path, most=MAX_BYTES, digest=digest)
