"""What keeps a process from going on, in a file for the program that has started the process.

`flavor run` names such a file to each process that it starts, in the variable `FLAVOR_BLOCKED`, and shows what stands
there; so does `flavor status FOLDER`. The file is written when the reason changes, and removed when nothing blocks the
process any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import MutableMapping
from pathlib import Path

from flavor.atomic import write_json
from flavor.bus.countdown import countdown
from flavor.view.event import Event
from flavor.view.observer import Everyone, Observer

VARIABLE = "FLAVOR_BLOCKED"


class BlockedNote:
    """An `Observer` that notes an event that blocks its process, until the next event that is no routine.

    A server that is waited for is noted beside it, since that can be in the middle of anything.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._event = self._server = ""
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # an earlier process's

    def hear(self, event: Event) -> None:
        """See `Observer`."""
        if not event.is_routine:
            with self._lock:
                before, self._event = self._event, event.line if event.blocks else ""
                self._write(before != self._event)

    def server(self, text: str) -> None:
        """Note what is waited for of a server; '' once that is over."""
        with self._lock:
            before, self._server = self._server, text
            self._write(before != text)

    def _write(self, is_news: bool) -> None:
        if is_news:
            with contextlib.suppress(OSError):  # a full disk keeps nothing from going on
                if text := self._server or self._event:
                    write_json(self._path, {"pid": os.getpid(), "blocked": text})
                else:
                    self._path.unlink(missing_ok=True)


def noting(environment: MutableMapping[str, str], observer: Observer) -> Observer:
    """The observer of a program, and beside it a `BlockedNote` where the environment names a file for one.

    The variable is taken out of the environment: it is not meant for the programs that this one starts.
    """
    path = environment.pop(VARIABLE, "")
    if not path:
        return observer
    note = BlockedNote(Path(path))
    countdown.heard = note.server
    return Everyone(observer, note)


def blocked_by(path: Path) -> str:
    """What blocks the process that was given this file; '' for nothing, and for a process that has ended."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        os.kill(found["pid"], 0)
        return str(found["blocked"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return ""
