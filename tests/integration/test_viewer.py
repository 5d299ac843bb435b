"""What a viewer's Redis user may do, on both kinds of server: look at all runs, and nothing else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path

import pytest
from click.testing import CliRunner
from redisserver import redis_server

from flavor.bus import plain_read
from flavor.bus.acl import enroll_viewer, enrolled_viewers, revoke_viewer
from flavor.bus.clients import LONGEST_FIELD_BYTES
from flavor.bus.connection import Redis, connect
from flavor.bus.embedded import embedded_server
from flavor.bus.keys import RunKeys
from flavor.bus.plain_read import plain_read_hashes
from flavor.bus.runs import RunStore
from flavor.bus.token import with_credentials
from flavor.cli.main import cli
from flavor.view.board import Board
from flavor.view.server import server_state
from tests.denied import assert_denied
from tests.served import LONG_S, Served

NAME = "page"
KEYS = RunKeys("r")
CLIENT = KEYS.client("a")


@pytest.fixture(scope="module", params=["embedded", "redis-server"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        if request.param == "embedded":
            yield stack.enter_context(embedded_server())
        else:
            yield stack.enter_context(redis_server(tmp_path_factory.mktemp("viewer") / "r")).url


@pytest.fixture(scope="module")
def admin(url: str) -> Iterator[Redis]:
    with connect(url) as client:
        yield client


@pytest.fixture(scope="module")
def viewed(url: str, admin: Redis) -> str:
    """The viewer's URL."""
    secret, _ = enroll_viewer(admin, NAME, where="here")
    return with_credentials(url, f"flavor-viewer:{NAME}", secret)


@pytest.fixture(scope="module")
def viewer(viewed: str) -> Iterator[Redis]:
    with connect(viewed) as client:
        yield client


@pytest.fixture
def served(url: str, tmp_path: Path, admin: Redis) -> Iterator[Served]:
    """A run with a round that one of two clients has handed in to, on a server that knows no scripts any more."""
    run = Served(url, tmp_path)
    with run.serving():
        run.accept("a")
        admin.set(CLIENT.log, "a line\nanother")
        admin.set(CLIENT.lease, "a-secret")
        admin.script_flush()
        yield run


def test_a_viewer_sees_what_an_administrator_sees(served: Served, url: str, viewed: str, admin: Redis) -> None:
    with Board(viewed) as board, Board(url) as other:
        for each in (board, other):
            assert [row["run"] for row in each.runs()] == ["r"]
            assert each.problem() == ""
        seen, known = deepcopy(board.document("r")), deepcopy(other.document("r"))
        for document in (seen, known):
            for row in document["clients"].values():
                row.pop("seen_ms")
        timeless = ("now_ms", "left_s")
        assert {k: v for k, v in seen.items() if k not in timeless} == {
            k: v for k, v in known.items() if k not in timeless
        }
        assert seen["clients"]["a"]["this_round"] == "accepted"
        assert board.client("r", "a")["log"] == ["a line", "another"]
        assert board.events("r") == other.events("r") != []
        assert board.entries("r", before="9999999999999-0") == other.entries("r", before="9999999999999-0")
        assert board.settings("r") == other.settings("r")
        assert board.contributions("r") == other.contributions("r")
        assert board.queue() == other.queue()
        assert board.history("r").strip() == other.history("r").strip() != []
        assert board.history("r").timeline(1).clients == other.history("r").timeline(1).clients != ()
        assert board.history("r").metric_names() == other.history("r").metric_names()
        before = board.version()
        served.says("b", "failed")
        while board.document("r")["clients"]["b"]["state"] != "failed":
            assert board.wait(before, LONG_S) > before
            before = board.version()
        assert board.problem() == ""
    with connect(viewed) as client:
        assert server_state(client) is not None
        assert "connected_clients" in client.info("clients"), "docs/see-a-run.md and SECURITY.md say so"


def test_commands_that_only_look_take_its_url(served: Served, viewed: str) -> None:
    for words in (
        ["status", "--json"],
        ["status", "r", "--json"],
        ["log", "r", "--json"],
        ["log", "r", "--script", "a", "--json"],
    ):
        done = CliRunner().invoke(cli, [*words, "--redis-url", viewed])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout.splitlines()[0] if words[0] == "log" else done.stdout)
    for words in (["stop", "r"], ["pardon", "r", "a"], ["enroll", "r", "c"], ["revoke", "--viewer", NAME]):
        done = CliRunner().invoke(cli, [*words, "--redis-url", viewed])
        assert done.exit_code == 3, done.output
        assert "ACL does not allow it" in done.stderr
    assert served.runs.read().state == "running"


@pytest.mark.parametrize(
    "command",
    [
        f"HSET {KEYS.state} state failed",
        f"HSET {CLIENT.hash} state failed",
        f"DEL {KEYS.round(1)}",
        f"SET {CLIENT.lease} x",
        f"GET {CLIENT.lease}",
        f"GETRANGE {CLIENT.lease} 0 -1",
        f"GETRANGE {KEYS.coordinator} 0 -1",
        f"STRLEN {CLIENT.lease}",
        f"GETEX {CLIENT.lease}",
        f"DUMP {CLIENT.lease}",
        f"SORT {KEYS.members}",
        f"PEXPIRE {CLIENT.lease} 1",
        f"XADD {KEYS.log} * event x",
        f"XREADGROUP GROUP g c STREAMS {KEYS.log} >",
        f"PUBLISH {KEYS.state} x",
        f"SUBSCRIBE {KEYS.state}",
        "PSUBSCRIBE *",
        "PSUBSCRIBE flavor:*",
        "HGETALL rq:job:x",
        "LPUSH rq:queue:flavor x",
        "GET anything",
        "HGETALL anything",
        "EVAL return 0",
        "EVALSHA 0123456789012345678901234567890123456789 0",
        "EVAL_RO return 0",
        "SCRIPT LOAD return",
        "FUNCTION LIST",
        "FCALL_RO f 0",
        "CONFIG GET *",
        "CLIENT LIST",
        "CLIENT KILL TYPE normal",
        "ACL WHOAMI",
        "ACL LIST",
        f"ACL SETUSER flavor-viewer:{NAME} +@all",
        "SCAN 0",
        "KEYS *",
        "RANDOMKEY",
        "DBSIZE",
        "MONITOR",
        "SLOWLOG GET",
        "PUBSUB CHANNELS",
        "SELECT 1",
        "SHUTDOWN NOSAVE",
        "REPLICAOF 127.0.0.1 1",
        "FLUSHALL",
        "MEMORY USAGE x",
        "MEMORY STATS",
        "OBJECT ENCODING x",
        "WATCH x",
        "WAIT 1 0",
        "DEBUG JMAP",
    ],
)
def test_everything_else_is_refused(viewer: Redis, command: str) -> None:
    assert_denied(viewer, command)
    assert viewer.ping()


def test_plain_commands_read_what_the_script_reads(url: str, admin: Redis) -> None:
    admin.flushall()
    names = ["state", "host", "report"]
    admin.hset("h1", mapping={"state": "ready", "host": "x", "other": "y"})
    admin.hset("h2", mapping={"state": "ready", "report": "x" * (LONGEST_FIELD_BYTES + 1)})
    admin.hset("h3", mapping={"report": "x" * LONGEST_FIELD_BYTES})
    admin.hset("h4", mapping={"state": "ready", "other": "x" * (LONGEST_FIELD_BYTES + 1)})
    admin.hset("h5", mapping={f"other-{number}": "x" for number in range(100)} | {"host": "x"})
    admin.hset("h6", mapping={f"other-{number}": "x" * 1000 for number in range(60)} | {"host": "x"})
    admin.set("text", "x")
    admin.rpush("list", "x")
    admin.set("lasting", "x")
    hashes = ["h1", "none", "h2", "text", "h3", "list", "h4", "h5", "h6", "h1"]
    others = ["none", "lasting", "h1"]
    runs = RunStore(admin, "r", url)
    script = runs.call("read_hashes", [*hashes, *others], [LONGEST_FIELD_BYTES, len(hashes), *names])
    assert plain_read_hashes(admin, hashes, names, others, most_bytes=LONGEST_FIELD_BYTES) == script
    assert plain_read_hashes(admin, [], names, [], most_bytes=1) == []
    admin.set("short", "x", px=100_000)
    assert 0 < plain_read_hashes(admin, [], [], ["short"], most_bytes=1)[0] <= 100_000


@pytest.mark.parametrize("length", [1, 100])
def test_a_key_that_changes_its_type_while_it_is_read_hides_no_other_one(
    admin: Redis, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """A site may write its keys at any moment, also between two commands of one look."""
    before, values = plain_read._answers, ["ready", None]
    for number in range(20):  # it changes before each command, one after the other
        admin.flushall()
        admin.hset("changes", mapping={"state": "ready"} | {f"other-{each}": "x" for each in range(length)})
        admin.hset("stays", mapping={"state": "ready"})
        sent = list[tuple[str, ...]]()

        def answers(redis: Redis, commands: Sequence[tuple[str, ...]], at: int = number, sent: list = sent) -> list:
            found = []
            for command in commands:
                if len(sent) == at:
                    redis.set("changes", "x")
                sent.append(command)
                found += before(redis, [command])
            return found

        monkeypatch.setattr(plain_read, "_answers", answers)
        found = plain_read_hashes(admin, ["changes", "stays"], ["state", "host"], [], most_bytes=LONGEST_FIELD_BYTES)
        assert found[0] in (1, values)
        assert found[1] == values
    assert number > len(sent), "it also changed after the last command"


def test_enroll_writes_a_url_and_revoke_ends_it(url: str, admin: Redis, tmp_path: Path, served: Served) -> None:
    file = tmp_path / "viewer.url"
    words = ["--viewer", "lead", "--redis-url", url]
    done = CliRunner().invoke(cli, ["enroll", *words, "--out", str(file), "--unsaved"])
    assert done.exit_code == 0, done.output
    assert "flavor ui --redis-url @FILE" in done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert "lead" in enrolled_viewers(admin, where="here")
    done = CliRunner().invoke(cli, ["status", "r", "--json", "--redis-url", f"@{file}"])
    assert json.loads(done.stdout)["run"] == "r"
    with Board(file.read_text().strip()) as board:
        assert board.document("r")["run"] == "r"
        done = CliRunner().invoke(cli, ["revoke", *words])
        assert (done.exit_code, "viewer lead is revoked" in done.stderr) == (0, True)
        version = board.version()
        while not board.problem():
            version = board.wait(version, LONG_S)
        assert "check the user and password" in board.problem()
        assert board.document("r")["run"] == "r", "what was read stays"
    done = CliRunner().invoke(cli, ["revoke", *words])
    assert done.exit_code == 1
    assert "no viewer 'lead' is enrolled" in done.stderr
    assert revoke_viewer(admin, "lead", where="here") is None


@pytest.mark.parametrize(
    "words",
    [
        ["enroll", "r", "--viewer", "x"],
        ["enroll", "--viewer", "x", "--worker", "y"],
        ["enroll", "--viewer", "x", "--new-key"],
        ["enroll", "--viewer", "a b"],
        ["revoke", "r", "--viewer", "x"],
        ["revoke", "--viewer", "x", "--worker", "y"],
        ["revoke", "--viewer", ""],
    ],
)
def test_wrong_use_is_said(url: str, words: list[str]) -> None:
    done = CliRunner().invoke(cli, [*words, "--redis-url", url])
    assert done.exit_code == 2, done.output
