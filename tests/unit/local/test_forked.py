"""A process that is forked for a local run is what it would be if it were started."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flavor.local.forked import ForkedProcess, ForkServer
from flavor.local.processes import ProcessGroup, started
from tests.polled import eventually

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(not ForkServer.is_possible(), reason="all processes are started")

PROBE = """
import ctypes, json, os, random, signal, sys, time, uuid
import numpy
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if __name__ != "__main__":
    Ed25519PrivateKey.generate()  # in the server

getenv = ctypes.CDLL(None).getenv  # what libraries and commands that it starts see
getenv.restype = ctypes.c_char_p

def seen():
    return {
        "name": __name__, "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "flags": list(sys.flags),
        "cwd": os.getcwd(), "environ": dict(os.environ),
        "getenv": [os.fsdecode(getenv(name)) for name in sorted(os.environb)],
        "shown": sorted(Path("/proc/self/environ").read_bytes().rstrip(b"\\0").decode().split("\\0")),
        "umask": Path("/proc/self/status").read_text().split("Umask:")[1].split()[0],
        "signals": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        "streams": [(s.encoding, s.errors, s.write_through, s.line_buffering) for s in (sys.stdout, sys.stderr)],
        "files": {name: os.readlink(f"/proc/self/fd/{name}") for name in "012"},
        "open": len(os.listdir("/proc/self/fd")), "session": os.getsid(0) == os.getpgid(0) == os.getpid(),
        "command": Path("/proc/self/cmdline").read_bytes().rstrip(b"\\0").decode(),
        "threads": len(os.listdir("/proc/self/task")),
    }

if __name__ == "__main__":
    chance = [random.random(), float(numpy.random.random()), uuid.uuid4().hex]
    chance.append(Ed25519PrivateKey.generate().private_bytes_raw().hex())
    print(json.dumps({"seen": seen(), "chance": chance}))
    if "sleep" in sys.argv:
        time.sleep(60)
    if "end" in sys.argv:
        sys.modules["ending"] = __import__("ending")
        sys.modules["ending"].end(*sys.argv[2:])
    else:
        sys.exit(7)
"""
ENDING = """
import atexit, sys, threading, time

def end(how, file):
    global left_open
    left_open = open(file, "w")
    left_open.write("not flushed by itself")
    atexit.register(print, "at the exit")
    threading.Thread(target=lambda: (time.sleep(0.05), print("a thread's last words"))).start()
    print("before the end")
    if how == "raise":
        raise ValueError("it fails")
    if how == "interrupt":
        raise KeyboardInterrupt
    if how != "return":
        sys.exit(eval(how))
"""
THREADED = "import threading, time; threading.Thread(target=time.sleep, args=[60]).start()"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    modules = tmp_path_factory.mktemp("modules")
    (modules / "probe.py").write_text(PROBE)
    (modules / "threaded.py").write_text(THREADED)
    (modules / "ending.py").write_text(ENDING)
    path = os.pathsep.join([str(modules), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def server(environment: dict[str, str]) -> Iterator[ForkServer]:
    longer = {"FLAVOR_NOTE": "x" * 1000, **environment}  # the environment of each child takes its place
    with ForkServer(longer, programs=["probe"], modules=["probe"]) as made:
        yield made


@pytest.fixture
def begin(server: ForkServer, environment: dict[str, str], tmp_path: Path) -> Callable[..., Any]:
    def begin(*words: str, name: str = "log", start: Any = server.start, **changes: str) -> Any:
        command = [sys.executable, "-P", "-m", "probe", *words]
        return start(command, {**environment, "FLAVOR_RUN": "ä", **changes}, tmp_path / name, str(tmp_path))

    return begin


def test_it_sees_what_it_would_see_if_it_were_started(begin: Callable[..., Any], tmp_path: Path) -> None:
    forked, cold = begin("a b", ""), begin("a b", "", name="cold", start=started)
    assert (type(forked), type(cold)) == (ForkedProcess, subprocess.Popen)
    assert forked.wait(30) == cold.wait(30) == 7
    here, there = json.loads((tmp_path / "log").read_text()), json.loads((tmp_path / "cold").read_text())
    there["seen"]["files"] = {name: file.replace("/cold", "/log") for name, file in there["seen"]["files"].items()}
    assert here["seen"] == there["seen"]


def test_no_two_of_them_have_the_same_random_numbers(begin: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(2):
        assert begin(name=f"{number}").wait(30) == 7
    chances = [json.loads((tmp_path / f"{number}").read_text())["chance"] for number in range(2)]
    assert all(one != other for one, other in zip(*chances, strict=True))


@pytest.mark.parametrize("how", ["return", "0", "None", "3", "300", "-1", "'a text'", "('a', 1)", "raise", "interrupt"])
def test_it_ends_as_it_would_if_it_were_started(begin: Callable[..., Any], tmp_path: Path, how: str) -> None:
    forked = begin("end", how, str(tmp_path / "left")).wait(30)
    cold = begin("end", how, str(tmp_path / "left-cold"), name="cold", start=started).wait(30)
    assert forked == cold
    said, wanted = ((tmp_path / name).read_text().splitlines()[1:] for name in ("log", "cold"))
    if how in ("raise", "interrupt"):  # below another module's frames
        assert said[-2:] == wanted[-2:]
        assert [line for line in said if not line.startswith(" ")] == [
            line for line in wanted if not line.startswith(" ")
        ]
    else:
        assert said == wanted
    assert (tmp_path / "left").read_text() == (tmp_path / "left-cold").read_text() == "not flushed by itself"


def test_its_end_is_seen_as_that_of_a_started_one(begin: Callable[..., Any]) -> None:
    process = begin("sleep")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    os.kill(process.pid, signal.SIGSEGV)
    assert process.wait(30) == process.poll() == -signal.SIGSEGV
    assert not Path(f"/proc/{process.pid}").exists()
    process.terminate()  # it has ended: nothing is sent
    process = begin("sleep")
    process.terminate()
    assert process.wait(30) == -signal.SIGTERM


def test_it_ends_with_the_one_that_started_it(environment: dict[str, str], tmp_path: Path) -> None:
    """Which may be killed, as by a lack of memory: here a process that has a server and one child of it."""
    script = f"""
import os, sys, time
from pathlib import Path
from flavor.local.forked import ForkServer
server = ForkServer(os.environ, programs=["probe"], modules=["probe"])
process = server.start([sys.executable, "-P", "-m", "probe", "sleep"], os.environ, Path({str(tmp_path / "log")!r}), ".")
print(process.pid, server._process.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = parent.stdout.readline().split()
        assert len(pids) == 2
        parent.kill()
    eventually("both are gone", lambda: not any(Path(f"/proc/{int(pid)}").exists() for pid in pids))


def test_when_the_server_is_killed_its_processes_are_and_others_are_started(
    environment: dict[str, str], begin: Callable[..., Any]
) -> None:
    with ForkServer(environment, programs=["probe"], modules=["probe"]) as server:
        process = begin("sleep", start=server.start)
        assert isinstance(process, ForkedProcess)
        server._process.kill()
        assert process.wait(30) == -signal.SIGKILL
        assert isinstance(again := begin(start=server.start), subprocess.Popen)
        assert again.wait(30) == 7


@pytest.mark.parametrize("ready", [False, True])
def test_a_server_that_was_asked_for_nothing_ends_at_once(environment: dict[str, str], ready: bool) -> None:
    """As where a run ends because its options do not go together; its first answer is unread."""
    server = ForkServer(environment, programs=[], modules=["probe"])
    if ready:
        select.select([server._channel], [], [], 30)
    server.close()
    assert server._process.returncode == 0


def test_one_that_is_killed_is_started_again_and_the_group_leaves_none(
    server: ForkServer, environment: dict[str, str], tmp_path: Path
) -> None:
    with ProcessGroup(str(tmp_path), start=server.start) as group:
        group.start("one", "probe", ["sleep"], environment=environment, log=tmp_path / "log")
        first = group.pid("one")
        os.kill(first, signal.SIGKILL)
        eventually("it has ended", lambda: group.exit_code("one") is not None)
        assert group.exit_code("one") == -signal.SIGKILL
        assert group.restart("one", most=1)
        assert group.running == ["one"]
        second = group.pid("one")
    assert second != first
    assert not Path(f"/proc/{second}").exists()


def test_where_an_import_starts_a_thread_processes_are_started(environment: dict[str, str], tmp_path: Path) -> None:
    with ForkServer(environment, programs=["probe"], modules=["probe", "threaded"]) as server:
        command = [sys.executable, "-P", "-m", "probe"]
        process = server.start(command, environment, tmp_path / "log", str(tmp_path))
        assert isinstance(process, subprocess.Popen)
        assert process.wait(30) == 7


@pytest.mark.parametrize("variable", ["PYTHONHASHSEED", "LD_PRELOAD", "OMP_NUM_THREADS", "LANG"])
def test_it_is_started_where_a_variable_may_have_been_read_before(begin: Callable[..., Any], variable: str) -> None:
    process = begin(**{variable: "2" if variable == "OMP_NUM_THREADS" else "0"})
    assert isinstance(process, subprocess.Popen)
    process.wait(30)


def test_it_is_started_where_its_command_is_not_one_of_the_server(server: ForkServer, tmp_path: Path) -> None:
    for words in (["-P", "-m", "json.tool"], ["-m", "probe"], ["-P", "-c", "pass"]):
        assert not server.can_fork([sys.executable, *words], server._environment)
    assert server.can_fork([sys.executable, "-P", "-m", "probe"], server._environment)
    assert not server.can_fork([sys.executable, "-P", "-m", "probe", "x" * 100_000], server._environment)
