"""Signals: heard within a second, also inside a call that no handler interrupts; what is in hand is finished."""

from __future__ import annotations

import platform
import signal
import subprocess
import sys
import time

import pytest

DEAF = """
import ctypes, threading, time
mutex, lock = (ctypes.c_int * 32)(), ctypes.CDLL(None).pthread_mutex_lock
lock(mutex)
def when_inside():
    while mutex[0] != 2: time.sleep(0.01)  # as glibc notes that a thread waits for it
    say("here")
threading.Thread(target=when_inside, daemon=True).start()
lock(mutex)
"""
"""For ever in a library that knows nothing of Python's signals: they do not end the wait for a mutex."""
if platform.libc_ver()[0] != "glibc":  # another library's mutex says something else
    DEAF = """
import hashlib, threading, time
def when_inside(main=time.pthread_getcpuclockid(threading.main_thread().ident), before=time.thread_time()):
    while time.clock_gettime(main) < before + 0.1: time.sleep(0.01)
    say("here")
threading.Thread(target=when_inside, daemon=True).start()
hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


def run(code: str, *numbers: int, apart_s: float = 0.0) -> tuple[int, str, float]:
    """The exit code and output of a program that is sent signals once it has said "here", and how long it took then."""
    head = "import sys\ndef say(what): print(what, flush=True)\n"
    process = subprocess.Popen([sys.executable, "-c", head + code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as lines:
        assert lines.readline() == "here\n"
        began = time.monotonic()
        for number in numbers:
            process.send_signal(number)
            time.sleep(apart_s)
        said = lines.read()
        return process.wait(), said, time.monotonic() - began


RAISING = "from flavor.signals import raise_in_main\nraise_in_main(SystemExit, last=lambda: say('last'))\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_inside_a_long_call_is_ended(number):
    code, said, took_s = run(RAISING + DEAF, number)
    assert (code, said) == (128 + number, "last\n")
    assert took_s < 10


def test_one_that_hears_ends_by_its_finally_clauses():
    code, said, _ = run(
        RAISING + "import time\ntry:\n say('here'); time.sleep(60)\nfinally:\n time.sleep(2); say('finally')",
        signal.SIGTERM,
    )
    assert (code, said) == (1, "finally\n")


def test_a_library_that_makes_an_error_of_its_own_of_any_exception_hides_no_signal():
    hides = (
        "import time\nfrom flavor.signals import asked_to_end, held\n"
        "def library():\n"
        "    try:\n        say('here')\n        while not asked_to_end(): time.sleep(0.01)\n"
        "    except BaseException:\n        say('hidden')\n"
        "with held():\n    with held():\n        library()\n    say('inside')\nsay('after')\n"
    )
    code, said, _ = run(RAISING + hides, signal.SIGTERM)
    assert (code, said) == (1, "inside\n")


def test_a_second_signal_ends_a_process_that_still_cleans_up():
    stuck = "import time\ntry:\n say('here'); time.sleep(60)\nfinally:\n time.sleep(60); say('finally')"
    code, said, took_s = run(RAISING + stuck, signal.SIGTERM, signal.SIGTERM, apart_s=1.5)
    assert (code, said) == (128 + signal.SIGTERM, "last\n")
    assert took_s < 30


LISTENING = (
    "from flavor.signals import Errand, Listener, asked_to_end, pause\n"
    "errand = Errand(); Listener(errand.idle, code=0, twice=True)\n"
    "import signal\nfor n in (signal.SIGTERM, signal.SIGINT): signal.signal(n, lambda *_: None)\n"
)


def test_an_errand_is_finished_and_an_idle_process_is_ended():
    errand = "import time\nwith errand.in_hand():\n say('here'); time.sleep(3); say('done')\n"
    code, said, took_s = run(LISTENING + errand + "time.sleep(60)", signal.SIGTERM)
    assert (code, said) == (0, "done\n")
    assert took_s < 30


def test_a_second_signal_ends_it_at_once_but_not_one_that_came_with_the_first():
    errand = "held = errand.in_hand(); held.__enter__()\n" + DEAF
    code, _, took_s = run(LISTENING + errand, signal.SIGTERM, signal.SIGINT, signal.SIGINT, apart_s=0.7)
    assert (code, took_s < 30) == (128 + signal.SIGINT, True)


def test_every_pause_ends():
    code, said, took_s = run(LISTENING + "say('here'); say(pause(60)); say(asked_to_end())", signal.SIGTERM)
    assert (code, said) == (0, "True\nTrue\n")
    assert took_s < 10
