"""The index of a model in several safetensors files (shards): it says which tensor is in which file.

The file is JSON, as transformers and huggingface_hub write it::

    {"metadata": {"total_size": BYTES}, "weight_map": {NAME: "model-00001-of-00007.safetensors", ...}}
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from flavor.checkpoints.limits import MAX_HEADER_BYTES, MAX_NAME_CHARS, MAX_TENSORS, check_json
from flavor.errors import CheckpointError
from flavor.saved import SHARD_ENDING

_MOST_FILE_NAME = 255
_MOST_TEXTS = 4 * MAX_TENSORS
"""Twice as many as an index of the largest model has: each costs far more memory than its bytes."""


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """The shard of each tensor, and the bytes that all tensors have together.

    The bytes are for people and progress bars: tools leave stale ones when they convert a model, and none is read.
    """

    shard_of: Mapping[str, str]
    total_bytes: int = 0

    @property
    def shards(self) -> list[str]:
        """The names of the shards, each once, in order."""
        return sorted(set(self.shard_of.values()))

    def to_json(self) -> str:
        """Return the index as a file's text."""
        metadata = {"total_size": self.total_bytes}
        return json.dumps({"metadata": metadata, "weight_map": dict(self.shard_of)}, indent=2) + "\n"


def parse_index(data: bytes, where: str) -> ShardIndex:
    """Read and validate an index; raises `CheckpointError` for one whose shards may not be opened."""
    if len(data) > MAX_HEADER_BYTES:
        raise CheckpointError(f"{where}: an index of over {MAX_HEADER_BYTES} bytes, which is no index of a model")
    table = _parsed(data, where)
    shard_of = table.get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise CheckpointError(f"{where}: it has no weight_map that names a tensor; save the model again")
    if len(shard_of) > MAX_TENSORS:
        raise CheckpointError(f"{where}: {len(shard_of)} tensors; at most {MAX_TENSORS} are carried")
    for name, shard in shard_of.items():
        if len(name) > MAX_NAME_CHARS:
            raise CheckpointError(f"{where}: tensor {name[:40]!r}… has a name of {len(name)} characters")
        _check_shard(name, shard, where)
    return ShardIndex(shard_of)


def _parsed(data: bytes, where: str) -> dict[str, object]:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        table = dict(pairs)
        if len(table) != len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise ValueError(f"{twice[:80]!r} appears twice")
        return table

    def refused(word: str) -> object:
        raise ValueError(f"{word} is no number of JSON")

    try:
        check_json(data)
        if data.count(b'"') > 2 * _MOST_TEXTS:
            raise ValueError(f"over {_MOST_TEXTS} texts")
        table = json.loads(data.decode(), object_pairs_hook=unique, parse_constant=refused, parse_float=_finite)
        if not isinstance(table, dict):
            raise ValueError("it is no JSON object")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: a damaged index of shards ({error}); save the model again") from None
    return table


def _finite(word: str) -> float:
    number = float(word)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return number


def _check_shard(name: str, shard: object, where: str) -> None:
    """A shard is a file beside the index: a name with a folder in it could name any file of this machine."""
    if not isinstance(shard, str):
        raise CheckpointError(f"{where}: the shard of tensor {name!r} is no text; save the model again")
    if (
        not shard.endswith(SHARD_ENDING)
        or shard.startswith(".")
        or len(shard) > _MOST_FILE_NAME
        or not shard.isprintable()
        or "/" in shard
        or "\\" in shard
    ):
        raise CheckpointError(
            f"{where}: tensor {name!r} is said to be in {shard[:80]!r}, which is not the name of a safetensors file "
            "beside the index; save the model again"
        )
