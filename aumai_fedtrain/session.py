"""Sessions: what `aumai-fedtrain status` knows of trainings that other processes have prepared or run.

They stand in Redis, in one hash by model name. Without a Redis URL that is an embedded server on a data folder (below
`--home`), which each command starts, with its append-only file, and stops again. Two servers on one folder would
destroy it, so a command holds the folder's lock while it has the server; `status` joins a server that is there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from aumai_fedtrain.models import GlobalState, TrainingConfig
from flavor.bus.connection import Redis, connect, shown, translated, wait_for_server
from flavor.bus.embedded import embedded_server
from flavor.bus.keys import FEDTRAIN_SESSIONS
from flavor.errors import BusUnavailable, InvalidSetting, LeaseHeld
from flavor.locks import locked

HOME = Path(".aumai-fedtrain")
"""Where sessions, and the store of live nodes, lie unless other places are named."""
_LOCK_S = 10.0
_LOOK_S = 0.05


class Status(StrEnum):
    """Where a session is."""

    INITIALIZED = "initialized"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Session(BaseModel):
    """One training, as its command has last recorded it."""

    model_config = ConfigDict(frozen=True)

    config: TrainingConfig
    status: Status = Status.INITIALIZED
    run: str | None = None
    """The run on the bus, for live nodes; None for a simulation."""
    round_id: int = 0
    avg_loss: float | None = None
    credits: dict[str, int] = {}
    reason: str = ""
    """Why it failed."""
    updated_at: float = 0.0
    """Seconds since 1970, by the clock of whoever recorded it."""
    host: str = ""
    pid: int = 0

    def at(self, status: Status, state: GlobalState | None = None, reason: str = "") -> Session:
        """The session now, in this process."""
        news: dict[str, object] = {"status": status, "reason": reason, "updated_at": time.time()}
        news |= {"host": socket.gethostname(), "pid": os.getpid()}
        if state is not None:
            news |= {"round_id": state.round_id, "avg_loss": state.avg_loss, "credits": state.credits}
        return self.model_copy(update=news)

    @property
    def standing(self) -> Status:
        """The status, seen from here: a process on this machine that is gone no longer runs."""
        if self.status is Status.RUNNING and self.host == socket.gethostname() and not _is_alive(self.pid):
            return Status.INTERRUPTED
        return self.status


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Sessions:
    """The sessions on one server."""

    def __init__(self, redis: Redis, url: str) -> None:
        self.redis, self.url = redis, url

    def save(self, session: Session) -> None:
        """Record a session under its model's name."""
        with translated(shown(self.url)):
            self.redis.hset(FEDTRAIN_SESSIONS, session.config.model_name, session.model_dump_json())

    def all(self) -> list[Session]:
        """Every session, the newest first; what cannot be read is left out."""
        with translated(shown(self.url)):
            texts = self.redis.hvals(FEDTRAIN_SESSIONS)
        found = []
        for text in texts:
            with contextlib.suppress(ValidationError):
                found.append(Session.model_validate_json(text))
        return sorted(found, key=lambda session: session.updated_at, reverse=True)


@contextlib.contextmanager
def open_sessions(redis_url: str | None, home: Path) -> Iterator[Sessions]:
    """The sessions at `redis_url`, or below `home`, to be written.

    Raises `BusUnavailable`; `LeaseHeld` when another process has the folder for longer than ten seconds.
    """
    if redis_url:
        with _connected(redis_url) as sessions:
            yield sessions
        return
    folder = _data_folder(home)
    deadline = time.monotonic() + _LOCK_S
    while True:
        with locked(folder / "lock") as is_mine:
            if is_mine:
                with _served(folder) as sessions:
                    yield sessions
                return
        if time.monotonic() > deadline:
            raise _held(folder, home)
        time.sleep(_LOOK_S)


def read_sessions(redis_url: str | None, home: Path) -> list[Session]:
    """Every session at `redis_url`, or below `home`, the newest first; of a training that runs, as it is now.

    Raises `BusUnavailable`, `LeaseHeld`.
    """
    if redis_url:
        with _connected(redis_url) as sessions:
            return sessions.all()
    if not home.exists():
        return []
    folder = _data_folder(home)
    deadline = time.monotonic() + _LOCK_S
    while True:
        with locked(folder / "lock") as is_mine:
            if is_mine:
                with _served(folder) as sessions:
                    return sessions.all()
        with contextlib.suppress(BusUnavailable, OSError):  # it may be starting, or just ending
            url = (folder / "url").read_text(encoding="utf-8")
            with _connected(url, patience_s=0.0) as sessions:
                return sessions.all()
        if time.monotonic() > deadline:
            raise _held(folder, home)
        time.sleep(_LOOK_S)


@contextlib.contextmanager
def _connected(url: str, patience_s: float = 10.0) -> Iterator[Sessions]:
    redis = connect(url, patience_s=patience_s, client_name="aumai-fedtrain")
    try:
        wait_for_server(redis, url)
        yield Sessions(redis, url)
    finally:
        redis.close()


def _data_folder(home: Path) -> Path:
    folder = home / "sessions"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSetting(f"--home {home}: {error.strerror}: name a folder that can be written") from None
    return folder


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[Sessions]:
    """A server on the folder, whose URL stands in it for those that only read."""
    (folder / "valkey.log").unlink(missing_ok=True)  # that of the last command, and only it, is of use
    with embedded_server(append_only=True, folder=folder) as url:
        (folder / "pid").write_text(str(os.getpid()), encoding="utf-8")
        (folder / "url").write_text(url, encoding="utf-8")
        try:
            with _connected(url) as sessions:
                yield sessions
        finally:
            (folder / "url").unlink(missing_ok=True)


def _held(folder: Path, home: Path) -> LeaseHeld:
    with contextlib.suppress(OSError):
        pid = (folder / "pid").read_text(encoding="utf-8")
        return LeaseHeld(
            f"another aumai-fedtrain (process {pid}) has the sessions in {home}: wait for it, or name another --home"
        )
    return LeaseHeld(f"another process has the sessions in {home}: wait for it, or name another --home")
