"""Models for the aggregation benchmark: files as an edge writes them, and the other side of the comparison."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flavor.checkpoints import TensorFile, TensorFileWriter, TensorSpec

MIB = 2**20
TENSORS = 16


def written(folder: Path, n: int, size: int, *, scale: float = 1.0) -> list[Path]:
    """Write n clients' models of `size` bytes, 16 float32 tensors each; all different, none compressible."""
    folder.mkdir()
    elements = size // 4 // TENSORS
    noise = np.random.default_rng(0).standard_normal(elements + n, dtype=np.float32)
    specs = [TensorSpec(f"layer{i:02}", np.dtype(np.float32), (elements,)) for i in range(TENSORS)]
    paths = []
    for client in range(n):
        own = scale * noise[client : client + elements]
        path = folder / f"{client}.safetensors"
        with TensorFileWriter(path, specs) as writer:
            for number, spec in enumerate(writer.specs):
                writer.write(spec.name, own + np.float32(number))
        paths.append(path)
    return paths


def mapped(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The files' tensors, mapped anew: the page cache is warm, the process has no page of them yet."""
    files = [TensorFile.open(path) for path in paths]
    return [{spec.name: file.tensor(spec.name) for spec in file.specs_in_file_order} for file in files]


def sum_with_two_threads(arrays: Sequence[Any]) -> None:
    """Read all arrays with `np.sum`, every other one in each of two threads."""

    def read(first: int) -> None:
        for array in arrays[first::2]:
            np.sum(array)

    threads = [threading.Thread(target=read, args=(first,)) for first in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
