"""What others on this machine can do to the servers that a check or a run on one machine starts: nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
import redis
from warm import STARTER

from flavor.bus.embedded import embedded_server
from flavor.check.fake_bus import FakeBus
from flavor.check.fake_server import COMMANDS, _Requests

NOBODY = 65534


def socket_of(url: str) -> Path:
    assert url.startswith("unix:///"), f"a server on a port is open to every user of the machine: {url}"
    return Path(unquote(url.removeprefix("unix://")))


@pytest.fixture
def bus():
    with FakeBus(2, on_set=lambda key: None) as running:
        yield running


@pytest.fixture
def client(bus):
    with redis.Redis(unix_socket_path=str(socket_of(bus.url)), decode_responses=True, protocol=2) as connected:
        yield connected


def listening(pid: int) -> set[str]:
    """The ports on which a process listens, by the kernel's table."""
    inodes = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(handle).removeprefix("socket:[").rstrip("]"))
        except OSError:
            continue
    rows = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()]
    return {row[1] for row in rows if len(row) > 9 and row[3] == "0A" and row[9] in inodes}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("kind", ["check", "embedded", "embedded in a folder"])
def test_another_user_reaches_no_server(kind, tmp_path):
    before = listening(os.getpid())
    umask = os.umask(0)  # the worst
    try:
        (tmp_path / "open").mkdir()
        server = {
            "check": lambda: FakeBus(2, on_set=lambda key: None),
            "embedded": embedded_server,
            "embedded in a folder": lambda: embedded_server(folder=tmp_path / "open"),
        }[kind]()
        with server as opened:
            socket = socket_of(opened if isinstance(opened, str) else opened.url)
            knock = (
                "import socket, sys\n"
                "try:\n    socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
                "except PermissionError:\n    sys.exit(13)\n"
            )
            asked = [sys.executable, "-c", knock, str(socket)]
            assert subprocess.run(asked, check=False).returncode == 0
            shut = subprocess.run(
                [shutil.which("python3", path="/usr/bin:/bin") or sys.executable, *asked[1:]],
                check=False,
                user=NOBODY,
                group=NOBODY,
            )
            assert shut.returncode == 13
            assert listening(os.getpid()) == before, "it listens on a port"
            if kind != "embedded in a folder":
                assert socket.parent.stat().st_mode & 0o777 == 0o700
        assert not socket.exists()
    finally:
        os.umask(umask)


@pytest.mark.parametrize(
    "words",
    [
        ["EVAL", "return python.eval('1')", "0"],
        ["EVALSHA", "0" * 40, "0"],
        ["eval", "return 1", "0"],
        ["SCRIPT", "LOAD", "return 1"],
        ["FUNCTION", "LOAD", "#!lua name=x"],
        ["FCALL", "x", "0"],
        ["CONFIG", "GET", "*"],
        ["CLIENT", "LIST"],
        ["FLUSHALL"],
        ["KEYS", "*"],
        ["SAVE"],
        ["ACL", "LIST"],
        ["COMMAND"],
    ],
)
def test_a_script_has_the_commands_of_a_script_alone(client, words):
    with pytest.raises(redis.exceptions.ResponseError, match="no training script needs"):
        client.execute_command(*words)
    assert client.ping()


def test_what_an_enrolled_trainer_may_send_is_taken(client):
    from flavor.bus.acl import rules

    of_its_edge = {"pexpire", "pttl", "hset"}
    names = set(re.findall(r"\+([a-z|]+)", " ".join(rules("check", "script", "secret"))))
    names = {name for name in names if "|" not in name} - of_its_edge
    assert {"hgetall", "watch", "psubscribe", "set"} <= names
    assert {name.upper().encode() for name in names} <= COMMANDS
    assert client.client_setname("mine")
    assert client.set("flavor:{check}:client:script:mine", b"\r\n*1\r\n$4\r\nEVAL\r\n".decode())
    assert client.get("flavor:{check}:client:script:mine") == "\r\n*1\r\n$4\r\nEVAL\r\n"


def test_what_is_not_there_yet_is_no_end(monkeypatch):
    """Each piece of a request arrives only when the server has found that there is no more of it for now."""
    import os
    import select
    import socket

    request, really = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", select.select
    pieces = [request[at : at + 3] for at in range(0, len(request), 3)]
    near, far = socket.socketpair()
    with near, far, far.makefile("rb") as inner:
        os.set_blocking(far.fileno(), False)

        def arrives(*words):
            near.sendall(pieces.pop(0))
            return really(*words)

        monkeypatch.setattr(select, "select", arrives)
        requests = _Requests(inner, far.sendall, lambda *_: None)
        assert requests.readline() == b"", "there is nothing yet"
        near.sendall(pieces.pop(0))
        assert requests.readline() == request
        near.sendall(request[:5])
        near.close()
        assert requests.readline() == b"", "its end"


def test_requests_in_pieces_and_many_at_once(bus):
    import socket

    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(socket_of(bus.url)))
        raw.settimeout(10)
        request = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\n\r\n\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
        for position in range(len(request)):
            raw.sendall(request[position : position + 1])
        raw.sendall(request * 3)
        said = b""
        while said.count(b"$2\r\n\r\n\r\n") < 4:
            said += raw.recv(4096)
        assert said.count(b"+OK\r\n") == 4
        raw.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert raw.recv(4096) == b""


SCRIPT = """
set -e
bus() { redis-cli -s "${FLAVOR_REDIS_URL#unix://}" "$@"; }
me="flavor:{$FLAVOR_RUN}:client:$FLAVOR_CLIENT"
set_event() { printf 'MULTI\\nSET %s 1 NX\\nPUBLISH %s %s\\nEXEC\\n' "$1" "$1" "$2" | bus > /dev/null; }
set_event "$me:round:0:event:TrainInitDone" 0
last=0
while [ "$(bus HGET "flavor:{$FLAVOR_RUN}:run" state)" = running ]; do
    round=$(bus GET "$me:started")
    if [ -z "$round" ] || [ "$round" -le "$last" ]; then sleep 0.05; continue; fi
    bus SET "$me:taken" "$round" > /dev/null
    last=$round
    echo "weights of round $round" > "$LOCAL_MODEL_PATH"
    echo '{"metadata": {"epoch": '$round', "datasetSize": 3, "importance": 1}, "metrics": {"basic/confusion_tp": -1,
        "basic/confusion_fp": -1, "basic/confusion_fn": -1, "basic/confusion_tn": -1}}' \\
        > "$(dirname "$LOCAL_MODEL_PATH")/info.json"
    set_event "$me:round:$round:event:TrainFinished" "$round"
done
"""


@pytest.mark.parametrize("place", ["short", "a folder whose name is far too long for the path of a socket " * 2])
def test_a_trainer_of_redis_cli_alone(tmp_path, place):
    folder = tmp_path / place
    folder.mkdir()
    (tmp_path / "main.sh").write_text(SCRIPT)
    names = ("INPUT_PATH", "OUTPUT_PATH", "LOG_PATH", "LOCAL_MODEL_PATH", "GLOBAL_MODEL_PATH")
    env = {name: value for name, value in os.environ.items() if name not in names} | {"TMPDIR": str(folder)}
    words = ["--ignore-ckpt", "-m", f"sh {tmp_path / 'main.sh'}", "--timeout-s", "60"]
    ran = STARTER.run([sys.executable, "-P", "-m", "flavor.cli.check_fl", *words], env=env)
    assert ran.returncode == 0, ran.stdout + ran.stderr
