"""A folder from somebody else: its server's files hold values alone, or no server is started on it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from flavor.bus import embedded
from flavor.bus.append_only_file import check_folder
from flavor.bus.embedded import embedded_server
from flavor.errors import BusUnavailable, InvalidSetting
from tests.polled import eventually

AOF = "appendonly.aof.1.incr.aof"
MANIFEST = f"file {AOF} seq 1 type i\n"


def command(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)


GOOD = command("SELECT", "0") + command("SET", "a", "MODULE\r\nLOAD") + command("hset", "h", "f", "")


def folder_with(home: Path, data: bytes, manifest: str = MANIFEST) -> Path:
    (home / "appendonlydir").mkdir(parents=True)
    (home / "appendonlydir" / AOF).write_bytes(data)
    (home / "appendonlydir" / "appendonly.aof.manifest").write_text(manifest)
    return home


def fill(client: redis.Redis) -> None:
    """Write a value of every type, in each form that a snapshot has for it."""
    for size in (1, 20, 600):
        client.set(f"text-{size}", "x" * size, ex=9000)
        client.hset(f"hash-{size}", mapping={f"f{at}": "v" * (at % 80) for at in range(size)})
        client.rpush(f"list-{size}", *(f"{at}" * 40 for at in range(size)))
        client.sadd(f"integers-{size}", *range(size))
        client.sadd(f"set-{size}", *(f"m{at}" for at in range(size)))
        client.zadd(f"sorted-{size}", {f"m{at}": at / 3 for at in range(size)})
        for at in range(size):
            client.xadd(f"stream-{size}", {"field": at})
    client.set("number", -70000)
    client.set("long", "ab" * 9000)
    client.execute_command("HPEXPIRE", "hash-20", "9000000", "FIELDS", "1", "f3")
    client.xgroup_create("stream-20", "group", id="0")
    client.xreadgroup("group", "consumer", {"stream-20": ">"}, count=5)


def moves(client: redis.Redis) -> None:
    """Write what a server records in other words than those that it was sent."""
    client.eval("redis.call('SET', KEYS[1], 1) redis.call('INCR', KEYS[1]) redis.call('EXPIRE', KEYS[1], 900)", 1, "e")
    with client.pipeline() as pipe:
        pipe.set("a", 1).incr("a").execute()
    client.lpush("queue", 1, 2, 3)
    client.blmove("queue", "taken", 1)
    client.blpop("queue")
    client.spop("set-20")
    client.getex("long", ex=900)
    client.incrbyfloat("float", 0.5)
    client.xtrim("stream-600", 5)
    client.zpopmin("sorted-20")


def test_what_a_server_writes_is_taken_with_its_snapshot_and_cut_off_anywhere(tmp_path: Path) -> None:
    home = tmp_path / "redis"
    home.mkdir()
    with embedded_server(append_only=True, folder=home) as url, redis.Redis.from_url(url) as client:
        fill(client)
        moves(client)
        client.bgrewriteaof()
        eventually("a snapshot", lambda: client.info("persistence")["aof_base_size"] > 10_000)
        moves(client)
        keys = client.dbsize()
    check_folder(home)
    with embedded_server(append_only=True, folder=home) as url, redis.Redis.from_url(url) as client:
        assert client.dbsize() == keys
    (last,) = (home / "appendonlydir").glob("*.incr.aof")
    whole, cut = last.read_bytes(), folder_with(tmp_path / "cut", b"")
    assert len(whole) > 300
    for size in range(len(whole)):
        (cut / "appendonlydir" / AOF).write_bytes(whole[:size])
        check_folder(cut)


@pytest.mark.parametrize(
    "words",
    [
        ("MODULE", "LOAD", "./x.so"),
        ("module", "loadex", "./x.so"),
        ("FUNCTION", "LOAD", "#!lua name=x\n"),
        ("EVAL", "return 1", "0"),
        ("SCRIPT", "LOAD", "return 1"),
        ("CONFIG", "SET", "dir", "/tmp"),
        ("REPLICAOF", "198.51.100.1", "1"),
        ("SLAVEOF", "198.51.100.1", "1"),
        ("DEBUG", "SLEEP", "9"),
        ("ACL", "SETUSER", "default", "off"),
        ("MIGRATE", "198.51.100.1", "1", "a", "0", "9"),
        ("RESTORE", "a", "0", "x"),
        ("SHUTDOWN",),
        ("BGREWRITEAOF",),
        ("\x1b[2J",),
    ],
)
def test_any_other_command_is_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    home = folder_with(tmp_path / "redis", GOOD + command(*words) + GOOD)
    where = len(GOOD) + len(command(*words).split(words[0].encode())[0])
    shown = re.escape(repr(words[0].replace("\x1b", "\\x1b"))).replace(r"\\\\", r"\\+")
    with pytest.raises(InvalidSetting, match=f"has the command {shown} at byte {where}: no server is started on this"):
        check_folder(home)


def snapshot(*parts: bytes, magic: bytes = b"VALKEY080", end: bytes = b"\xff" + bytes(8)) -> bytes:
    return magic + b"\xfa\x09redis-ver\x059.1.2\xfe\x00" + b"".join(parts) + end


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (snapshot(b"\xf5\x05local"), "has a function"),
        (snapshot(b"\xf6\x05local"), "has a function"),
        (snapshot(b"\xf7\x01\x02\x00"), "has data of a module"),
        (snapshot(b"\x00\x01a\x01b", b"\x07\x01m\x00"), "has a value of a module at byte 33"),
        (snapshot(b"\xfc" + bytes(8) + b"\x63\x01a"), "has a value of the unknown type 99"),
        (snapshot(b"\x00\x01a\x01b", end=b""), "its snapshot has no end"),
        (snapshot(b"\x00\x01a\x80\xff\xff\xff\xff"), "its snapshot has no end"),
        (snapshot(b"\x00\x01a\xc7"), "its snapshot is damaged"),
        (snapshot(magic=b"REDISv123"), "snapshot of an unknown server"),
        (snapshot(b"\x00\x01a\x01b", magic=b"REDIS0011") + command("MODULE", "LOAD", "x"), "the command 'MODULE'"),
        (b"#" + b"." * 126 + command("MODULE", "LOAD", "x"), "no list of commands at byte 0"),
        (b"*3 \r\n$6\r\nMODULE\r\n", "no list of commands at byte 0"),
        (b"*+1\r\n$4\r\nPING\r\n", "no list of commands at byte 0"),
        (GOOD + b"\0" * 99, "no list of commands"),
        (b"*2\r\n$03\r\nSET\r\n", "no list of commands at byte 4"),
        (b"*2\r\n$3\r\nSET..$6\r\nMODULE\r\n", "no list of commands at byte 11"),
    ],
)
def test_what_is_no_plain_list_of_values_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    with pytest.raises(InvalidSetting, match=why):
        check_folder(folder_with(tmp_path / "redis", data))


def a_link(name: str) -> Callable[[Path], None]:
    def put(home: Path) -> None:
        (home / name).unlink(missing_ok=True)
        (home / name).symlink_to(home.parent / "of-the-user")

    return put


def a_linked_folder(home: Path) -> None:
    home.rename(home.parent / "elsewhere")
    home.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("put", "why"),
    [
        (a_link("valkey.log"), "valkey.log: it is a link"),
        (a_link("lock"), "lock: it is a link"),
        (a_link("url"), "url: it is a link"),
        (a_link(f"appendonlydir/{AOF}"), f"{AOF}: it is a link"),
        (a_link("appendonlydir/appendonly.aof.manifest"), "manifest: it is a link"),
        (a_linked_folder, "redis: it is a link"),
        (lambda home: (home / "appendonly.aof").write_bytes(GOOD), "appendonly.aof: flavor writes no such file"),
        (lambda home: (home / "dump.rdb").write_bytes(snapshot(b"\xf5\x01x")), "dump.rdb: its snapshot has a function"),
        (lambda home: (home / "valkey.log").mkdir(), "valkey.log: it is no file"),
    ],
)
def test_a_link_and_a_file_of_another_server_are_refused(tmp_path: Path, put: Callable[[Path], None], why: str) -> None:
    (tmp_path / "of-the-user").write_text("as it was")
    put(folder_with(tmp_path / "redis", GOOD))
    with pytest.raises(InvalidSetting, match=why), embedded_server(append_only=True, folder=tmp_path / "redis"):
        pass
    assert (tmp_path / "of-the-user").read_text() == "as it was"


@pytest.mark.parametrize(
    "line", ["file ../x.so seq 1 type i", 'file "a.aof" seq 1 type i', f"file {AOF} seq 1 type i x y", "\xff"]
)
def test_a_manifest_names_the_server_s_own_files_alone(tmp_path: Path, line: str) -> None:
    with pytest.raises(InvalidSetting, match=r"manifest: it has the line '.*', and no server of flavor writes that"):
        check_folder(folder_with(tmp_path / "redis", GOOD, MANIFEST + line + "\n"))


def test_the_server_itself_does_not_know_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "check_folder", lambda home: None)
    home = folder_with(tmp_path / "redis", GOOD + command("MODULE", "LOAD", "./x.so"))
    with pytest.raises(BusUnavailable, match="did not start"), embedded_server(append_only=True, folder=home):
        pass
    assert "unknown command 'MODULE'" in (home / "valkey.log").read_text()


@pytest.mark.parametrize("beside", [(), ("valkey.conf", b"maxmemory 9mb\n"), ("dump.rdb", snapshot(b"\x00\x01o\x01b"))])
def test_a_server_reads_its_append_only_file_alone_and_lacks_the_worst_commands(
    tmp_path: Path, beside: tuple[str, bytes] | tuple[()]
) -> None:
    home = folder_with(tmp_path / "redis", GOOD)
    if beside:
        (home / beside[0]).write_bytes(beside[1])
    with embedded_server(append_only=True, folder=home) as url:
        client = redis.Redis.from_url(url, decode_responses=True)
        with contextlib.closing(client):
            assert client.dbsize() == 2
            assert client.config_get("maxmemory") == {"maxmemory": "0"}
            with pytest.raises(redis.ResponseError, match="protected config"):
                client.config_set("dir", "/")
            for name in ("MODULE", "FUNCTION", "REPLICAOF", "SLAVEOF", "MIGRATE", "RESTORE", "DEBUG"):
                with pytest.raises(redis.ResponseError, match=f"unknown command '{name}'"):
                    client.execute_command(name, "LIST")
