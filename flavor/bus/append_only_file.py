"""What an embedded server may read in its folder: values alone, so that a folder from somebody else runs nothing.

A server that starts on a folder executes each command of its append-only file, with all rights: `MODULE LOAD` would run
native code, `FUNCTION LOAD` and `EVAL` scripts, and `CONFIG SET` or `REPLICAOF` would turn the server against its user.
So flavor reads the file first, by the grammar that the server reads it by
(https://valkey.io/topics/protocol/, `loadSingleAppendOnlyFile` in Valkey's aof.c), and takes only commands that write
values. `flavor.bus.snapshot_file` does the same for the snapshot with which the file may begin.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
from pathlib import Path

from flavor.bus.snapshot_file import Foreign, is_snapshot, snapshot_end
from flavor.errors import InvalidSetting
from flavor.printable import printable

FOLDER, NAME = "appendonlydir", "appendonly.aof"
"""The names of the folder and of the files in it, which `flavor.bus.embedded` gives to the server."""
_WRITING = (
    "SELECT MULTI EXEC "
    "DEL UNLINK EXPIRE EXPIREAT PEXPIRE PEXPIREAT PERSIST RENAME RENAMENX COPY "
    "SET SETEX PSETEX SETNX MSET MSETNX GETSET GETDEL GETEX APPEND SETRANGE INCR INCRBY INCRBYFLOAT DECR DECRBY "
    "HSET HSETNX HMSET HDEL HINCRBY HINCRBYFLOAT HPEXPIREAT HPERSIST "
    "LPUSH LPUSHX RPUSH RPUSHX LPOP RPOP LREM LTRIM LSET LINSERT LMOVE RPOPLPUSH "
    "SADD SREM SMOVE SPOP SUNIONSTORE SINTERSTORE SDIFFSTORE "
    "ZADD ZINCRBY ZREM ZPOPMIN ZPOPMAX ZREMRANGEBYSCORE ZREMRANGEBYRANK ZREMRANGEBYLEX ZUNIONSTORE ZINTERSTORE "
    "XADD XDEL XTRIM XSETID XGROUP XACK XCLAIM"
)
"""Commands that change values and nothing else, among them all that flavor and RQ have a server record."""
_NAMES = frozenset(_WRITING.split())

_FILE = re.compile(rf"{re.escape(NAME)}\.[0-9]{{1,18}}\.(base\.rdb|base\.aof|incr\.aof)")
_MANIFEST = re.compile(
    rf"file ({_FILE.pattern}) seq [0-9]{{1,18}} type [bhi]( startoffset [0-9]+)?( endoffset [0-9]+)?"
)
_WORDS = re.compile(rb"\*([1-9][0-9]{0,6})\r\n")
_LENGTH = re.compile(rb"\$(0|[1-9][0-9]{0,8})\r\n")
_TIME = re.compile(rb"#TS:[0-9]{1,20}\r\n")
_LONGEST_LINE = 32


def check_links(home: Path) -> None:
    """Refuse a server's folder that is a link, or in which one of the files is that flavor writes.

    Raises `InvalidSetting`, which names the file: what is written through a link changes a file of this user elsewhere.
    """
    if _is_plain(home, folder=True):
        for name in ("lock", "url", "valkey.log"):
            _is_plain(home / name)


def check_folder(home: Path) -> None:
    """Refuse a server's folder with links, or with a command that does more than to write values.

    Raises `InvalidSetting`, which names the file. A folder that is not there yet, or is empty, is a good one. What
    breaks off in the middle of a command is the server's to mend, and no reason to refuse.
    """
    check_links(home)
    if (home / NAME).exists() or (home / NAME).is_symlink():
        raise _refused(home / NAME, "flavor writes no such file")  # a server that finds no manifest would read it
    if _is_plain(home / "dump.rdb"):
        _check_file(home / "dump.rdb")
    folder = home / FOLDER
    if not _is_plain(folder, folder=True):
        return
    for path in sorted(folder.iterdir()):
        _is_plain(path)
        if path.name == f"{NAME}.manifest":
            _check_manifest(path)
        elif _FILE.fullmatch(path.name):  # the manifest names no other file
            _check_file(path)


def _is_plain(path: Path, *, folder: bool = False) -> bool:
    """Whether there is something at `path`. Raises `InvalidSetting` where it is no file (or folder) of its own."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not (stat.S_ISDIR(mode) if folder else stat.S_ISREG(mode)):
        raise _refused(path, "it is a link" if stat.S_ISLNK(mode) else f"it is no {'folder' if folder else 'file'}")
    return True


def _check_manifest(path: Path) -> None:
    try:
        lines = path.read_bytes().decode("ascii").split("\n")
    except UnicodeDecodeError:
        lines = ["?"]
    for line in lines:
        if line and not line.startswith("#") and not _MANIFEST.fullmatch(line):
            raise _refused(path, f"it has the line {printable(line)[:80]!r}, and no server of flavor writes that")


def _check_file(path: Path) -> None:
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                _check_commands(data, snapshot_end(data) if is_snapshot(data) else 0)
            except Foreign as error:
                raise _refused(path, str(error)) from None


def _check_commands(data: mmap.mmap, at: int) -> None:
    """Raise `Foreign` for the first command, from `at` on, that writes more than values."""
    size = len(data)
    while at < size:
        if data[at] == ord("#"):
            if not (found := _TIME.match(data, at)):
                return _broken_off(data, at, size)
            at = found.end()
            continue
        if not (found := _WORDS.match(data, at)):
            return _broken_off(data, at, size)
        at, words, name = found.end(), int(found[1]), ""
        for number in range(words):
            if not (length := _LENGTH.match(data, at)):
                return _broken_off(data, at, size)
            begin = length.end()
            at = begin + int(length[1])
            if number == 0 and at <= size:
                name = data[begin:at][:40].decode("latin-1")
                if name.upper() not in _NAMES:
                    raise Foreign(f"it has the command {printable(name)!r} at byte {begin}")
            if data[at : at + 2] != b"\r\n":
                return _broken_off(data, at, size)
            at += 2
    return None


def _broken_off(data: mmap.mmap, at: int, size: int) -> None:
    """Take what ends in the middle of a line, where the server's writing was cut off, and nothing else."""
    if size - at < _LONGEST_LINE and b"\n" not in data[at:size]:
        return
    raise Foreign(f"it is no list of commands at byte {at}")


def _refused(path: Path, why: str) -> InvalidSetting:
    return InvalidSetting(
        f"{path}: {why}: no server is started on this folder, which could run code of its sender; "
        "`flavor results RUN --store FOLDER` and `flavor verify` read a run's store without a server"
    )
