"""The events of a script on a machine without a way to Redis: it asks its edge by files, and its edge asks Redis.

`flavor-fl --relay-events files` sets the variable `FLAVOR_RELAY` to the folder of these files. Importing this module
imports no library.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from flavor.errors import InvalidRecord, InvalidSetting, LeaseLost
from flavor.programs.relay_folder import (
    CLOSED,
    LONGEST_PAUSE_S,
    QUICK_PAUSE_S,
    Answer,
    Ask,
    Asker,
    Call,
    RelayFolder,
    beats,
    see_anew,
)
from flavor.records.names import Event

_UNSEEN_S = 15.0
"""An edge makes the folder before it starts the script: one that is not seen within this time is not shared."""
_EDGE_GONE_S = 300.0
"""An edge that gives no sign of life for this long is gone. One that is started again answers until then."""
_LEAST_LOOKS = 60
"""So many looks at least find no sign of life: a file system that has stood still for long shows an old one first."""
_GROWTH = 1.5


class RelayedEvents:
    """The events of one client of one run, through files in a folder that the script's edge reads.

    Every method raises `LeaseLost` once the edge that has started this script is gone, and else what the method of the
    same name of `flavor.bus.events.ClientEvents` raises at the edge. `RunOver` and `WaitTimeout` are as there.
    """

    marks_files = False
    """The edge marks them: another machine may see other numbers of the same files."""

    def __init__(
        self,
        folder: Path,
        client: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises `InvalidSetting` where this machine does not see the folder."""
        self._folder, self._client = RelayFolder(folder), client
        self._clock, self._sleep = clock, sleep
        host = socket.gethostname()
        self._asker = Asker.of(host, os.environ)
        self._own = f"{re.sub(r'[^A-Za-z0-9.-]', '-', host)[:60]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._numbers = itertools.count(1)
        self._see_folder(host)

    def _see_folder(self, host: str) -> None:
        until = self._clock() + _UNSEEN_S
        while True:
            see_anew(*reversed(self._folder.answers.parents[:3]), self._folder.answers)
            if self._folder.answers.is_dir():
                return
            if self._clock() >= until:
                raise InvalidSetting(
                    f"{host} does not see the folder {self._folder.path}, through which this script talks to its edge: "
                    "give flavor-fl a --workspace on a file system that its machine and the compute nodes share, or "
                    "mount that folder in the container"
                )
            self._sleep(LONGEST_PAUSE_S)

    def set(self, event: Event, round_: int) -> None:
        """See `ClientEvents`."""
        self._ask(Ask(Call.SET, event, round_, asker=self._asker))

    def clean(self, event: Event, round_: int) -> None:
        """See `ClientEvents`."""
        self._ask(Ask(Call.CLEAN, event, round_, asker=self._asker))

    def is_set(self, event: Event, round_: int) -> bool:
        """See `ClientEvents`."""
        return bool(self._ask(Ask(Call.IS_SET, event, round_, asker=self._asker)))

    def newest_started(self) -> int:
        """See `ClientEvents`."""
        return int(self._ask(Ask(Call.NEWEST_STARTED, asker=self._asker)))

    def wait_started(self, after: int, *, timeout_s: float | None = None) -> int:
        """See `ClientEvents`."""
        timeout_s = None if timeout_s == math.inf else timeout_s
        round_ = int(self._ask(Ask(Call.WAIT_STARTED, None, after, timeout_s, self._asker)))
        self.take(round_)
        return round_

    def take(self, round_: int) -> None:
        """See `ClientEvents`. The files of the round are seen by this machine from then on."""
        self._ask(Ask(Call.TAKE, None, round_, asker=self._asker))
        for name in ("GLOBAL_MODEL_PATH", "LOCAL_MODEL_PATH"):
            if path := os.environ.get(name):
                see_anew(Path(path).parent, Path(path))

    def taken(self) -> int:
        """See `ClientEvents`."""
        return int(self._ask(Ask(Call.TAKEN, asker=self._asker)))

    def left_s(self, round_: int) -> float | None:
        """See `ClientEvents`."""
        found = self._ask(Ask(Call.LEFT_S, None, round_, asker=self._asker))
        return None if found is None else float(found)

    def close(self) -> None:
        """Hold nothing any more: there is no connection."""

    def _ask(self, ask: Ask) -> Any:
        """Ask the edge, and wait for its answer; what was asked is withdrawn where this raises an error."""
        name = f"{self._own}-{next(self._numbers):06d}.json"
        path = self._folder.asks / name
        self._raise_if_closed()
        try:
            self._write(ask, path)
            return self._answer(name)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise

    def _write(self, ask: Ask, path: Path) -> None:
        """Write what is asked; a share that takes no file for now gets it later."""
        until = self._clock() + _EDGE_GONE_S
        while True:
            try:
                ask.write(path)
                return
            except FileNotFoundError:
                self._gone("the folder of its edge was removed")
            except OSError as error:
                if self._clock() >= until:
                    raise LeaseLost(
                        f"client {self._client!r}: {path} cannot be written ({error.strerror}), so the edge of this "
                        "script cannot be asked"
                    ) from None
            self._sleep(LONGEST_PAUSE_S)

    def _answer(self, name: str) -> Any:
        pause_s, beat, looks, beaten_at = QUICK_PAUSE_S, "", 0, self._clock()
        while True:
            names = self._names()
            if name in names and (found := self._read(name)) is not None:
                with contextlib.suppress(OSError):
                    (self._folder.answers / name).unlink(missing_ok=True)
                if found.error is not None:
                    raise found.error
                return found.value
            if CLOSED in names:
                self._raise_if_closed()
            now, looks = self._clock(), looks + 1
            if (newest := beats(names)) and newest != beat:
                beat, looks, beaten_at = newest, 0, now
            if now - beaten_at >= _EDGE_GONE_S and looks >= _LEAST_LOOKS:
                self._gone(f"its edge gives no sign of life for {now - beaten_at:.0f} s")
            self._sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * _GROWTH)

    def _names(self) -> list[str]:
        """Return the names of the answers; none while the share is away."""
        try:
            return os.listdir(self._folder.answers)
        except FileNotFoundError:
            self._gone("the folder of its edge was removed")
        except OSError:
            return []

    def _read(self, name: str) -> Answer | None:
        """Return an answer; None while it cannot be read."""
        try:
            return Answer.read(self._folder.answers / name)
        except (OSError, InvalidRecord):  # the share is away for a moment
            return None

    def _raise_if_closed(self) -> None:
        if CLOSED in self._names() and (found := self._read(CLOSED)) is not None and found.error is not None:
            raise found.error

    def _gone(self, why: str) -> NoReturn:
        raise LeaseLost(f"client {self._client!r}: {why}, so this script ends: start flavor-fl again")
