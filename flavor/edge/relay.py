"""Relays events between Redis and a script that has no way to it: the script asks by files, as `flavor.cook.relayed`.

A thread answers what the script asks with the methods of `ClientEvents`, so that each call means what it means to a
script that asks Redis itself. Another thread gives signs of life. Each start of a script has a folder of its own, also
for its checkpoint: a job of an earlier start, which Slurm may end long after its edge, writes into no file of a later
one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flavor.bus.events import ClientEvents
from flavor.bus.variables import RELAY_VARIABLE
from flavor.edge.askers import Askers
from flavor.edge.workspace import Workspace
from flavor.errors import FlavorError, InvalidRecord, InvalidSetting, LeaseLost, RunOver, WaitTimeout
from flavor.ownfolder import make_own_folder
from flavor.printable import printable
from flavor.programs.finished_mark import mark_path, write_mark
from flavor.programs.relay_folder import (
    BEAT_EVERY_S,
    LONGEST_PAUSE_S,
    QUICK_PAUSE_S,
    Answer,
    Ask,
    Call,
    RelayFolder,
    see_anew,
)
from flavor.programs.relayed_environment import relayed_environment
from flavor.records.names import Event

_REREAD_S = 5.0
"""Seconds between two reads of Redis for a script that waits, for the case that a publication is lost."""
_KEPT = 5
"""So many folders of earlier starts stay, for jobs that may still look there."""
_KEEP_ANSWERS_S = 600.0
_JOIN_S = 3.0
_GROWTH = 1.5


class Relay:
    """Answers what the script of one start asks; `begin` makes the folder, and `close` ends it."""

    def __init__(
        self,
        workspace: Workspace,
        client: str,
        run: str,
        *,
        run_id: str,
        events: Callable[[], ClientEvents],
        tell: Callable[[str], None],
    ) -> None:
        """`events` connects to Redis as the script would, and `tell` says to this site's user where the script runs."""
        self._workspace, self._client, self._run, self._tell = workspace, client, run, tell
        self._run_id = run_id
        self._connect = events
        self._root = workspace.root / "relay"  # not resolved: a link may lead elsewhere on another machine
        self._folder: RelayFolder | None = None
        self._events: ClientEvents | None = None
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._waits: dict[str, tuple[Ask, float | None]] = {}  # what waits for a round, and until when
        self._looked_at = 0.0
        self._answered: dict[str, float] = {}
        self._over: RunOver | None = None
        self._trouble = ""  # what keeps it from answering, as it was told last
        self._askers = Askers()

    @property
    def is_asked(self) -> bool:
        """Whether the script of this start has asked for anything."""
        return self._askers.are_known

    # -- the folders of starts

    def take_over(self, round_: int, events: ClientEvents) -> None:
        """Set TrainFinished of this round if the script of an earlier edge has asked for it, and got no answer.

        That script is blocked in SetEvent, and its files are as it has saved them. It is told that its edge is gone.
        """
        last = self._last()
        if last is not None and round_ and events.taken() >= round_:
            with contextlib.suppress(OSError):
                for name in last.asked():
                    with contextlib.suppress(InvalidRecord, FileNotFoundError):
                        ask = Ask.read(last.asks / name)
                        if (ask.call, ask.event, ask.round) == (Call.SET, Event.TRAIN_FINISHED, round_):
                            self._mark(round_)
                            events.set(Event.TRAIN_FINISHED, round_)
                            last.answer(name, Answer())
        self._close_earlier()

    def _last(self) -> RelayFolder | None:
        """Return the folder of the last start, if the workspace's checkpoint is its own; None otherwise.

        Where the environment names the checkpoint, starts share it with each other, and with edges without a relay.
        Each closes the folders of those before it.
        """
        starts, link = [RelayFolder(start) for start in self._starts()], self._workspace.local_model.parent
        if "LOCAL_MODEL_PATH" in self._workspace.given:
            starts = [start for start in starts if not start.is_closed]
        else:
            starts = [start for start in starts if link.is_symlink() and _is_same(link, start.local)]
        return next((start for start in starts if start.run_id == self._run_id), None)

    def _starts(self) -> list[Path]:
        with contextlib.suppress(OSError):
            return sorted(each for each in self._root.iterdir() if each.is_dir())
        return []

    def _close_earlier(self) -> None:
        for start in self._starts():
            with contextlib.suppress(OSError):
                RelayFolder(start).close(Answer(error=self._gone("another edge has taken its place")))

    def _gone(self, why: str) -> LeaseLost:
        return LeaseLost(f"client {self._client!r}: the edge that has started this script is gone: {why}")

    def begin(self) -> None:
        """Make the folder of this start, and answer from now on. Raises `InvalidSetting` where that cannot be done."""
        make_own_folder(self._root, mode=0o700)
        self._close_earlier()
        start = RelayFolder(self._root / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}")
        try:
            for folder in (start.path, start.asks, start.answers, start.local):
                folder.mkdir(mode=0o700)
            start.note(self._run_id)
            start.beat(1)
            self._lead_to(start.local)
        except OSError as error:
            raise InvalidSetting(
                f"the folder {start.path} cannot be made: {error.strerror}: name another --workspace"
            ) from None
        self._remove_old(start.path)
        self._folder, self._events = start, self._connect()
        for work in (self._serve, self._live):
            thread = threading.Thread(target=work, name=f"relay {work.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _lead_to(self, local: Path) -> None:
        """Have the workspace's folder of the local model be this one, unless the environment names the folder."""
        if "LOCAL_MODEL_PATH" in self._workspace.given:
            self._tell(
                "LOCAL_MODEL_PATH is set: a job that outlives this edge may write into its next job's checkpoint"
            )
            return
        link = self._workspace.local_model.parent
        if not link.is_symlink():  # of an edge without a relay
            local.rmdir()
            link.rename(local)
            link.symlink_to(local)
            return
        fresh = link.with_name(f".{link.name}.{local.parent.name}")
        fresh.symlink_to(local)
        fresh.rename(link)

    def _remove_old(self, own: Path) -> None:
        """Remove the checkpoints of earlier starts, and the folders of those long ago."""
        earlier = [each for each in self._starts() if each != own]
        for start in earlier:
            with contextlib.suppress(OSError):
                for left in RelayFolder(start).local.iterdir():
                    shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        for start in earlier[:-_KEPT]:
            shutil.rmtree(start, ignore_errors=True)

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of the script: without credentials of the edge, with the folder for what it asks."""
        assert self._folder is not None
        found = {**relayed_environment(base), RELAY_VARIABLE: os.fspath(self._folder.path)}
        if "LOCAL_MODEL_PATH" not in self._workspace.given:
            found["LOCAL_MODEL_PATH"] = os.fspath(self._folder.local / self._workspace.local_model.name)
        return found

    def leave_off(self) -> None:
        """Have an edge without a relay use the workspace: no job of an earlier start is answered, or writes there."""
        self._close_earlier()
        link = self._workspace.local_model.parent
        if "LOCAL_MODEL_PATH" in self._workspace.given or not link.is_symlink():
            return
        with contextlib.suppress(OSError):
            local = link.resolve(strict=True)
            if local.is_relative_to(self._root.resolve()):
                link.unlink()
                local.rename(link)

    # -- answers

    def close(self) -> None:
        """Answer nothing any more, and tell the script so. What it has asked until now is answered first."""
        self._closing.set()
        for thread in self._threads:
            thread.join(_JOIN_S)
        if self._folder is None:
            return
        if not any(thread.is_alive() for thread in self._threads):  # else Redis is away
            with contextlib.suppress(FlavorError, OSError):
                self._answer_all()
        with contextlib.suppress(OSError):
            self._folder.close(Answer(error=self._over or self._gone("it has ended, and this script ends, too")))
        if self._events is not None:
            self._events.close()
        self._folder = None

    def _live(self) -> None:
        """Give signs of life, as long as the other thread lives."""
        number = 1
        folder = self._folder
        assert folder is not None
        while not self._closing.wait(BEAT_EVERY_S) and self._threads[0].is_alive():
            number += 1
            with contextlib.suppress(OSError):  # the share is away
                folder.beat(number)

    def _serve(self) -> None:
        assert self._events is not None
        pause_s, is_asked = QUICK_PAUSE_S, False
        while not self._closing.is_set():
            try:
                is_news = self._events.listen(pause_s)
                is_asked = self._answer_all()
                if is_news or is_asked or self._is_due():
                    self._look()
            except FlavorError as error:
                self._refuse(error)
            except OSError as error:  # the share is away, or full: what was asked stays there
                self._tell_trouble(error)
                self._closing.wait(LONGEST_PAUSE_S)
            else:
                self._trouble = ""
            pause_s = QUICK_PAUSE_S if is_asked else min(LONGEST_PAUSE_S, pause_s * _GROWTH)

    def _tell_trouble(self, error: OSError) -> None:
        """Tell this site's user what keeps the relay from answering, once until it answers again."""
        assert self._folder is not None
        if self._trouble != (trouble := error.strerror or str(error)):
            self._trouble = trouble
            self._tell(printable(f"the events of the script wait for the folder {self._folder.path}: {trouble}"))

    def _refuse(self, error: FlavorError) -> None:
        """Answer everything with this error: Redis is away for longer than this site waits for it."""
        assert self._folder is not None
        with contextlib.suppress(OSError):
            for name in self._folder.asked():
                self._folder.answer(name, Answer(error=error))
        self._waits.clear()
        self._closing.wait(LONGEST_PAUSE_S)

    def _answer_all(self) -> bool:
        """Answer what can be answered at once; returns whether anything new was asked. Raises `OSError`."""
        folder = self._folder
        assert folder is not None
        see_anew(folder.local)
        asked, is_new = folder.asked(), False
        self._waits = {name: wait for name, wait in self._waits.items() if name in asked}  # others were withdrawn
        for name in asked:
            if name in self._waits:
                continue
            is_new = True
            try:
                ask = Ask.read(folder.asks / name)
            except FileNotFoundError:  # withdrawn
                continue
            except InvalidRecord as error:
                self._answer(name, Answer(error=InvalidSetting(str(error))))
                continue
            self._say(self._askers.greet(ask.asker))
            if ask.call is Call.WAIT_STARTED:
                self._begin_wait(name, ask)
            else:
                self._answer(name, self._answered_at_once(ask))
        self._forget_unread()
        return is_new

    def _say(self, line: str) -> None:
        if line:
            self._tell(line)

    def _begin_wait(self, name: str, ask: Ask) -> None:
        assert self._events is not None
        self._events.begin_wait(ask.round)
        self._waits[name] = ask, None if ask.timeout_s is None else time.monotonic() + ask.timeout_s

    def _answered_at_once(self, ask: Ask) -> Answer:
        try:
            return Answer(self._done(ask))
        except (FlavorError, RunOver) as error:
            return Answer(error=error)

    def _done(self, ask: Ask) -> Any:
        events = self._events
        assert events is not None
        if ask.call is Call.NEWEST_STARTED:
            return events.newest_started()
        if ask.call is Call.TAKE:
            self._askers.take(ask.asker, ask.round)
            return events.take(ask.round)
        if ask.call is Call.TAKEN:
            return events.taken()
        if ask.call is Call.LEFT_S:
            return events.left_s(ask.round)
        assert ask.event is not None
        if ask.call is Call.IS_SET:
            return events.is_set(ask.event, ask.round)
        if ask.call is Call.CLEAN:
            events.clean(ask.event, ask.round)
            if ask.event is Event.TRAIN_FINISHED:
                mark_path(self._workspace.local_model).unlink(missing_ok=True)
            return None
        if ask.event is Event.TRAIN_FINISHED:
            self._say(self._askers.finish(ask.asker, ask.round))
        return self._set(events, ask.event, ask.round)

    def _set(self, events: ClientEvents, event: Event, round_: int) -> None:
        is_marked = event is Event.TRAIN_FINISHED and self._mark(round_)
        try:
            events.set(event, round_)
        except BaseException:
            if is_marked:  # the event is not set: the script may write again, and set it then
                mark_path(self._workspace.local_model).unlink(missing_ok=True)
            raise

    def _mark(self, round_: int) -> bool:
        """Mark the files as this machine sees them, once it sees what the script has saved."""
        local, info = self._workspace.local_model, self._workspace.local_info
        see_anew(local.parent, local, info)
        return write_mark(local, self._workspace.global_model, round_)

    def _is_due(self) -> bool:
        now = time.monotonic()
        ends = [until for _, until in self._waits.values() if until is not None]
        return now - self._looked_at >= _REREAD_S or any(until <= now for until in ends)

    def _look(self) -> None:
        """Read whether a round has begun for what waits for one."""
        self._looked_at = time.monotonic()
        for name, (ask, until) in list(self._waits.items()):
            assert self._events is not None
            try:
                round_ = self._events.started_after(ask.round)
            except (LeaseLost, RunOver) as error:
                self._over = error if isinstance(error, RunOver) else self._over
                self._answer(name, Answer(error=error))
                continue
            if round_:
                self._answer(name, Answer(round_))
            elif until is not None and time.monotonic() >= until:
                self._answer(name, Answer(error=self._timeout(ask)))

    def _timeout(self, ask: Ask) -> WaitTimeout:
        return WaitTimeout(
            f"client {self._client!r}: TrainStarted did not come within {ask.timeout_s:g} s; `flavor status "
            f"{self._run}` shows what the run waits for"
        )

    def _answer(self, name: str, answer: Answer) -> None:
        assert self._folder is not None
        self._folder.answer(name, answer)
        self._waits.pop(name, None)
        self._answered[name] = time.monotonic()

    def _forget_unread(self) -> None:
        """Remove answers that a script has not read for long: it has ended."""
        assert self._folder is not None
        now = time.monotonic()
        for name in [name for name, at in self._answered.items() if now - at >= _KEEP_ANSWERS_S]:
            del self._answered[name]
            with contextlib.suppress(OSError):
                (self._folder.answers / name).unlink(missing_ok=True)


def _is_same(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return False
