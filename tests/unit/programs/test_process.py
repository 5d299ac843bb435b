"""A process group is signalled as long as its number is its own, and never after."""

from __future__ import annotations

import gc
import io
import os
import selectors
import signal
import sys
import time
from pathlib import Path

import pytest

from flavor.programs.process import ChildProcess, obituary
from tests.polled import eventually

LEAVES = (
    "import os, time\nif os.fork() == 0:\n    while True: time.sleep(1)\nprint(os.getpid(), flush=True)\nos._exit(3)"
)


def started(tmp_path: Path, program: str) -> ChildProcess:
    return ChildProcess([sys.executable, "-c", program], environment=dict(os.environ), log=tmp_path / "log")


def members(group: int) -> list[str]:
    """The states of the processes of a group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = stat.read_text().rpartition(") ")[2].split()[:3]
        except OSError:
            continue
        if int(number) == group:
            found.append(state)
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_an_ended_leader_keeps_its_number_until_its_group_is_stopped(tmp_path: Path) -> None:
    process = started(tmp_path, LEAVES)
    assert process.wait(20) == process.exit_code == 3
    assert sorted(members(process.pid)) == ["S", "Z"], "the number could be given to a stranger"
    process.stop(0.1)
    eventually("the orphan is gone", lambda: "S" not in members(process.pid))  # the orphan is for init to reap
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    assert process.exit_code == 3


def test_as_many_lines_are_kept_as_asked_for_and_a_failure_quotes_the_last_ones(tmp_path: Path) -> None:
    program = "print('\\n'.join(map(str, range(1000))))"
    for keep, most in ((0, 20), (5, 20), (300, 300)):
        words = [sys.executable, "-c", program]
        process = ChildProcess(words, environment=dict(os.environ), log=tmp_path / "log", keep=keep)
        assert process.wait(20) == 0
        assert process.tail() == [str(number) for number in range(1000 - most, 1000)]
        assert process.last_lines == process.tail()[-20:]
        process.stop(0.1)


def test_no_group_is_signalled_once_its_leader_is_reaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    process = started(tmp_path, "pass")
    assert process.wait(20) == 0
    process.stop(0.1)
    monkeypatch.setattr(os, "killpg", lambda group, number: sent.append((group, number)))
    process.stop(0.1)
    assert sent == []


@pytest.mark.parametrize(("how", "code"), [("os._exit(7)", 7), ("os.kill(os.getpid(), 9)", -9), ("os.abort()", -6)])
def test_the_exit_code_is_the_one_that_popen_has(tmp_path: Path, how: str, code: int) -> None:
    process = started(tmp_path, f"import os\n{how}")
    assert process.wait(20) == code
    process.stop(0.1)
    assert process.exit_code == code


def test_a_running_one_is_stopped_with_sigterm_and_one_that_does_not_listen_with_sigkill(tmp_path: Path) -> None:
    program = "import signal, time\n{}\nprint('up', flush=True)\nwhile True: time.sleep(1)"
    for listens, code in (("", -signal.SIGTERM), ("signal.signal(15, signal.SIG_IGN)", -signal.SIGKILL)):
        process = started(tmp_path, program.format(listens))
        eventually("it has printed", lambda process=process: process.last_lines)
        process.stop(0.5)
        assert process.exit_code == code


def test_an_alarm_in_a_wait_leaves_the_process_its_grace_and_the_stop_its_end(tmp_path: Path) -> None:
    """As the time limit of a job does. The stop before the end would leave the folder of a run locked."""
    bye = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), print('saved', flush=True), sys.exit(5)))\n"
        "print('ready', flush=True)\nsignal.pause()\n"
    )
    process = started(tmp_path, bye)
    eventually("it is ready", lambda: process.tail() == ["ready"])

    def over(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(TimeoutError):
            process.wait()
    finally:
        signal.signal(signal.SIGALRM, before)
    process.stop(20.0)
    assert (process.exit_code, process.last_lines) == (5, ["ready", "saved"])
    assert members(process.pid) == []


def test_one_that_was_never_stopped_leaves_no_zombie(tmp_path: Path) -> None:
    process = started(tmp_path, "pass")
    pid = process.pid
    assert process.wait(20) == 0
    del process
    gc.collect()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_what_it_had_printed_by_now_is_known_however_late_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an aggregator that sets an event right after its last line, and lives on."""

    class Late(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            found = super().select(timeout)
            time.sleep(0.1)
            return found

    monkeypatch.setattr(selectors, "DefaultSelector", Late)
    reading, writing = os.pipe()
    program = f"import os, time\nprint('saved it', flush=True)\nos.write({writing}, b'x')\nwhile True: time.sleep(1)"
    process = ChildProcess(
        [sys.executable, "-c", program], environment=dict(os.environ), log=tmp_path / "log", inherited=[writing]
    )
    os.close(writing)
    with open(reading, "rb", buffering=0) as event:
        assert event.read(1) == b"x"
    assert process.last_lines == ["saved it"]
    process.stop(0.1)
    assert process.last_lines == ["saved it"]


def test_an_end_is_heard_of_also_where_its_log_cannot_be_written() -> None:
    """As on a full disk, which may well be why it ends."""
    codes: list[int] = []
    process = ChildProcess(
        [sys.executable, "-c", "import sys; print('one'); sys.exit('No space left')"],
        environment=dict(os.environ),
        log=Path("/dev/full"),
        ended=codes.append,
    )
    assert process.wait(20) == 1
    assert codes == [1]
    assert process.last_lines == ["one", "No space left"]
    process.stop(1)


@pytest.mark.parametrize(
    "line",
    ["t.sh: 2: flavor: not found", "t.sh: line 2: flavor: command not found", "zsh:1: command not found: flavor"],
)
def test_a_shell_without_the_program_is_told_what_to_do(line: str) -> None:
    told = obituary("the trainer", 127, [line], "before TrainInitDone")
    assert f"{line}: the program `flavor` is not on the script's PATH: activate" in told
    assert "activate" not in obituary("the trainer", 127, [line.replace("flavor", "flavors")], "")


def test_a_script_whose_environment_has_no_flavor_is_told_what_to_do() -> None:
    lines = ["Traceback (most recent call last):", "ModuleNotFoundError: No module named 'flavor'"]
    told = obituary("the trainer", 1, lines, "before TrainInitDone")
    assert "No module named 'flavor': install flavor in the environment that runs the script, too; before that" in told
    assert "install" not in obituary("the trainer", 1, ["ModuleNotFoundError: No module named 'flavors'"])


def test_the_reason_is_the_scripts_last_line_and_not_what_srun_adds() -> None:
    of_srun = "srun: error: gpu-7: task 0: Exited with exit code 1"
    assert obituary("the trainer", 1, ["KeyError: 'x'", of_srun]) == "the trainer ended (exit code 1): KeyError: 'x'"
    assert obituary("the trainer", 1, [of_srun]).endswith(of_srun)


def test_of_the_output_of_a_start_only_so_much_is_kept_and_a_long_log_is_begun_anew(tmp_path: Path) -> None:
    """The last lines, which a report of a failure quotes, are there all the same."""
    log, echo = tmp_path / "log", io.StringIO()
    told = "[more than 1000 bytes of output: the rest is left out]"
    for start in range(3):
        words = [sys.executable, "-c", f"print('\\n'.join(f'{start} {{i:03}}' for i in range(500)))"]
        process = ChildProcess(words, environment=dict(os.environ), log=log, most=1000, echo=echo, prefix="> ")
        assert process.wait(20) == 0
        process.stop(0.1)
        assert process.last_lines[-1] == f"{start} 499"
        lines = log.read_text().splitlines()
        assert lines[0] == f"{start} 000"
        assert (lines[-1], lines[-2]) == (told, f"{start} 165")
        assert echo.getvalue().splitlines()[-1] == f"> {told}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]
    assert (tmp_path / "log.1").read_text().startswith("1 000")
