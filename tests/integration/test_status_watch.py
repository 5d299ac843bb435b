"""`flavor status --watch` on a terminal, with a real Redis that goes away and comes back."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.text import Text
from warm import STARTER

from flavor.bus.connection import connect
from flavor.bus.embedded import embedded_server
from flavor.bus.runs import RunStore
from flavor.cli.opened_run import OpenedRun
from flavor.cli.status import status
from flavor.cli.status_frame import run_frame
from flavor.cli.status_watch import watch_run
from flavor.config import RunConfig
from flavor.local.record import own_server
from flavor.records.states import RunState
from flavor.records.verdict import Verdict
from flavor.store.local import LocalStore
from tests.driven import Driven
from tests.nursery import HERE
from tests.recorded import accepted
from tests.warmshim import as_shim

TOKEN = "coordinator"
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_ALTERNATE_ENDS = "\x1b[?1049l"


class Terminal:
    """A command of flavor on a terminal of its own, forked where that is possible."""

    def __init__(self, *words: str, columns: int = 100, lines: int = 30) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        env = {**os.environ, "PYTHONPATH": HERE, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
        env = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}
        command = as_shim(STARTER.shims, "-P", "-m", "flavor.cli.main", *words)
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env)
        os.close(slave)
        self._text, self._changed = "", threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(self._master, 65536):
                with self._changed:
                    self._text += data.decode(errors="replace")
                    self._changed.notify_all()

    @property
    def text(self) -> str:
        return self._text

    def until(self, shown: str) -> None:
        """Wait until the newest drawing has this text."""
        with self._changed:
            assert self._changed.wait_for(lambda: shown in self.screen(), 30.0), (shown, self._text[-4000:])

    def screen(self) -> str:
        """The newest complete drawing, without colours."""
        drawings = self._text.split("\x1b[H")
        return _ESCAPE.sub("", drawings[-2] if len(drawings) > 2 else drawings[-1])

    def end(self) -> tuple[int, str]:
        """The exit code, and what is left on the terminal."""
        code = self.process.wait(30)
        with self._changed:
            assert self._changed.wait_for(lambda: _ALTERNATE_ENDS in self._text, 10.0), self._text[-2000:]
        left = _ESCAPE.sub("", self._text.rpartition(_ALTERNATE_ENDS)[2])
        return code, left.replace("\r", "")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)


@contextlib.contextmanager
def terminal(*words: str) -> Iterator[Terminal]:
    shown = Terminal(*words)
    try:
        yield shown
    finally:
        shown.close()


def begun(url: str, run: str = "mammo") -> RunStore:
    """A run in its first round, for the sites a and b."""
    runs = RunStore(connect(url), run, url)
    runs.create(rounds=3, config=RunConfig(rounds=3, min_clients=2, store="/nowhere").to_mapping())
    runs.redis.set(runs.keys.coordinator, TOKEN)
    runs.redis.sadd(runs.keys.members, "a", "b")
    for client in ("a", "b"):
        runs.redis.set(runs.keys.client(client).lease, "x")
        runs.redis.hset(runs.keys.client(client).hash, mapping={"state": "ready", "round": "0"})
    runs.open_round(TOKEN, 1, expected=["a", "b"], timeout_s=600, reason="2 clients ready")
    return runs


def test_a_run_until_its_end_on_a_redis_that_goes_away(tmp_path: Path) -> None:
    server = {"append_only": True, "folder": tmp_path}
    with contextlib.ExitStack() as stack:
        with embedded_server(**server) as url:
            runs = begun(url)
            shown = stack.enter_context(terminal("status", "mammo", "--watch", "--redis-url", url))
            shown.until("waits: 0 of 2 updates accepted, waiting for a, b")
            runs.judge(1, "a", accepted("good", try_id="t"))
            shown.until("waits: 1 of 2 updates accepted, waiting for b")
            shown.until("round 1: a: good")
            runs.judge(1, "b", Verdict(False, "NaN in w", try_id="t"))
            shown.until("round 1: b: NaN in w")
        shown.until("Redis cannot be read since ")
        assert "waits: 1 of 2 updates accepted, waiting for b" in shown.screen(), "the last state stays"
        with embedded_server(**server) as url:
            shown.until("round 1: b: NaN in w")
            runs = RunStore(connect(url), "mammo", url)
            runs.end(RunState.STOPPED, "by an operator")
            code, left = shown.end()
    assert code == 0, left
    lines = left.splitlines()
    assert re.fullmatch(r"mammo  stopped  round 1 of 3  took \d+ s", lines[0]), left
    assert lines[1] == "by an operator"
    assert "Redis cannot be read" not in left
    assert any(line.startswith("a  ") for line in lines), "its sites"
    assert lines[-1].endswith("run 'mammo' is stopped: by an operator"), "its newest event"
    assert "Ctrl-C" not in left


def test_ctrl_c_ends_it_well(url: str) -> None:
    begun(url, "chest")
    begun(url, "mammo")
    with terminal("status", "--watch", "--redis-url", url) as shown:
        shown.until("Ctrl-C ends this")
        shown.process.send_signal(signal.SIGINT)
        code, left = shown.end()
    assert code == 0, left
    assert "chest  " in left
    assert "mammo  " in left
    assert "Traceback" not in shown.text


def test_what_cannot_be_watched_is_one_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    RunStore(connect(url), "r", url).create(rounds=3, config=RunConfig(rounds=3, store="s").to_mapping())

    def refused(*words: str, code: int = 2) -> str:
        done = CliRunner().invoke(status, [*words, "--redis-url", url])
        assert done.exit_code == code, done.output
        assert (done.output.count("\n"), done.stdout) == (1, "")
        return done.stderr

    assert refused("r", "--watch").startswith(
        "Error: --watch draws on a terminal, and the output is none: `flavor log "
    )
    assert refused("r", "--watch", "--json").startswith("Error: --watch and --json exclude each other")
    screen = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr("flavor.cli.status_watch.terminal", lambda: screen)
    assert refused("other", "--watch", code=1).startswith("Error: there is no run 'other' on Redis")


def test_a_local_run_whose_server_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last state is shown from what its server kept, as without --watch; the watch waited without end."""
    (tmp_path / "logs").mkdir()
    console, drawn = Console(file=io.StringIO(), force_terminal=True, width=100, height=30), list[str]()
    with contextlib.ExitStack() as server:
        url = server.enter_context(own_server(tmp_path / "redis"))
        begun(url)

        def ends(*words: Any) -> list[Text]:
            lines = run_frame(*words)
            drawn.append(lines[0].plain)
            server.close()
            return lines

        monkeypatch.setattr("flavor.cli.status_watch.run_frame", ends)
        monkeypatch.setattr("flavor.cli.status_watch.raise_on_sigterm", lambda: None)
        found = OpenedRun("mammo", connect(url), url, "/nowhere")
        assert watch_run(found, console, metric=None, model_folder="", logs=tmp_path / "logs") is False
    assert drawn[0].startswith("mammo  running  round 1 of 3")


def test_the_last_drawing_tells_the_last_round(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its metrics are read a moment after the run's end: the drawing that stayed had those of an earlier round."""
    made = Driven(url, LocalStore(tmp_path / "store", create=True), "thorax", rounds=3)
    console, drawn = Console(file=io.StringIO(), force_terminal=True, width=100, height=30), list[str]()

    def closes(auc: float) -> None:
        made.open(["a"])
        made.accept("a", 10, {"auc": auc})
        made.close()

    def goes_on(*words: Any) -> list[Text]:
        lines = run_frame(*words)
        drawn.append("\n".join(line.plain for line in lines))
        if "round 1: auc 0.5" in drawn[-1] and made.round == 1:
            closes(0.6)
            closes(0.7)
            made.runs.end(RunState.FINISHED, "all 3 rounds are closed")
        return lines

    closes(0.5)
    monkeypatch.setattr("flavor.cli.status_watch.run_frame", goes_on)
    monkeypatch.setattr("flavor.cli.status_watch.raise_on_sigterm", lambda: None)
    found = OpenedRun("thorax", connect(url), url, made.store.url)
    assert watch_run(found, console, metric=None, model_folder="", logs=None) is True
    assert "round 3: auc 0.7 (best: 0.7, reported in round 3" in drawn[-1], drawn[-1]


def test_the_last_drawing_of_a_run_that_fails_in_a_round_has_what_sites_reported_in_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Driven(url, LocalStore(tmp_path / "store", create=True), "pelvis", rounds=3)
    console, drawn = Console(file=io.StringIO(), force_terminal=True, width=100, height=30), list[str]()

    def goes_on(*words: Any) -> list[Text]:
        lines = run_frame(*words)
        drawn.append("\n".join(line.plain for line in lines))
        if "round 1: auc 0.5" in drawn[-1] and made.round == 1:
            made.open(["a", "b"])
            made.accept("a", 10, {"auc": 0.625})
            made.runs.end(RunState.FAILED, "b is gone")
        return lines

    made.runs.redis.sadd(made.runs.keys.members, "a", "b")
    made.open(["a"])
    made.accept("a", 10, {"auc": 0.5})
    made.close()
    monkeypatch.setattr("flavor.cli.status_watch.run_frame", goes_on)
    monkeypatch.setattr("flavor.cli.status_watch.raise_on_sigterm", lambda: None)
    found = OpenedRun("pelvis", connect(url), url, made.store.url)
    assert watch_run(found, console, metric=None, model_folder="", logs=None) is True
    assert "0.625" in drawn[-1], drawn[-1]
