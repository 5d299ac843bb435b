"""What every child process of flavor has from its start."""

from __future__ import annotations

import os
import resource
import select
import subprocess
import sys
from pathlib import Path

import pytest

from flavor.parent_death import bound_by_programs
from flavor.spawn import spawn

without_programs = pytest.mark.skipif(not bound_by_programs(), reason="no setpriv that binds a program to its parent")
LOOK = """
import os, resource, stat, sys
umask = os.umask(0)
os.umask(umask)
print(os.getsid(0) == os.getpid(), os.getcwd(), sys.stdin.read() == "", oct(umask))
print(resource.getrlimit(resource.RLIMIT_FSIZE)[0], sorted(map(int, os.listdir("/proc/self/fd"))))
"""


def looked(**options: object) -> list[str]:
    process = spawn([sys.executable, "-c", LOOK], stdout=subprocess.PIPE, **options)  # type: ignore[arg-type]
    out, _ = process.communicate()
    assert process.returncode == 0, out
    return out.decode().splitlines()


@pytest.mark.parametrize("again", [False, True])
def test_a_child_has_a_session_of_its_own_and_no_input(tmp_path: Path, again: bool) -> None:
    first, _ = looked(folder=tmp_path, again=again)
    assert first.split()[:3] == ["True", str(tmp_path), "True"]


def test_a_child_has_the_limits_the_umask_and_the_descriptors_that_it_was_given() -> None:
    ours, theirs = os.pipe()
    try:
        first, second = looked(
            limits=[(resource.RLIMIT_FSIZE, (4096, 8192))], umask=0o027, inherited=(theirs,), environment={"A": "1"}
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert first.split()[3] == "0o27"
    assert second.split()[0] == "4096"
    descriptors = second.partition(" ")[2]
    assert str(theirs) in descriptors
    assert str(ours) not in descriptors


@without_programs
def test_a_command_that_is_started_again_needs_no_fork_and_is_the_same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe()
    show = (
        "import os, sys; print(os.getpid(), os.getcwd(), dict(os.environ), sys.argv[1:], os.listdir('/proc/self/fd'))"
    )
    environment = {"LC_ALL": "C.UTF-8", "odd.name": "a=b"}
    started: dict[str, object] = {}
    monkeypatch.setattr(subprocess, "Popen", _noting(started))
    command = [sys.executable, "-I", "-c", show, "A=b", "-C", "--"]
    process = spawn(command, stdout=subprocess.PIPE, environment=environment, inherited=(theirs,), again=True)
    try:
        out = process.communicate()[0].decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert started["preexec_fn"] is None  # else Python forks
    assert out.startswith(f"{process.pid} {Path.cwd()} {environment} ['A=b', '-C', '--'] "), out
    assert f"'{theirs}'" in out
    assert f"'{ours}'" not in out


def _noting(noted: dict[str, object]) -> object:
    popen = subprocess.Popen

    def start(*words: object, **options: object) -> object:
        noted.update(options)
        return popen(*words, **options)  # type: ignore[call-overload]

    return start


def test_a_command_that_is_started_again_keeps_its_limits() -> None:
    _, second = looked(limits=[(resource.RLIMIT_FSIZE, (4096, 8192))], again=True)
    assert second.split()[0] == "4096"


@without_programs
def test_a_program_that_is_gone_when_it_is_started_again_ends_with_127(tmp_path: Path) -> None:
    process = spawn([str(tmp_path / "gone")], stdout=subprocess.PIPE, again=True)
    assert b"No such file" in process.communicate()[0]
    assert process.returncode == 127


@without_programs
def test_a_program_does_not_run_whose_parent_has_died_before_it_was_bound() -> None:
    ask = "from flavor.parent_death import bound_by_programs; print(*bound_by_programs())"
    words = subprocess.run([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    done = subprocess.run([*words, "echo", "it ran"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (125, ""), done.stderr


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel ends a child with its parent on Linux")
def test_a_child_ends_with_its_parent(again: bool) -> None:
    ours, theirs = os.pipe()
    parent = (
        "import os, signal, subprocess, sys\nfrom flavor.spawn import spawn\n"
        f"spawn(['sleep', '60'], stdout=subprocess.DEVNULL, inherited=({theirs},), again={again})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    try:
        subprocess.run([sys.executable, "-c", parent], pass_fds=[theirs], check=False)
    finally:
        os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        assert select.select([pipe], [], [], 20.0)[0], "the child lives on"
        assert pipe.read() == b""  # the last process that held the other end has ended
