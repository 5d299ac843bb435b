"""Zip files as torch and numpy write them: entries as views of the mapped file, and aligned new ones."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import IO, TYPE_CHECKING

from flavor.checkpoints.limits import MAX_TENSORS, is_bomb
from flavor.checkpoints.mapped import Mapped
from flavor.errors import CheckpointError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ALIGNMENT = 64  # bytes; torch.load(mmap=True) and SIMD both want it
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ZIP64_EXTRA_BYTES = 20
_PADDING_ID = 0x4246  # "FB", the extra field with which torch aligns its own entries


class _ViewFile(io.RawIOBase):
    """A buffer as a file, in which zipfile reads the directory."""

    def __init__(self, view: memoryview) -> None:
        super().__init__()
        self._view = view
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._view)}[whence]
        if position < 0:
            raise OSError("before the start of the file")
        self._position = position
        return position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        part = self._view[self._position : self._position + len(memoryview(buffer))]
        memoryview(buffer)[: len(part)] = part
        self._position += len(part)
        return len(part)


class ZipEntries:
    """The entries of a mapped zip file; stored ones are views, deflated ones are unpacked when asked for."""

    def __init__(self, source: Mapped) -> None:
        self.name = source.name
        self._view = source.view
        try:
            with zipfile.ZipFile(io.BufferedReader(_ViewFile(source.view))) as directory:
                self._entries = {info.filename: info for info in directory.infolist()}
                self.names = directory.namelist()
        except Exception as error:  # zipfile meets damaged directories with a dozen kinds of exception
            raise CheckpointError(f"{self.name}: a damaged zip ({error}); save the checkpoint again") from None
        if len(self.names) > MAX_TENSORS:
            raise CheckpointError(f"{self.name}: {len(self.names)} entries; at most {MAX_TENSORS} are accepted")
        self._claimed = self._stored_bytes = 0  # of the deflated entries that were asked for
        if len(self._entries) != len(self.names):
            raise CheckpointError(f"{self.name}: two zip entries have one name; save the checkpoint again")

    def read(self, entry: str) -> memoryview:
        """The bytes of an entry, without a copy when it is stored uncompressed."""
        try:
            info = self._entries[entry]
        except KeyError:
            raise CheckpointError(f"{self.name}: the entry {entry!r} is missing; save the checkpoint again") from None
        if info.flag_bits & 1 or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise CheckpointError(
                f"{self.name}: entry {entry!r} is encrypted or oddly compressed; save it plain or deflated"
            )
        return self._stored(info) if info.compress_type == zipfile.ZIP_STORED else self._deflated(info)

    def _stored(self, info: zipfile.ZipInfo) -> memoryview:
        if info.file_size != info.compress_size:
            raise CheckpointError(f"{self.name}: entry {info.filename!r} is damaged; save the checkpoint again")
        return self._raw(info)

    def _deflated(self, info: zipfile.ZipInfo) -> memoryview:
        self._claimed += info.file_size
        self._stored_bytes += info.compress_size
        # Together, for a thousand small bombs, or entries over the same bytes, are a large one.
        stored = min(self._stored_bytes, len(self._view))
        if is_bomb(info.file_size, info.compress_size) or is_bomb(self._claimed, stored):
            raise CheckpointError(
                f"{self.name}: up to entry {info.filename!r} it claims {self._claimed} bytes in {stored};"
                " save it uncompressed"
            )
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(self._raw(info), info.file_size + 1)
        except (zlib.error, MemoryError) as error:
            raise CheckpointError(f"{self.name}: entry {info.filename!r} is damaged ({error}); save it again") from None
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise CheckpointError(f"{self.name}: entry {info.filename!r} is damaged; save the checkpoint again")
        return memoryview(data)

    def _raw(self, info: zipfile.ZipInfo) -> memoryview:
        """The bytes of an entry as they lie in the file."""
        begin = info.header_offset
        header = self._view[begin : begin + _LOCAL_HEADER.size] if begin >= 0 else self._view[:0]
        if len(header) == _LOCAL_HEADER.size:
            signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
            start = begin + _LOCAL_HEADER.size + name_bytes + extra_bytes
            if signature == b"PK\x03\x04" and start + info.compress_size <= len(self._view):
                return self._view[start : start + info.compress_size]
        raise CheckpointError(f"{self.name}: entry {info.filename!r} is damaged; save the checkpoint again")


def open_entry(archive: zipfile.ZipFile, file: IO[bytes], name: str, size_bytes: int) -> IO[bytes]:
    """Begin a stored entry whose data start at a multiple of 64 bytes in `file`.

    Its date is fixed, so that equal checkpoints are equal files.
    """
    info = zipfile.ZipInfo(name)
    info.file_size = size_bytes
    is_zip64 = size_bytes * 1.05 > zipfile.ZIP64_LIMIT  # zipfile's own rule
    fixed = 30 + len(name.encode()) + 4 + (_ZIP64_EXTRA_BYTES if is_zip64 else 0)
    padding = -(file.tell() + fixed) % ALIGNMENT
    info.extra = struct.pack("<HH", _PADDING_ID, padding) + bytes(padding)
    return archive.open(info, "w")
