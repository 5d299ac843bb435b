"""Walk through a server's snapshot (RDB) without loading it, to find what is more than values.

A snapshot can hold functions, which a server compiles and runs as it loads them, and values of modules. The grammar is
that of Valkey's rdb.c and rdb.h (https://github.com/valkey-io/valkey/tree/9.0/src): lengths, strings, and for each type
the number of strings and numbers in a value. Whether the bytes of a value are sound is the server's to check
(`sanitize-dump-payload`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol


class Foreign(Exception):
    """What flavor's servers do not write; the message says what, and where."""


class Bytes(Protocol):
    """A file in memory, or mapped into it."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


_MAGIC = re.compile(rb"REDIS[0-9]{4}|VALKEY[0-9]{3}")
_MAGIC_SIZE = 9
_END, _STREAMS = 255, (15, 19, 21)
_REFUSED = {
    245: "a function",
    246: "a function",
    247: "data of a module",
    6: "a value of a module",
    7: "a value of a module",
}


def is_snapshot(data: Bytes) -> bool:
    """Whether the server would read this file as one that begins with a snapshot."""
    return data[:5] == b"REDIS" or data[:6] == b"VALKEY"


def snapshot_end(data: Bytes) -> int:
    """Return where the snapshot ends with which `data` begins.

    Raises `Foreign` for functions, modules, types that no server of flavor writes, and a snapshot without an end.
    """
    if not _MAGIC.fullmatch(data[:_MAGIC_SIZE]):
        raise Foreign("it begins with the snapshot of an unknown server")
    walk = _Walk(data)
    while (opcode := walk.byte()) != _END:
        if opcode in _REFUSED:
            raise Foreign(f"its snapshot has {_REFUSED[opcode]} at byte {walk.at - 1}")
        if opcode in _OPCODES:
            _OPCODES[opcode](walk)
        elif opcode in _VALUES:
            walk.string()  # the key
            _VALUES[opcode](walk)
        elif opcode in _STREAMS:
            walk.string()
            _stream(walk, opcode)
        else:
            raise Foreign(f"its snapshot has a value of the unknown type {opcode} at byte {walk.at - 1}")
    walk.skip(8)  # the checksum
    return walk.at


class _Walk:
    """A place in a snapshot, which moves on. Raises `Foreign` at the end of the file."""

    def __init__(self, data: Bytes) -> None:
        self._data, self._size = data, len(data)
        self.at = _MAGIC_SIZE

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > self._size:
            raise Foreign("its snapshot has no end")

    def _take(self, size: int) -> int:
        begin = self.at
        self.skip(size)
        return int.from_bytes(self._data[begin : self.at], "big")

    def byte(self) -> int:
        return self._take(1)

    def _encoded(self) -> tuple[int, bool]:
        first = self.byte()
        match first >> 6:
            case 0:
                return first, False
            case 1:
                return (first & 63) << 8 | self.byte(), False
            case 2 if first in (0x80, 0x81):
                return self._take(4 if first == 0x80 else 8), False
            case 3:
                return first & 63, True
        raise Foreign(f"its snapshot is damaged at byte {self.at - 1}")

    def length(self) -> int:
        number, is_encoding = self._encoded()
        if is_encoding:
            raise Foreign(f"its snapshot is damaged at byte {self.at - 1}")
        return number

    def string(self) -> None:
        number, is_encoding = self._encoded()
        if not is_encoding:
            self.skip(number)
        elif number in (0, 1, 2):  # an integer of 1, 2 or 4 bytes
            self.skip(1 << number)
        elif number == 3:  # compressed: both lengths, and the bytes
            packed, _ = self.length(), self.length()
            self.skip(packed)
        else:
            raise Foreign(f"its snapshot is damaged at byte {self.at - 1}")

    def lengths(self, number: int) -> None:
        for _ in range(number):
            self.length()

    def texts(self, number: int) -> None:
        for _ in range(number):
            self.string()

    def strings(self, each: int = 1, *, raw: int = 0) -> None:
        """Pass a number, and so many times `each` strings and `raw` bytes."""
        for _ in range(self.length()):
            self.texts(each)
            self.skip(raw)


def _pass_nodes(walk: _Walk) -> None:
    for _ in range(walk.length()):
        walk.length()
        walk.string()


def _stream(walk: _Walk, kind: int) -> None:
    walk.strings(2)
    walk.lengths(3 if kind == 15 else 8)
    for _ in range(walk.length()):  # groups
        walk.string()
        walk.lengths(2 if kind == 15 else 3)
        for _ in range(walk.length()):  # entries that are not acknowledged: id, time, and how often they were given out
            walk.skip(16 + 8)
            walk.length()
        for _ in range(walk.length()):  # consumers
            walk.string()
            walk.skip(8 if kind < 21 else 16)
            walk.skip(16 * walk.length())


_OPCODES: dict[int, Callable[[_Walk], None]] = {
    254: lambda walk: walk.lengths(1),  # the database that follows
    253: lambda walk: walk.skip(4),  # expiry in seconds
    252: lambda walk: walk.skip(8),  # and in milliseconds
    251: lambda walk: walk.lengths(2),  # sizes of a database
    250: lambda walk: walk.texts(2),  # about the server, such as its version
    249: lambda walk: walk.skip(1),  # how often a key is used
    248: lambda walk: walk.lengths(1),  # how long it was not
    244: lambda walk: walk.lengths(3),  # sizes of a slot
}
_VALUES: dict[int, Callable[[_Walk], None]] = {
    0: _Walk.string,
    1: _Walk.strings,  # a list
    2: _Walk.strings,  # a set
    4: lambda walk: walk.strings(2),  # a hash
    5: lambda walk: walk.strings(raw=8),  # a sorted set
    11: _Walk.string,  # a set of integers
    16: _Walk.string,  # a hash, as a listpack
    17: _Walk.string,  # a sorted set, as a listpack
    18: _pass_nodes,  # a list
    20: _Walk.string,  # a set, as a listpack
    22: lambda walk: walk.strings(2, raw=8),  # a hash whose fields expire
}
