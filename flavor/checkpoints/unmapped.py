"""A checkpoint file that another party may still write to: read, never mapped.

A process that maps a file is killed when another party cuts the file off (SIGBUS). A read that comes back short is
instead an error of one line about that file alone.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

import numpy as np

from flavor.checkpoints.blocks import Array
from flavor.checkpoints.dtypes import DType
from flavor.checkpoints.limits import elements
from flavor.disk import StrPath
from flavor.errors import CheckpointError, DigestMismatch

_OWN = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ENOTCONN)
"""Errors of the machine, which say nothing about the file."""
WHOLE_BYTES = 256 * 1024
"""A file up to this size is read at once, because the calls would cost more than the bytes."""


class Unmapped:
    """A file opened for reading, as `Mapped` is: `view` gives its bytes, all of which are ours."""

    def __init__(self, path: StrPath, name: str = "") -> None:
        """Open the file; messages call it `name`. Raises `CheckpointError`."""
        self.path, self.name = os.fspath(path), name or os.fspath(path)
        self._handle = -1
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe by now, perhaps
            found = self.status()
            self.size_bytes = found.st_size
        except OSError as error:
            if error.errno in _OWN:
                raise
            raise CheckpointError(f"{self.name}: cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(found.st_mode):
            raise CheckpointError(f"{self.name}: cannot be read: it is no file")
        if self.size_bytes == 0:
            raise CheckpointError(f"{self.name}: the file is empty; save the checkpoint before you report it")
        self.whole: memoryview | None = None
        """All bytes of a small file, which no other process can change any more; else None."""
        if self.size_bytes <= WHOLE_BYTES:
            self.whole = memoryview(_Window(self)[0 : self.size_bytes]).toreadonly()

    def status(self) -> os.stat_result:
        """Return the status of the open file, also if another file has its name by now."""
        return os.fstat(self._handle)

    @property
    def view(self) -> Any:
        """The bytes of the file, as a new object each time: an object that is kept would keep the file open."""
        return _Window(self) if self.whole is None else self.whole

    def read(self, offset: int, out: Any) -> None:
        """Fill the buffer `out` from `offset` on; raises `DigestMismatch` where the file has become shorter."""
        left = memoryview(out).cast("B")
        while left:
            count = os.preadv(self._handle, [left], offset)
            if not count:
                raise DigestMismatch(
                    f"{self.name}: the bytes are not those that were recorded: it was cut off while it was read"
                )
            offset += count
            left = left[count:]

    def __del__(self) -> None:
        """Close it."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class _Window:
    """The bytes of a file by their place, like a memoryview; each slice is read."""

    def __init__(self, file: Unmapped) -> None:
        self._read, self._size = file.read, file.size_bytes

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytearray:
        start, stop, _ = part.indices(self._size)
        data = bytearray(max(0, stop - start))
        self._read(start, data)
        return data


class FileTensor:
    """A tensor in such a file, read part by part; `np.asarray` reads all of it."""

    def __init__(self, file: Unmapped, offset: int, shape: tuple[int, ...], dtype: DType) -> None:
        self._file, self._offset = file, offset
        self.shape, self.dtype, self.size = shape, dtype, elements(shape)

    def read(self, start: int, out: Array) -> None:
        """Write the elements of the flattened tensor from `start` on to `out`, C-contiguous and of its dtype."""
        self._file.read(self._offset + start * self.dtype.itemsize, out.reshape(-1).view(np.uint8))

    def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> Array:
        """All of it as a new array."""
        if copy is False:
            raise ValueError("a tensor in a file has no array to be viewed")
        whole = np.empty(self.shape, self.dtype)
        if self.size:
            self.read(0, whole)
        return whole if dtype is None else whole.astype(dtype, copy=False)
