"""Write safetensors in one pass: the digest is known when the last block is written."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import IO

import numpy as np

from flavor.atomic import cannot_write, replacing
from flavor.checkpoints.blocks import BLOCK_BYTES, Array, byte_blocks
from flavor.checkpoints.mapped import HUGE_PAGE_BYTES, use_huge_pages
from flavor.checkpoints.safetensors.background_digest import TrailingDigest
from flavor.checkpoints.safetensors.header import TensorSpec, plan
from flavor.disk import StrPath
from flavor.errors import CheckpointError

_ZEROS = bytes(HUGE_PAGE_BYTES)


class TensorFileWriter:
    """Writes one safetensors file, to a path (where it appears whole after `close`) or into an open binary file.

    Either call `write` for every tensor in the order of `specs`, in any number of blocks, or take `map` once and fill
    its arrays in any order from any thread. Use it as a context manager: it closes the file at the end, and leaves
    nothing at a path after an exception. After `close`, `sha256` and `size_bytes` describe the file. Blocks of 2 MiB of
    zeros that are given to `write` become holes of the file at a path.

    Raises `CheckpointError` for specs that the format cannot hold and tensors that do not fit their specs, `StoreError`
    where the disk fails.
    """

    def __init__(
        self,
        target: StrPath | IO[bytes],
        specs: Sequence[TensorSpec],
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._where = (
            os.fspath(target) if isinstance(target, str | os.PathLike) else str(getattr(target, "name", "stream"))
        )
        self._prefix, self._header = plan(specs, metadata or {}, self._where)
        self.specs: tuple[TensorSpec, ...] = self._header.in_file_order
        self.size_bytes: int = self._header.size_bytes
        self.sha256 = ""
        self._digest = hashlib.sha256()
        self._position = 0  # of the tensor that is being written, in `specs`
        self._missing_bytes = self.specs[0].size_bytes if self.specs else 0  # of that tensor
        self._map: mmap.mmap | None = None
        self._trailing: TrailingDigest | None = None
        self._stack = ExitStack()
        self._file: IO[bytes]
        if isinstance(target, str | os.PathLike):
            self._file = self._stack.enter_context(replacing(target))
            self._is_path = True
        else:
            self._file, self._is_path = target, False
        self._begun = False
        self._buffer = bytearray()
        self._filled = 0  # bytes of the buffer, which is written in huge pages, at multiples of them: `use_huge_pages`

    def write(self, name: str, block: Array) -> None:
        """Append the next elements of the current tensor, in C order; any shape, its own dtype."""
        self._skip_empty(until=name)
        spec = self.specs[self._position] if self._position < len(self.specs) else None
        if self._map is not None or spec is None or spec.name != name:
            due = "nothing" if spec is None or self._map is not None else repr(spec.name)
            raise CheckpointError(f"{self._where}: tensor {name!r} came out of turn; {due} is due, follow `specs`")
        if block.dtype != spec.dtype or block.nbytes > self._missing_bytes:
            raise CheckpointError(
                f"{self._where}: tensor {name!r}: {block.dtype} {block.shape} does not fit"
                f" {spec.dtype} {spec.shape}; write what the specs say"
            )
        self._begin()
        for part in byte_blocks(block):
            self._put(part)
        self._missing_bytes -= block.nbytes
        if self._missing_bytes == 0:
            self._advance()

    def map(self) -> dict[str, Array]:
        """Return writable arrays over the preallocated file, by name, in the trainer's order; only for a path.

        Threads may fill different places at once. Call `close` after the last of them. The space is reserved here, so
        that a full disk is an error here and not a signal later.
        """
        if not self._is_path or self._begun:
            raise CheckpointError(f"{self._where}: only a fresh writer on a path can be mapped; call map() first")
        self._begun = True
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file.fileno(), 0, self.size_bytes)
            else:  # macOS
                os.truncate(self._file.fileno(), self.size_bytes)
            self._map = mmap.mmap(self._file.fileno(), self.size_bytes)
            use_huge_pages(self._map)
        except OSError as error:
            self._abort(error)
            raise cannot_write(self._where, error) from None
        self._map[: len(self._prefix)] = self._prefix
        return {
            spec.name: np.ndarray(spec.shape, spec.dtype, self._map, self._header.begins[spec.name])
            for spec in self._header.specs.values()
        }

    def completed(self, name: str) -> None:
        """Record that a tensor of `map` is filled, so that another thread can compute its digest."""
        if self._map is None:
            raise CheckpointError(f"{self._where}: only tensors of map() are completed; call map() first")
        if self._trailing is None:
            ends = [(spec.name, self._header.begins[spec.name] + spec.size_bytes) for spec in self.specs]
            self._trailing = TrailingDigest(self._map, ends)
        self._trailing.completed(name)

    def close(self) -> None:
        """Finish the file: compute the digest, and put the file in its place. Raises if a tensor is incomplete."""
        if self.sha256:
            return
        sha256 = ""
        if self._trailing is not None:
            sha256 = self._trailing.finish()
        elif self._map is not None:
            with memoryview(self._map) as view:
                for start in range(0, len(view), BLOCK_BYTES):
                    self._digest.update(view[start : start + BLOCK_BYTES])
        else:
            self._begin()
            self._skip_empty()
            if self._position < len(self.specs):
                name = self.specs[self._position].name
                error = CheckpointError(f"{self._where}: tensor {name!r} is incomplete; write all of it before close")
                self._abort(error)
                raise error
            self._flush()
        self._map = self._trailing = None
        self._stack.close()
        self.sha256 = sha256 or self._digest.hexdigest()

    def __enter__(self) -> TensorFileWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._abort(error)

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._put(self._prefix)

    def _put(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        if not self._buffer:
            self._buffer = bytearray(min(HUGE_PAGE_BYTES, self.size_bytes))
        taken = 0
        while taken < len(data):
            part = min(len(data) - taken, len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + part] = data[taken : taken + part]
            self._filled += part
            taken += part
            if self._filled == len(self._buffer):
                self._flush()

    def _flush(self) -> None:
        try:
            if self._is_path and self._filled == HUGE_PAGE_BYTES and self._buffer == _ZEROS:
                self._file.seek(HUGE_PAGE_BYTES, os.SEEK_CUR)
                self._file.truncate()  # a hole at the end belongs to the file
            else:
                with memoryview(self._buffer) as view:
                    self._file.write(view[: self._filled])
        except OSError as error:
            self._abort(error)
            raise cannot_write(self._where, error) from None
        self._filled = 0

    def _advance(self) -> None:
        self._position += 1
        if self._position < len(self.specs):
            self._missing_bytes = self.specs[self._position].size_bytes

    def _skip_empty(self, until: str | None = None) -> None:
        """Skip tensors without elements, which need no write but may have one."""
        while self._position < len(self.specs) and self._missing_bytes == 0:
            if self.specs[self._position].name == until:
                return
            self._advance()

    def _abort(self, error: BaseException) -> None:
        if self._trailing is not None:
            self._trailing.cancel()
        self._map = self._trailing = None
        stack, self._stack = self._stack, ExitStack()
        stack.__exit__(type(error), error, error.__traceback__)
