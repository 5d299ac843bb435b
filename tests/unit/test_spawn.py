"""What every child process of flavor has from its start."""

from __future__ import annotations

import os
import resource
import select
import subprocess
import sys
from pathlib import Path

import pytest

from flavor.spawn import spawn

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


def test_a_child_has_a_session_of_its_own_and_no_input(tmp_path: Path) -> None:
    first, _ = looked(folder=tmp_path)
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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel ends a child with its parent on Linux")
def test_a_child_ends_with_its_parent() -> None:
    ours, theirs = os.pipe()
    parent = (
        "import os, signal, subprocess, sys\nfrom flavor.spawn import spawn\n"
        f"spawn(['sleep', '60'], stdout=subprocess.DEVNULL, inherited=({theirs},))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    try:
        subprocess.run([sys.executable, "-c", parent], pass_fds=[theirs], check=False)
    finally:
        os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        assert select.select([pipe], [], [], 20.0)[0], "the child lives on"
        assert pipe.read() == b""  # the last process that held the other end has ended
