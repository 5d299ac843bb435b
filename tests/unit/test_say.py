"""Lines for people, on a stderr that takes none."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flavor.bus.countdown import countdown
from flavor.cli.output import teller
from flavor.say import say


def test_a_line_that_finds_no_room_or_no_reader_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        for _ in range(2000):  # more than its buffer holds
            say("a line")
        teller("[a] ")("a line")
        countdown.show("here", 10.0, OSError(errno.ECONNREFUSED, "no"))
        countdown.over("here")
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space left"):
            full.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    monkeypatch.setattr(sys, "stderr", full)
    say("a line")


def test_a_line_is_written_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal's handler that raises leaves no half of one behind."""
    read, write = os.pipe()
    with os.fdopen(write, "w", buffering=1) as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        say("a line")
        monkeypatch.undo()
        assert os.read(read, 100) == b"a line\n"
    os.close(read)


def test_a_program_whose_stderr_was_closed_ends_as_it_does_otherwise(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "flavor.cli.flavor_agg", "--queue", "q", "--init-once"]
    done = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *command], cwd=tmp_path, check=False, timeout=60)
    assert done.returncode == 2
