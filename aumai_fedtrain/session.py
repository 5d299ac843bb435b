"""Sessions: what `aumai-fedtrain status` shows of trainings that other processes have prepared or run.

With a Redis URL, the sessions are fields of one hash in Redis. Without one, each session is a JSON file below `--home`,
which `save` replaces as a whole, so that `status` can read it while the training runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from aumai_fedtrain.models import GlobalState, TrainingConfig
from flavor.atomic import cannot_write, write_whole
from flavor.bus.connection import Redis, connect, shown, translated, wait_for_server
from flavor.bus.keys import FEDTRAIN_SESSIONS
from flavor.errors import InvalidSetting

HOME = Path(".aumai-fedtrain")
"""Default folder of the sessions, and of the object store of live nodes."""


class Status(StrEnum):
    """What a session is doing."""

    INITIALIZED = "initialized"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Session(BaseModel):
    """One training, as its command recorded it last."""

    model_config = ConfigDict(frozen=True)

    config: TrainingConfig
    status: Status = Status.INITIALIZED
    run: str | None = None
    """The run on the bus, for live nodes; None for a simulation."""
    round_id: int = 0
    avg_loss: float | None = None
    credits: dict[str, int] = {}
    reason: str = ""
    """Why the training failed; '' for one that did not."""
    updated_at: float = 0.0
    """Seconds since 1970, by the clock of the process that recorded the session."""
    host: str = ""
    pid: int = 0

    def at(self, status: Status, state: GlobalState | None = None, reason: str = "") -> Session:
        """Return the session with this status, as this process records it now; `state` is that of the newest round."""
        news: dict[str, object] = {"status": status, "reason": reason, "updated_at": time.time()}
        news |= {"host": socket.gethostname(), "pid": os.getpid()}
        if state is not None:
            news |= {"round_id": state.round_id, "avg_loss": state.avg_loss, "credits": state.credits}
        return self.model_copy(update=news)

    @property
    def standing(self) -> Status:
        """The status; INTERRUPTED for a session that says RUNNING, but whose process on this machine is gone."""
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


class Sessions(Protocol):
    """Where sessions are kept, one for each model name."""

    def save(self, session: Session) -> None:
        """Record a session under its model's name, in place of the one that was recorded before."""

    def all(self) -> list[Session]:
        """Return every session, the newest first; sessions that cannot be parsed are left out."""


class RedisSessions:
    """Sessions in one hash of a Redis server. Both methods raise `BusUnavailable`."""

    def __init__(self, redis: Redis, url: str) -> None:
        self._redis, self._url = redis, url

    def save(self, session: Session) -> None:
        """See `Sessions`."""
        with translated(shown(self._url)):
            self._redis.hset(FEDTRAIN_SESSIONS, session.config.model_name, session.model_dump_json())

    def all(self) -> list[Session]:
        """See `Sessions`."""
        with translated(shown(self._url)):
            return _parsed(self._redis.hvals(FEDTRAIN_SESSIONS))


class FileSessions:
    """Sessions in one folder, a JSON file each. A model name can hold any character, so its SHA-256 names the file."""

    def __init__(self, home: Path) -> None:
        self._home, self._folder = home, home / "sessions"

    def create(self) -> None:
        """Create the folder, for its owner alone; `InvalidSetting` where that is not possible."""
        with self._naming_home():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(self, session: Session) -> None:
        """See `Sessions`. Raises `StoreError` for a file that cannot be written."""
        name = hashlib.sha256(session.config.model_name.encode()).hexdigest()[:32]
        path = self._folder / f"{name}.json"
        try:
            write_whole(path, session.model_dump_json(), mode=0o600)
        except OSError as error:
            raise cannot_write(path, error) from None

    def all(self) -> list[Session]:
        """See `Sessions`. Raises `InvalidSetting` for a folder that cannot be read."""
        with self._naming_home():
            return _parsed(path.read_bytes() for path in self._folder.glob("*.json"))

    @contextlib.contextmanager
    def _naming_home(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InvalidSetting(f"--home {self._home}: {error.strerror}: name a folder that can be written") from None


@contextlib.contextmanager
def open_sessions(redis_url: str | None, home: Path) -> Iterator[Sessions]:
    """The sessions at `redis_url`, or below `home`, to be written.

    Raises `BusUnavailable` for a server that does not answer, `InvalidSetting` for a `home` that cannot be created.
    """
    if redis_url:
        with _connected(redis_url) as sessions:
            yield sessions
        return
    files = FileSessions(home)
    files.create()
    yield files


def read_sessions(redis_url: str | None, home: Path) -> list[Session]:
    """Every session at `redis_url`, or below `home`, the newest first; nothing is created.

    A training that runs records its session after each round. Raises `BusUnavailable`, `InvalidSetting`.
    """
    if redis_url:
        with _connected(redis_url) as sessions:
            return sessions.all()
    return FileSessions(home).all()


@contextlib.contextmanager
def _connected(url: str) -> Iterator[Sessions]:
    redis = connect(url, patience_s=10.0, client_name="aumai-fedtrain")
    try:
        wait_for_server(redis, url)
        yield RedisSessions(redis, url)
    finally:
        redis.close()


def _parsed(texts: Iterable[str | bytes]) -> list[Session]:
    """The sessions that these JSON texts hold, the newest first."""
    found = []
    for text in texts:
        with contextlib.suppress(ValidationError):
            found.append(Session.model_validate_json(text))
    return sorted(found, key=lambda session: session.updated_at, reverse=True)
