"""A program that a shell finds in its PATH prints, ends and hears signals as one that is started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from pages import prepared
from warm import SESSION, STARTER

from flavor.local.forked import ForkServer

pytestmark = pytest.mark.skipif(not ForkServer.is_possible(), reason="all programs are started")
SERVE = ["flavor", "serve", "--run", "r", "--store", "store", "--rounds", "1", "--min-clients", "1"]


@pytest.fixture(autouse=True)
def warm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLAVOR_TEST_COLD", raising=False)


@pytest.mark.parametrize(
    "text",
    [
        "flavor --version | tr a-z A-Z",
        "flavor no-such; echo $?",
        "cd sub; flavor event set TrainInitDone > out; echo $?; cat out",
        "flavor status r --json 2> /dev/null || flavor-fl --help >&2",
        "echo '{}' | flavor info save -; echo $?",
        'umask 077; OUTPUT_PATH=. LC_ALL=C python -c \'import os; open("x", "w"); print(oct(os.stat("x").st_mode))\'',
    ],
)
def test_it_does_what_it_does_when_it_is_started(tmp_path: Path, text: str) -> None:
    def ended(name: str, **options: None) -> tuple[int, str, str]:
        folder = tmp_path / name
        (folder / "sub").mkdir(parents=True)
        environment = prepared(folder, **options)
        done = subprocess.run(
            ["bash", "-c", text], env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr.replace(str(folder), "")

    assert ended("warm") == ended("cold", starter=None)


def as_at_the_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what libraries have set in this process since it started: a program with such a variable starts cold."""
    own = {name: value for name, value in environment.items() if os.environ.get(name) != value}
    kept = {name: value for name, value in SESSION.items() if name in environment}
    return kept | own | {"OMP_NUM_THREADS": "1"}  # as tests/conftest.py sets it


@pytest.fixture
def serve(tmp_path: Path) -> subprocess.Popen[str]:
    """A program that waits for a server, its client, and its pipe."""
    environment = as_at_the_start(prepared(tmp_path)) | {"FLAVOR_REDIS_URL": "redis://u:p@127.0.0.1:1"}
    process = subprocess.Popen(SERVE, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any("trying for" in line for line in process.stderr)
    assert "warmclient.py" in Path(f"/proc/{process.pid}/cmdline").read_text()
    return process


def test_signals_reach_it_and_its_end_is_seen(serve: subprocess.Popen[str]) -> None:
    with serve:
        serve.send_signal(signal.SIGTERM)
        assert serve.stderr is not None
        assert "flavor: terminated" in serve.stderr.read()
    assert serve.returncode == 143


def test_it_is_killed_with_the_process_that_stands_for_it(serve: subprocess.Popen[str]) -> None:
    with serve:
        serve.kill()
        assert serve.stderr is not None
        serve.stderr.read()  # to its end: the program holds the pipe until then
    assert serve.returncode == -signal.SIGKILL


def test_clients_do_not_wait_for_each_other(tmp_path: Path, serve: subprocess.Popen[str]) -> None:
    """One that asks for nothing, one whose program runs, and five at a time."""
    (tmp_path / "other").mkdir()
    environment = prepared(tmp_path / "other")
    silent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with serve, silent, contextlib.ExitStack() as stack:
        stack.callback(serve.kill)
        silent.connect(STARTER.shims)
        command = "for _ in 1 2 3 4 5; do flavor --version & done; wait"
        done = subprocess.run(
            ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=30, check=True
        )
        assert len({*done.stdout.splitlines()}) == 1
        assert len(done.stdout.splitlines()) == 5
        assert serve.poll() is None
        serve.terminate()
        assert serve.wait(30) == 143
