"""A program that is started warm is what it would be if it were started cold."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from warm import Starter
from warmscripts import libraries_of

from flavor.local.forked import ForkedProcess
from tests import nursery
from tests.conftest import Bench
from tests.faults.networks import Network, why_not

ROOT = Path(__file__).parents[2]
EDGE = [sys.executable, "-P", "-m", "flavor.cli.flavor_fl"]
FLAVOR = [sys.executable, "-P", "-m", "flavor.cli.main"]
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="all programs start cold")


@pytest.fixture(scope="module")
def starter() -> Iterator[Starter]:
    made = Starter()
    yield made
    made.close()


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.delenv("FLAVOR_TEST_COLD", raising=False)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLAVOR_")}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FLAVOR_REDIS_URL": f"unix://{tmp_path}/absent"}


def ended(process) -> tuple[int, bytes, bytes]:
    with process.stdout as out, process.stderr as err:
        return process.wait(30), out.read(), err.read()


def timeless(end: tuple[int, bytes, bytes]) -> tuple[int, bytes, bytes]:
    code, out, err = end
    return code, out, re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", b"TIME", err)


@pytest.mark.parametrize(
    "command",
    [
        [*FLAVOR, "status", "run-1", "--patience-s", "0"],
        [*FLAVOR, "--version"],
        [*FLAVOR, "no-such"],
        [*EDGE, "--help"],
        [*EDGE, "-m", "true", "--run", "r", "--client", "c", "--insecure", "--redis-url", "redis://u:p@a.example:1"],
    ],
)
def test_it_says_what_it_says_when_it_is_started_cold(
    starter: Starter, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    if "--redis-url" in command:
        command = [*command[:-1], "redis://u:p@127.0.0.1:1", "--patience-s", "0"]
    warm = starter.popen(command, env=env, cwd=tmp_path)
    monkeypatch.setenv("FLAVOR_TEST_COLD", "1")
    cold = starter.popen(command, env=env, cwd=tmp_path)
    assert isinstance(warm, ForkedProcess)
    assert isinstance(cold, subprocess.Popen)
    assert timeless(ended(warm)) == timeless(ended(cold))


def test_it_is_a_process_of_its_own_that_shows_what_it_was_started_with(
    starter: Starter, env: dict[str, str], tmp_path: Path
) -> None:
    env |= {"FLAVOR_STORE": str(tmp_path / "ä"), "FLAVOR_RUN": "r"}  # it waits for its Redis
    command = [*EDGE, "-m", "true", "--client", "c1", "--workspace", str(tmp_path)]
    process = starter.popen(command, env=env, cwd=tmp_path)
    assert isinstance(process, ForkedProcess)
    place = Path(f"/proc/{process.pid}")
    assert process.poll() is None
    assert words(place / "cmdline") == command
    assert dict(word.partition("=")[::2] for word in words(place / "environ")) == env
    assert (place / "cwd").resolve() == tmp_path
    assert os.getsid(process.pid) == os.getpgid(process.pid) == process.pid
    mine = {os.readlink(handle) for handle in Path("/proc/self/fd").iterdir() if os.path.lexists(handle)}
    theirs = {os.readlink(handle) for handle in (place / "fd").iterdir() if handle.name not in ("1", "2")}
    assert {name for name in mine & theirs if name.startswith(("socket", "pipe"))} == set()
    os.kill(process.pid, signal.SIGKILL)
    assert ended(process)[0] == process.poll() == -signal.SIGKILL
    assert not place.exists()


def words(path: Path) -> list[str]:
    return path.read_bytes().rstrip(b"\0").decode().split("\0")


@pytest.mark.skipif(
    tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (6, 1)
    or not Path("/sys/kernel/mm/transparent_hugepage").is_dir(),
    reason="the kernel cannot put pages together",
)
def test_what_programs_share_lies_in_huge_pages(starter: Starter, env: dict[str, str], tmp_path: Path) -> None:
    process = starter.popen([*EDGE, "-m", "true", "--run", "r", "--client", "c"], env=env, cwd=tmp_path)
    sizes = Path(f"/proc/{parent(process.pid)}/smaps_rollup").read_text()
    process.kill()
    ended(process)
    assert int(re.findall(r"^AnonHugePages: +(\d+) kB$", sizes, re.MULTILINE)[0]) > 0


def test_no_program_has_the_memory_of_a_large_library(starter: Starter, env: dict[str, str], tmp_path: Path) -> None:
    process = starter.popen([*EDGE, "-m", "true", "--run", "r", "--client", "c"], env=env, cwd=tmp_path)
    assert "torch" not in Path(f"/proc/{process.pid}/maps").read_text()
    process.kill()
    ended(process)


@pytest.mark.parametrize("name", nursery.LARGE)
def test_one_that_each_program_would_import_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(nursery.sys, "modules", {name: nursery})
    assert nursery._large().startswith(f"a module of IMPORTED imports {name}: ")


def test_in_a_network_namespace_it_is_forked_and_its_script_is_inside(bench: Bench) -> None:
    if why := why_not():
        pytest.skip(why)
    with contextlib.closing(network := Network()):
        inside = Path("/run/netns", network.hub).stat().st_ino
        script = (
            "import os, signal; names = [n for n in os.environ if 'NET' in n]; "
            "print('inside', os.stat('/proc/self/ns/net').st_ino, *names, flush=True); signal.pause()"
        )
        trainer = shlex.join([sys.executable, "-c", script])
        assert Path("/proc/self/ns/net").stat().st_ino != inside
        bench.serve()
        edge = bench.edge("c1", trainer, under=network.under)
        assert isinstance(edge._popen, ForkedProcess)
        edge.until("inside", stream="stdout")
        assert f"inside {inside}\n" in edge.stdout
        assert Path(f"/proc/{edge.pid}/ns/net").stat().st_ino == inside
    assert bench.edge("c2", trainer, under=network.under).wait() != 0, "it is gone"


def test_what_its_modules_read_of_the_environment_is_its_own(
    starter: Starter, env: dict[str, str], tmp_path: Path, server: str
) -> None:
    serve = [*FLAVOR, "serve", "--run", tmp_path.name, "--store", str(tmp_path / "store")]
    serve += ["--rounds", "1", "--min-clients", "1"]
    armed = env | {"FLAVOR_REDIS_URL": server, "FLAVOR_FAILPOINT": "coordinator.created"}
    process = starter.popen(serve, env=armed, cwd=tmp_path)
    assert isinstance(process, ForkedProcess)
    assert ended(process)[0] == -signal.SIGKILL


@pytest.mark.parametrize("cold", ["", "1"])
def test_a_secret_is_neither_on_its_command_line_nor_lost(bench: Bench, cold: str) -> None:
    bench.redis.acl_setuser("tester", enabled=True, passwords=["+pass-1"], keys="*", channels="*", commands=["+@all"])
    url = bench.url.replace("unix://", "unix://tester:pass-1@")
    words = ["--run", bench.run, "--client", "c1", "-m", "true", "--redis-url", url]
    edge = bench.start("flavor-fl", *words, env={"FLAVOR_TEST_COLD": cold, "FLAVOR_REDIS_URL": None})
    assert isinstance(edge._popen, subprocess.Popen if cold else ForkedProcess)
    edge.until("there is none of this name")
    shown, environment = (
        Path(f"/proc/{edge.pid}/{name}").read_bytes().rstrip(b"\0") for name in ("cmdline", "environ")
    )
    assert shown.split(b"\0") == [word.encode() for word in [*EDGE, *words[:-2]]]
    assert f"FLAVOR_REDIS_URL={url}".encode() in environment.split(b"\0")


@pytest.mark.usefixtures("env")
def test_where_nothing_can_be_forked_the_reason_is_told() -> None:
    starter = Starter("no_such_library")
    with pytest.raises(AssertionError, match="No module named 'no_such_library'"):
        _ = starter.shims
    starter.close()


def test_a_script_is_forked_from_a_process_that_has_imported_its_libraries() -> None:
    assert libraries_of("import json, torch\n\ndef main():\n    from sklearn.datasets import load_digits\n") == (
        "torch._dynamo",
        "sklearn.datasets",
    )
    assert libraries_of("import torchy\n# import torch\nsklearn = 'from sklearn'\n") == ()


def test_the_processes_of_a_local_run_are_warm_as_well_and_end_with_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLAVOR_TEST_COLD", raising=False)
    words = ["run", "-m", bench.trainer("--hold", "--at", 1), "--edges", 1, "--rounds", 1, "--run", bench.run]
    process = bench.start("flavor", *words, "--out", bench.folder / "out")
    bench.held("edge-1")
    (edge,) = (pid for pid, command in bench.survivors().items() if "-P -m flavor.cli.flavor_fl" in command)
    assert parent(parent(edge)) == process.pid
    assert os.getpgid(edge) == edge
    assert "[edge-1] flavor: joined" in (bench.folder / "out" / "logs" / "edge-1.log").read_text()
    process.send(signal.SIGKILL)
    process.wait()
    bench.eventually("no process left", lambda: not bench.survivors())


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize(
    ("changes", "program"),
    [
        ({"PYTHONWARNINGS": "ignore"}, "flavor.cli.flavor_fl"),
        ({"LD_PRELOAD": ""}, "flavor.cli.flavor_fl"),
        ({"OMP_NUM_THREADS": "2"}, "flavor.cli.flavor_fl"),
        ({"PYTHONPATH": "elsewhere"}, "flavor.cli.flavor_fl"),
        ({"LANG": "xx"}, "flavor.cli.flavor_fl"),
        ({}, "flavor.cli.start"),
        ({}, "json.tool"),
    ],
)
def test_it_is_started_cold_where_that_may_make_a_difference(
    starter: Starter, env: dict[str, str], tmp_path: Path, changes: Mapping[str, str], program: str
) -> None:
    process = starter.popen([sys.executable, "-P", "-m", program, "--version"], env=env | changes, cwd=tmp_path)
    assert isinstance(process, subprocess.Popen)
    ended(process)


def test_no_module_reads_the_environment_when_it_is_imported() -> None:
    found = set()
    for package in ("flavor", "workers", "aggregators", "aumai_fedtrain"):
        for path in (ROOT / package).rglob("*.py"):
            if any(reads_environment(node) for node in executed(ast.parse(path.read_text()))):
                found.add(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert found == set()


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """What of a module is executed when it is imported: not the bodies of its functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and child in ast.walk(
            ast.Module(node.body if isinstance(node.body, list) else [ast.Expr(node.body)], [])
        ):
            continue
        yield child
        yield from executed(child)


def reads_environment(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "home", "cwd", "expanduser")


SHOW = """\
import json, os, resource, sys
names = ("__file__", "__name__")
print(json.dumps({
    "argv": sys.argv, "path": sys.path[0], "names": [globals()[name] for name in names],
    "words": open("/proc/self/cmdline").read().rstrip("\\0").split("\\0"),
    "environment": {k: v for k, v in os.environ.items() if k not in ("FLAVOR_TEST_COLD", "FLAVOR_EDGE")},
    "cwd": os.getcwd(), "alone": os.getsid(0) == os.getpgrp() == os.getpid(), "unbuffered": sys.stdout.write_through,
    "handles": sorted(map(int, os.listdir("/proc/self/fd")))[:3], "stdin": os.readlink("/proc/self/fd/0"),
    "core": resource.getrlimit(resource.RLIMIT_CORE), "umask": os.umask(0),
}))
print(os.getppid(), "flavor.edge.agent" in sys.modules)
raise ValueError("what it says at its end")
"""


def test_the_script_of_an_edge_is_forked_and_is_what_it_would_be(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLAVOR_TEST_COLD", raising=False)
    bench.serve("--on-quorum-lost", "wait").until("waiting: 0 of")
    (script := bench.work / "show.py").write_text(SHOW)
    said, ends = [], []
    for cold in (False, True):
        edge = bench.edge("c1", f"python {script} --some word", env={"FLAVOR_TEST_COLD": "1"} if cold else None)
        assert edge.wait() == 5, edge.stderr
        shown, (parent_, forked) = (line.removeprefix("[c1] ").split() for line in edge.stdout.splitlines()[:2])
        assert (int(parent_), forked == "True") == (edge.pid, not cold)
        said.append(json.loads(" ".join(shown)))
        ends.append(edge.stdout.splitlines()[2:])
    assert said[0] == said[1]
    assert ends[0] == ends[1]
    assert ends[0][-1] == "[c1] ValueError: what it says at its end"


def test_the_script_of_an_edge_ends_with_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLAVOR_TEST_COLD", raising=False)
    bench.serve().until("waiting: 0 of")
    (script := bench.work / "pause.py").write_text(
        "import signal, sys\nprint('redis' in sys.modules)\nsignal.pause()\n"
    )
    edge = bench.edge("c1", f"{sys.executable} {script}")
    edge.until("[c1] True", stream="stdout")
    assert [command for command in bench.survivors().values() if command.split()[-2:] == [sys.executable, str(script)]]
    edge.send(signal.SIGKILL)
    edge.wait()
    bench.eventually("no script", lambda: not [text for text in bench.survivors().values() if str(script) in text])


def test_what_a_library_leaves_in_the_environment_is_gone_before_the_next_test(request: pytest.FixtureRequest) -> None:
    os.environ["A_LIBRARYS_OWN"] = "word"
    request.config.hook.pytest_runtest_setup(item=request.node)
    assert "A_LIBRARYS_OWN" not in os.environ
    assert os.environ["OMP_NUM_THREADS"]


def test_the_end_of_a_forked_process_leaves_what_an_import_has_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weakref.finalize, "_registry", {})
    of_import = weakref.finalize(object, print)
    nursery._leave_at_the_end()
    assert not of_import.atexit
    assert weakref.finalize(object, print).atexit, "a program's own"
