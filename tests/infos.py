"""What stands in a store before a worker takes a job: the record of a run, as its coordinator leaves it, and infos."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import Any

from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.ledger.archive import Archive
from flavor.ledger.manifest import RunRecord
from flavor.protocol import new_run_id
from flavor.records.objects import ObjectRef
from flavor.store.paths import named
from flavor.store.protocol import ObjectStore


def put_info(store: ObjectStore, prefix: str, info: dict[str, Any] | bytes) -> dict[str, str]:
    """Put an info.json, or bytes that are none, below `prefix`: what the update's hash says of it."""
    data = info if isinstance(info, bytes) else json.dumps(info).encode()
    digest = hashlib.sha256(data).hexdigest()
    path = named(prefix, "info", digest, ".json")
    with store.stage() as staged:
        staged.write_bytes(data)
        store.put(ObjectRef(path, digest), staged)
    examples = info["metadata"]["datasetSize"] if isinstance(info, dict) else 0
    return {"info_path": path, "info_digest": digest, "num_examples": str(examples)}


def begin_run(runs: RunStore, store: ObjectStore, config: RunConfig) -> None:
    """Create a run on Redis whose record lies in the store, so that a worker knows the one as the other's."""
    record = RunRecord(run=runs.run, run_id=new_run_id(), rounds=config.rounds, config=config.to_mapping())
    Archive(store, runs.run).begin(record)
    runs.create(rounds=config.rounds, config=config.to_mapping(), run_id=record.run_id)


def png(width: int = 2, height: int = 2) -> bytes:
    """A grey PNG image of this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + b"\x80" * width) * height)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
