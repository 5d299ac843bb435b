"""`Report`: seldom, the last one kept, and never an error."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from flavor.cook import report as module
from flavor.cook import utils
from flavor.cook.report import Report, Throttle
from flavor.programs.report_file import read_fault, read_report, report_path
from flavor.records.names import Event
from flavor.records.reported import Reported


class Timers:
    """A clock that stands still, and calls that come when `fire` says so."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, list[tuple[float, Callable[[], None], "Timers.One"]]()

    class One:
        is_cancelled = False

        def cancel(self) -> None:
            self.is_cancelled = True

    def later(self, seconds: float, call: Callable[[], None]) -> One:
        one = Timers.One()
        self.calls.append((self.now + seconds, call, one))
        return one

    def fire(self, now: float) -> None:
        self.now = now
        due = [(call, one) for at, call, one in self.calls if at <= now]
        self.calls = [each for each in self.calls if each[0] > now]
        for call, one in due:
            if not one.is_cancelled:
                call()


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module._Reporter, "_instance", None)
    monkeypatch.setattr(module._Reporter, "_has_warned", False)
    monkeypatch.setenv("LOCAL_MODEL_PATH", str(tmp_path / "model.ckpt"))
    return tmp_path / "model.ckpt"


def test_one_report_a_second_is_written_and_the_last_is_kept() -> None:
    written: list[tuple[float, float]] = []
    timers = Timers()
    throttle = Throttle(lambda r: written.append((timers.now, r.done)), clock=lambda: timers.now, later=timers.later)
    for step in range(1, 1000):
        throttle.take(Reported(step))
    assert written == [(0.0, 1)]
    assert len(timers.calls) == 1
    timers.fire(1.0)
    assert written == [(0.0, 1), (1.0, 999)]
    throttle.take(Reported(1000))
    assert written[-1] == (1.0, 999)
    throttle.flush()
    throttle.flush()
    assert written[-1] == (1.0, 1000), "at once, at TrainFinished"
    timers.fire(2.5)
    assert len(written) == 3, "not twice"
    throttle.take(Reported(1001))
    assert written[-1] == (2.5, 1001), "at once after a pause"


def test_a_timer_that_cannot_start_writes_at_once() -> None:
    def later(seconds: float, call: Callable[[], None]) -> Timers.One:
        raise RuntimeError("can't start new thread")

    written: list[float] = []
    throttle = Throttle(lambda r: written.append(r.done), clock=lambda: 0.0, later=later)
    throttle.take(Reported(1))
    throttle.take(Reported(2))
    assert written == [1, 2]


def test_many_threads_leave_the_newest(local: Path) -> None:
    begin = threading.Barrier(8)

    def run(number: int) -> None:
        begin.wait()
        for step in range(200):
            Report(step, 200, f"thread {number}")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Report(200, 200, "the last")
    module.flush()
    assert read_report(local) == Reported(200, 200, "the last")
    assert [path.name for path in local.parent.iterdir()] == [report_path(local).name]


def test_it_does_nothing_outside_of_an_edge(
    local: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LOCAL_MODEL_PATH")
    Report(3, 10)
    Report("wrong")
    module.flush()
    assert capfd.readouterr() == ("", "")
    assert list(local.parent.iterdir()) == []


class Hostile:
    """An object of the script's that nothing can be done with."""

    def __float__(self) -> float:
        raise SystemError("no")

    def __repr__(self) -> str:
        raise OSError("no")

    def item(self) -> float:
        raise KeyError("no")

    __str__ = __repr__


def test_wrong_arguments_are_one_line_and_no_error(local: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Report()
    Report("three", 10)
    Report(Hostile(), Hostile(), Hostile(), loss=Hostile())  # type: ignore[arg-type]
    Report(3, 0, loss="high")
    Report(4, 10, loss=float("nan"))
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "flavor: Report: done must be a number, 0 or more, and is None; training goes on\n"
    module.flush()
    assert read_report(local) == Reported(4, 10)


def test_a_report_that_never_worked_leaves_a_note_for_the_check(local: Path) -> None:
    Report("three")
    assert read_fault(local) == "done must be a number, 0 or more, and is 'three'"
    Report(3)
    Report("three")
    module.flush()
    assert (read_fault(local), read_report(local)) == ("", Reported(3))


def test_a_folder_that_is_not_there_is_one_line(
    local: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_MODEL_PATH", str(local.parent / "none" / "model.ckpt"))
    for step in range(3):
        Report(step)
        module.flush()
    err = capfd.readouterr().err
    assert err.startswith("flavor: Report: cannot be written: ")
    assert err.count("\n") == 1


def test_a_closed_stderr_is_no_error(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    Report("three")


def test_the_end_of_a_round_writes_the_last_report_before_its_event(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Reported | None] = []

    class Events:
        marks_files = True

        def set(self, event: Event, round_: int) -> None:
            seen.append(read_report(local))

    class Session:
        round, finishes, events = None, (Event.TRAIN_FINISHED,), Events()

        def round_of(self, event: Event) -> int:
            return 1

    monkeypatch.setattr(utils._Session, "current", Session)
    utils.Report(1, 2)
    utils.Report(2, 2)
    utils.SetEvent("TrainFinished")
    assert seen == [Reported(2, 2)]


def run(code: str, local: Path) -> tuple[str, str]:
    environment = {**os.environ, "LOCAL_MODEL_PATH": str(local)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def test_the_end_of_a_process_writes_the_last_report(local: Path) -> None:
    run("from flavor.cook.utils import Report\nfor step in range(11): Report(step, 10)", local)
    assert read_report(local) == Reported(10, 10)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_of_the_script_reports_too(local: Path, method: str) -> None:
    """A fork may come while another thread of the parent holds a lock, and has no timer of its parent's.

    The parent's own timer waits for the locks where the child takes longer than its pause, and the end for that timer.
    """
    script = local.with_name("script.py")
    script.write_text(
        "import multiprocessing, sys\nfrom flavor.cook import report\nfrom flavor.cook.utils import Report\n"
        "def work():\n    for step in range(5): Report(step, 4, 'child')\n"
        "if __name__ == '__main__':\n    Report(1, 4, 'parent')\n    Report(2, 4, 'parent')\n"
        "    report._Reporter._instance.throttle._lock.acquire()\n    report._Reporter._lock.acquire()\n"
        f"    child = multiprocessing.get_context({method!r}).Process(target=work)\n    child.start()\n"
        "    child.join(60)\n    print(child.exitcode, open(sys.argv[1]).read())\n"
        "    report._Reporter._lock.release()\n    report._Reporter._instance.throttle._lock.release()\n"
    )
    environment = {**os.environ, "LOCAL_MODEL_PATH": str(local)}
    words = [sys.executable, str(script), str(report_path(local))]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    code, _, found = done.stdout.partition(" ")
    assert (code, done.stderr) == ("0", "")
    assert Reported.from_json(found) == Reported(4, 4, "child")


def test_it_imports_no_library(local: Path) -> None:
    loaded = "import sys; from flavor.cook.report import Report; Report(1); print(*sys.modules)"
    modules = set(run(loaded, local)[0].split())
    assert not {"redis", "numpy", "torch", "click", "psutil", "multiprocessing"} & modules


def test_the_command_reports_for_other_languages(local: Path) -> None:
    def report(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "flavor.cli.main", "report", *words]
        environment = {**os.environ, "LOCAL_MODEL_PATH": str(local)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout == ""
        return done.returncode, done.stderr

    assert report("30/100", "--message", "epoch 3", "--metric", "loss=0.3", "--metric", "message=1") == (0, "")
    assert read_report(local) == Reported(30, 100, "epoch 3", {"loss": 0.3, "message": 1})
    assert report("2.5") == (0, "")
    assert read_report(local) == Reported(2.5)
    code, err = report("many/100")
    assert (code, err.count("\n")) == (0, 1)
    assert "done must be a number, 0 or more, and is 'many'" in err
    assert read_report(local) == Reported(2.5), "what another process has reported stays"
    code, err = report("1/2", "--metric", "loss")
    assert (code, err.count("\n")) == (0, 1)
