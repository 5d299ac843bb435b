"""What all tests share: real servers, real processes, and ways to wait for them that end."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import inmemory  # before others keep the environment
import owncache  # noqa: F401 - as that one
import pytest
from buckets import S3
from hypothesis import settings
from mlflowserver import mlflow_server
from order import ordered
from pytestfork import fork_workers
from summary import Summary
from warm import SESSION, STARTER, Starter, have_nursery, nursery_of_session, starter_with
from warmscripts import ScriptServers, possible

import flavor
import flavor.programs.process
from flavor.bus.connection import Redis, connect
from flavor.bus.embedded import embedded_server
from flavor.bus.runs import RunStore
from flavor.stamp import without_times
from tests import starts
from tests.polled import DEADLINE_S, PAUSE_S, eventually

TAG = "FLAVOR_TEST_TAG"
MODULES = {
    "flavor": "flavor.cli.main",
    "flavor-fl": "flavor.cli.flavor_fl",
    "flavor-fv": "flavor.cli.flavor_fv",
    "flavor-agg": "flavor.cli.flavor_agg",
    "aumai-fedtrain": "aumai_fedtrain.cli",
}
TRAINER = Path(__file__).parent / "integration" / "toy_trainer.py"
UNPLOTTED = Path(__file__).parent / "unplotted"
"""A `matplotlib` that is not there, as without the extra `plot`: to import it takes as long as a whole local run."""
ONE_THREAD = "1"
_GARBAGE = 20_000
"""So many objects more are there before garbage is looked for, in a process of pytest: it has ten times as many as the
700 of the interpreter allow for, and hypothesis is told of each time."""
PLOTTED = ("matplotlib.backends.backend_agg", "matplotlib.figure")
"""What a run that is drawn imports."""
os.environ.setdefault(
    "OMP_NUM_THREADS", ONE_THREAD
)  # of examples, too: the threads of several tests at a time spin on two cores
settings.register_profile("flavor", deadline=None)  # no test asserts speed: eight run at a time
settings.load_profile("flavor")


def pytest_configure(config: pytest.Config) -> None:
    """Say where many tests stand in few lines, in the process that has the terminal."""
    if not hasattr(config, "workerinput"):
        fork_workers(config)
        config.option.basetemp = config.option.basetemp or inmemory.for_tests()
        config.pluginmanager.register(Summary(config))
        return
    starts.count_at(config.workerinput["starts"])
    if nursery := config.workerinput.get("nursery"):
        have_nursery(nursery)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Have the workers of pytest-xdist share the process that imports what they start, and count what they start."""
    node.workerinput["starts"] = starts.place()
    if possible():
        node.workerinput["nursery"] = nursery_of_session()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests into the order for this session's processes."""
    items[:] = ordered(items, getattr(config, "workerinput", {}).get("workercount", 1))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests without collections of garbage, which take a quarter of the time and find next to nothing.

    What was imported for them is left out of every later one.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(_GARBAGE)
        gc.enable()


def pytest_runtest_setup() -> None:
    """Begin each test where the session began, whatever tests before it in this process have set.

    Libraries leave variables in the environment where they are imported (scikit-learn, torch, MLflow), and each program
    that a later test starts would have them, and would start cold (`tests/warm.py`). A command that was called in this
    process, and not in one of its own, leaves the stamps of its lines turned on.
    """
    for name in [*os.environ]:
        if name not in SESSION and not name.startswith("PYTEST_"):
            del os.environ[name]
    os.environ.update({name: value for name, value in SESSION.items() if not name.startswith("PYTEST_")})
    os.environ.setdefault("OMP_NUM_THREADS", ONE_THREAD)
    without_times()


# Children inherit signals that are ignored: SIGINT in a job in a script's background, SIGHUP under nohup.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Process:
    """A command of ours that runs: its output as it comes, its end by a deadline."""

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, starter: Starter = STARTER
    ) -> None:
        self._changed = threading.Condition()
        self._text = {"stdout": "", "stderr": ""}
        self._popen = starter.popen(command, env=env, cwd=cwd)
        self._pumps = [threading.Thread(target=self._pump, args=(name,), daemon=True) for name in ("stdout", "stderr")]
        for pump in self._pumps:
            pump.start()

    def _pump(self, name: str) -> None:
        with getattr(self._popen, name) as pipe:
            while data := os.read(pipe.fileno(), 65536):
                with self._changed:
                    self._text[name] += data.decode(errors="replace")
                    self._changed.notify_all()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def stdout(self) -> str:
        with self._changed:
            return self._text["stdout"]

    @property
    def stderr(self) -> str:
        with self._changed:
            return self._text["stderr"]

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def until(self, text: str, *, stream: str = "stderr", timeout_s: float = DEADLINE_S) -> None:
        """Wait until the process has printed `text`."""
        with self._changed:
            assert self._changed.wait_for(lambda: text in self._text[stream], timeout_s), (
                f"{text!r} never came; there is {self._text}"
            )

    def send(self, number: signal.Signals) -> None:
        if number in (signal.SIGSTOP, signal.SIGCONT):  # which nothing passes on: to an aggregator's two processes
            os.killpg(self.pid, number)
        else:
            self._popen.send_signal(number)

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """The exit code; fails the test when the process has not ended in time."""
        try:
            code = self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.end()
            pytest.fail(f"still running after {timeout_s} s; there is {self._text}")
        for pump in self._pumps:
            pump.join(5.0)
        return code

    def end(self) -> None:
        if self.running:
            self._popen.kill()
            self._popen.wait()


class Bench:
    """One test's place: a folder, a server, a run's name, and the processes that the test starts."""

    def __init__(self, url: str, folder: Path, run: str = "") -> None:
        self.url, self.folder = url, folder
        self.run = run or f"t-{uuid.uuid4().hex[:8]}"
        self.tag = uuid.uuid4().hex
        self.store = folder / "store"
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        self._older = set(os.listdir("/proc"))
        self.handed_in = folder / "handed-in"  # the journal of all edges
        self.redis: Redis = connect(url)
        self.runs = RunStore(self.redis, self.run, url)
        self._processes: list[Process] = []

    @property
    def env(self) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("FLAVOR_")}
        for variable in ("INPUT_PATH", "OUTPUT_PATH", "LOCAL_MODEL_PATH", "GLOBAL_MODEL_PATH", "LOG_PATH"):
            env.pop(variable, None)
        here = str(Path(flavor.__file__).parents[1])  # processes run what this process has imported
        env |= {TAG: self.tag, "FLAVOR_REDIS_URL": self.url, "OMP_NUM_THREADS": "1", "PYTHONPATH": here}
        env["XDG_CONFIG_HOME"] = str(self.folder / "config")  # where keys lie by default
        return env | {"FLAVOR_JOURNAL": str(self.handed_in)}

    # -- processes

    def start(
        self,
        program: str,
        *arguments: object,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        under: Sequence[str] = (),
        plotted: bool = False,
        libraries: Sequence[str] = (),
    ) -> Process:
        """Start one of our programs; -P, as a console script has no current folder on its path either.

        `under` is a command that runs it, such as `ip netns exec NAME`. A run draws its metrics if `plotted`. It, and
        scripts that it starts, may have `libraries` imported.
        """
        merged: dict[str, str | None] = {**self.env, **(env or {})}
        if plotted:
            libraries = (*libraries, *PLOTTED)
        elif arguments[:1] in (("run",), ("serve",)) and (path := merged.get("PYTHONPATH")):
            merged["PYTHONPATH"] = os.pathsep.join([str(UNPLOTTED), path])
        command = [*under, sys.executable, "-P", "-m", MODULES[program], *map(str, arguments)]
        process = Process(
            command,
            env={name: value for name, value in merged.items() if value is not None},
            cwd=cwd or self.work,
            starter=starter_with(*libraries),
        )
        self._processes.append(process)
        return process

    def done(self, program: str, *arguments: object, timeout_s: float = DEADLINE_S, **options) -> Process:
        """Run a command to its end."""
        process = self.start(program, *arguments, **options)
        process.wait(timeout_s)
        return process

    def python(self, script: Path, *arguments: object, cwd: Path) -> Process:
        """Start a script of Python."""
        process = Process([sys.executable, str(script), *map(str, arguments)], env=self.env, cwd=cwd)
        self._processes.append(process)
        return process

    def trainer(self, *flags: object) -> str:
        """The command line of the toy trainer."""
        return " ".join([sys.executable, str(TRAINER), *map(str, flags)])

    def serve(self, *options: object, rounds: int = 3, clients: int = 2, **how: Any) -> Process:
        words = ["--run", self.run, "--store", self.store, "--rounds", rounds, "--min-clients", clients]
        words += ["--queue", self.run, "--on-quorum-lost", "fail"]  # unless the options say otherwise
        return self.start("flavor", "serve", *words, *options, **how)

    def aggregator(self, *options: object, env: Mapping[str, str | None] | None = None) -> Process:
        return self.start("flavor-agg", "--queue", self.run, "--store", self.store, *options, env=env)

    def edge(
        self,
        client: str,
        command: str,
        *options: object,
        env: Mapping[str, str | None] | None = None,
        under: Sequence[str] = (),
    ) -> Process:
        words = ["--run", self.run, "--client", client, "-m", command, "--workspace", self.folder / client]
        named = {"FLAVOR_STORE": str(self.store), **(env or {})}  # a folder needs the site's own word
        return self.start("flavor-fl", *words, *options, env=named, under=under)

    def survivors(self) -> dict[int, str]:
        """Every live process that this bench or a descendant of its processes started."""
        found, mark = {}, f"{TAG}={self.tag}".encode()
        for name in os.listdir("/proc"):  # plain calls, and only what is younger: each test looks
            if not name.isdigit() or name in self._older:
                continue
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                if mark in _read(f"/proc/{name}/environ"):
                    found[int(name)] = _read(f"/proc/{name}/cmdline").replace(b"\0", b" ").decode()
        return {pid: command for pid, command in found.items() if command}

    # -- waiting

    def eventually(
        self, what: str, look: Callable[[], object], timeout_s: float = DEADLINE_S, *, pause_s: float = PAUSE_S
    ) -> object:
        """Look again and again until `look()` is truthy; for what nothing announces.

        Where a look starts a process, `START_PAUSE_S` is long enough a pause.
        """
        return eventually(what, look, timeout_s, pause_s=pause_s)

    def log(self) -> list[dict[str, str]]:
        """The run's log."""
        return [fields for _, fields in self.redis.xrange(self.runs.keys.log)]

    def logged(
        self, event: str, timeout_s: float = DEADLINE_S, *, saying: str = "", **fields: object
    ) -> dict[str, str]:
        """Wait for an entry of the run's log, whose reason has these words."""
        deadline = time.monotonic() + timeout_s
        newest = "0"
        while (left_s := deadline - time.monotonic()) > 0:
            batches = self.redis.xread({self.runs.keys.log: newest}, block=max(1, int(left_s * 1000)))
            for identity, entry in batches[0][1] if batches else []:
                newest = identity
                is_it = entry["event"] == event and all(entry.get(k) == str(v) for k, v in fields.items())
                if is_it and saying in entry.get("reason", ""):
                    return entry
        pytest.fail(f"{event} {fields} was not logged within {timeout_s} s; the log is {self.log()}")

    def held(self, client: str, timeout_s: float = DEADLINE_S) -> None:
        """Wait until a trainer with --hold stands still."""
        assert self.redis.blpop([f"test:{self.run}:{client}:here"], timeout=timeout_s), f"{client} never held"

    def release(self, *clients: str) -> None:
        """Let held trainers go on."""
        for client in clients:
            self.redis.rpush(f"test:{self.run}:{client}:go", "1")

    def close(self) -> None:
        for process in self._processes:
            process.end()
        for pid in self.survivors():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.redis.close()


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a real Valkey server of this test session; runs keep apart by their names."""
    with embedded_server() as url:
        yield url


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """That of a server which the tests of one module have for themselves, and may empty."""
    with embedded_server() as address:
        yield address


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 service of this test session; tests keep apart by their buckets."""
    service = S3()
    yield service
    service.close()


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an MLflow server of this test session, which starts for seconds; tests keep apart by experiments."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow") / "server") as url:
        yield url


@pytest.fixture(scope="session")
def script_servers() -> Iterator[ScriptServers]:
    """Fork Python scripts in this test session."""
    servers = ScriptServers()
    yield servers
    servers.close()


@pytest.fixture
def warm_scripts(script_servers: ScriptServers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process fork the scripts that it starts for a user."""
    if possible():
        monkeypatch.setattr(flavor.programs.process, "spawn", script_servers.spawn)


@pytest.fixture(scope="session")
def bench_class() -> type[Bench]:
    """For fixtures that outlive a test."""
    return Bench


@pytest.fixture
def bench_at(tmp_path: Path) -> Iterator[Callable[[str], Bench]]:
    """For tests with a server of their own."""
    places: list[Bench] = []

    def make(url: str, run: str = "") -> Bench:
        folder = tmp_path / (f"bench-{len(places) + 1}" if places else "bench")
        places.append(Bench(url, folder, run))
        return places[-1]

    yield make
    for place in places:
        place.close()


@pytest.fixture
def bench(server: str, tmp_path: Path) -> Iterator[Bench]:
    place = Bench(server, tmp_path)
    try:
        yield place
    finally:
        place.close()


@pytest.fixture(scope="module")
def shared_bench(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """For tests that look at one run from many sides."""
    place = Bench(server, tmp_path_factory.mktemp("shared"))
    try:
        yield place
    finally:
        place.close()
