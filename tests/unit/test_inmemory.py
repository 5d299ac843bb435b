"""Where a session of tests has its files: in memory with room, in a folder that does not outlive it for long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import inmemory
import pytest

GIB = 1 << 30
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


class Machine:
    """The files in which a machine says what memory it has."""

    def __init__(self, folder: Path) -> None:
        self.place, self.proc, self.cgroups = folder / "shm", folder / "proc", folder / "cgroups"
        self.place.mkdir()
        (self.proc / "self").mkdir(parents=True)
        self.says(available=8 * GIB)
        self.group("0::/", "", V2)

    def says(self, available: int, kind: str = "tmpfs") -> None:
        (self.proc / "mounts").write_text(f"none / ext4 rw 0 0\nnone {self.place} {kind} rw 0 0\n")
        (self.proc / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable:  {available // 1024} kB\n")

    def group(self, line: str, path: str, names: tuple[str, str, str], *, most: object = "max", used: int = 0) -> Path:
        """Give the process this cgroup, with a gibibyte of it in files that may be forgotten. Returns its folder."""
        limit, usage, cached = names
        folder = self.cgroups / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit).write_text(f"{most}\n")
        (folder / usage).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\n{cached} {GIB}\n")
        (self.proc / "self" / "cgroup").write_text(f"5:cpu,cpuacct:/x\n{line}\n")
        return folder

    @property
    def has_room(self) -> bool:
        return inmemory.has_room(self.place, self.proc, self.cgroups)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    room = os.statvfs_result((4096, 4096, *([1 << 30] * 6), 0, 255))
    monkeypatch.setattr("inmemory.os.statvfs", lambda place: room)
    return Machine(tmp_path)


def test_a_machine_with_memory_has_room(machine: Machine) -> None:
    assert machine.has_room
    machine.says(available=GIB)
    assert not machine.has_room


def test_a_disk_has_none(machine: Machine) -> None:
    machine.says(available=8 * GIB, kind="ext4")
    assert not machine.has_room


@pytest.mark.parametrize(
    ("line", "path", "names"),
    [
        ("0::/", "", V2),
        ("0::/a/b", "a/b", V2),
        ("0::/a/b", "a", V2),
        ("4:memory:/a/b", "memory/a/b", V1),
        ("4:memory:/docker/of/another/namespace", "memory", V1),
    ],
)
def test_a_limit_of_the_cgroup_or_of_one_above_it_counts(
    machine: Machine, line: str, path: str, names: tuple[str, str, str]
) -> None:
    machine.group(line, path, names, most=4 * GIB, used=3 * GIB)
    assert machine.has_room
    machine.group(line, path, names, most=4 * GIB, used=3 * GIB + 1)
    assert not machine.has_room


def test_where_nothing_is_said_nothing_is_chosen(machine: Machine) -> None:
    (machine.proc / "self" / "cgroup").unlink()
    assert not machine.has_room


CHOOSE = """
import os, sys
os.environ["TMPDIR"] = "elsewhere"
import inmemory
from pathlib import Path
del os.environ["TMPDIR"]
inmemory.has_room = lambda place: True
inmemory.choose(Path(sys.argv[1]))
Path(os.environ["TMPDIR"], "file").touch()
print(os.environ["TMPDIR"], oct(os.stat(os.environ["TMPDIR"]).st_mode & 0o777), flush=True)
if os.fork() == 0: sys.exit()
os.wait()
assert Path(os.environ["TMPDIR"], "file").exists()
"""


def session(place: Path, end: str = "") -> Path:
    """The folder of a session that has ended."""
    done = subprocess.run(
        [sys.executable, "-c", CHOOSE + end, str(place)],
        env={**os.environ, "PYTHONPATH": str(Path(inmemory.__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert not done.stderr
    folder, mode = done.stdout.split()
    assert mode == "0o711"
    return Path(folder)


def test_a_session_removes_its_folder(tmp_path: Path) -> None:
    assert not session(tmp_path).exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", ["inmemory.keep()", "os.kill(os.getpid(), 9)"])
def test_the_next_session_removes_what_a_failed_or_killed_one_has_left(tmp_path: Path, end: str) -> None:
    lives = tmp_path / f"flavor-tests-{os.getuid()}-{os.getpid()}"
    other = tmp_path / "flavor-tests-of-somebody"
    lives.mkdir()
    other.mkdir()
    left = session(tmp_path, end)
    assert (left / "file").exists()
    session(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([lives, other])
