"""The information of an update, put into the store as an edge does."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from flavor.store.objects import ObjectStore
from flavor.store.paths import named


def put_info(store: ObjectStore, prefix: str, info: dict[str, Any] | bytes) -> dict[str, str]:
    """Put an info.json, or bytes that are none, below `prefix`: what the update's hash says of it."""
    data = info if isinstance(info, bytes) else json.dumps(info).encode()
    digest = hashlib.sha256(data).hexdigest()
    path = named(prefix, "info", digest, ".json")
    with store.stage() as staged:
        staged.write_bytes(data)
        store.put(path, staged, digest=digest)
    examples = info["metadata"]["datasetSize"] if isinstance(info, dict) else 0
    return {"info_path": path, "info_digest": digest, "num_examples": str(examples)}
