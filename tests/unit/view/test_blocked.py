"""What blocks a process stands in a file as long as it does, and not a moment longer."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from flavor.bus.countdown import countdown
from flavor.view.blocked import VARIABLE, BlockedNote, blocked_by, noting
from flavor.view.event import Notice
from flavor.view.observer import Lines
from flavor.view.site_events import StoreAwaited

BLOCKED = """
import sys
from pathlib import Path
from flavor.view.blocked import BlockedNote
from flavor.view.site_events import StoreAwaited
BlockedNote(Path(sys.argv[1])).hear(StoreAwaited("full"))
"""


def test_of_a_process_that_has_ended_nothing_is_waited_for(tmp_path: Path) -> None:
    note = tmp_path / "edge-1.blocked"
    subprocess.run([sys.executable, "-c", BLOCKED, note], check=True)
    assert "full" in note.read_text()
    assert blocked_by(note) == ""
    BlockedNote(note)
    assert not note.exists(), "the next process begins anew"


def test_a_program_says_what_blocks_it_and_keeps_the_file_from_its_own_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(countdown, "heard", lambda _: None)
    told, note = list[str](), tmp_path / "edge-1.blocked"
    environment = {VARIABLE: str(note)}
    observer = noting(environment, Lines(told.append))
    assert environment == {}
    countdown.show("unix:///s", 60.0, OSError(errno.ECONNREFUSED, "no"))
    assert blocked_by(note) == "Redis at unix:///s does not answer"
    countdown.over("unix:///s")
    assert blocked_by(note) == ""
    observer.hear(StoreAwaited("full", patience_s=9))
    assert told == ["waiting for the store, for at most 9 s: full"] == [blocked_by(note)]


@pytest.mark.parametrize("text", ["[" * 200_000, "[]", "{}", '{"pid": 1e400, "blocked": ""}', f'{{"pid": {10**30}}}'])
def test_a_note_that_is_damaged_tells_of_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "edge-1.blocked").write_text(text)
    assert blocked_by(tmp_path / "edge-1.blocked") == ""


def test_routine_does_not_end_what_blocks_and_other_news_does(tmp_path: Path) -> None:
    note = tmp_path / "edge-1.blocked"
    heard = BlockedNote(note)
    heard.hear(StoreAwaited("full"))
    blocked = blocked_by(note)
    assert "full" in blocked
    heard.hear(Notice("a round goes on", is_routine=True))
    assert blocked_by(note) == blocked
    heard.hear(Notice("the store is back"))
    assert blocked_by(note) == ""
