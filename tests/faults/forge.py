"""A hostile site: what it would write below its own client's keys, and into the store, without any edge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from flavor.protocol import SPEAKS
from flavor.store.paths import update_prefix

STATE = {"w": np.zeros((3, 2), np.float32), "b": np.zeros(4, np.float32)}
"""The toy trainer's model."""
CONFUSION = dict.fromkeys((f"basic/confusion_{cell}" for cell in ("tp", "fp", "fn", "tn")), -1)


def model(**changed: np.ndarray | None) -> bytes:
    """The toy trainer's model as it crosses the wire, with other tensors, or without those that are None."""
    tensors = {name: array for name, array in {**STATE, **changed}.items() if array is not None}
    return save({name: np.ascontiguousarray(array) for name, array in tensors.items()})


def info(*, metrics: dict[str, float] | None = None, **metadata: Any) -> bytes:
    return json.dumps(
        {
            "metadata": {"epoch": 1, "datasetSize": 10, "importance": 1.0, **metadata},
            "metrics": {**CONFUSION, **(metrics or {})},
        }
    ).encode()


class Forge:
    """Forged clients of one round of a run."""

    def __init__(self, bench, round_: int = 1) -> None:
        self._bench, self._round, self._keys = bench, round_, bench.runs.keys
        self.run, self.store = bench.run, Path(bench.store)

    def join(self, *clients: str) -> None:
        for client in clients:
            keys = self._keys.client(client)
            self._bench.redis.set(keys.lease, f"forged:1:{client}", px=600_000)
            self._bench.redis.hset(
                keys.hash, mapping={**SPEAKS, "state": "ready", "reason": "", "host": "forged", "pid": "1"}
            )
            self._bench.redis.publish(keys.state, "ready")

    def prefix(self, client: str) -> str:
        return update_prefix(self.run, self._round, client)

    def put(self, client: str, data: bytes, name: str = "update-x.safetensors") -> str:
        path = f"{self.prefix(client)}{name}"
        (self.store / path).parent.mkdir(parents=True, exist_ok=True)
        (self.store / path).write_bytes(data)
        return path

    def sent(
        self, client: str, data: bytes | None = None, told: bytes | None = None, **changed: str | None
    ) -> dict[str, str]:
        """The fields of a good update, with `data` in its object, and these fields changed or (None) left out.

        `told` is what is in place of its info.json.
        """
        data = model() if data is None else data
        path = self.put(client, data) if "path" not in changed else ""
        told = info() if told is None else told
        fields: dict[str, str | None] = {
            "path": path,
            "digest": hashlib.sha256(data).hexdigest(),
            "size": str(len(data)),
            "format": "safetensors",
            "info_path": self.put(client, told, "info-x.json"),
            "info_digest": hashlib.sha256(told).hexdigest(),
            "num_examples": "10",
            **changed,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def hand_in(self, client: str, fields: Mapping[str, str]) -> None:
        key = self._keys.client(client).update(self._round)
        with self._bench.redis.pipeline(transaction=True) as step:
            step.hset(key, mapping=dict(fields))
            step.publish(key, str(self._round))
            step.execute()
