"""The folder through which a script talks to its edge where the script's machine has no way to Redis.

Each start of a script has a folder of its own, `START` below, so that no edge answers what an earlier one has started:

    START/asks/NAME.json      what the script asks, one file for each call
    START/answers/NAME.json   what the edge answers
    START/answers/beat-N      the edge counts N up, every few seconds, as a sign of life
    START/answers/closed.json why nothing is answered any more
    START/run                 the identifier of the run
    START/local/              the folder of the script's checkpoint

The folder may be on NFS: a file is written whole and renamed, and a reader lists a folder before it looks at its files,
because that makes NFS ask its server.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from flavor.atomic import write_json
from flavor.errors import (
    BusUnavailable,
    FlavorError,
    InvalidRecord,
    InvalidSetting,
    LeaseLost,
    RunOver,
    WaitTimeout,
)
from flavor.plain_file import read_plain
from flavor.records.names import Event, event_name

CLOSED = "closed.json"
BEAT_EVERY_S = 5.0
"""Seconds between two signs of life of an edge."""
LONGEST_PAUSE_S = 1.0
"""Seconds between two looks into a folder in which nothing happens."""
QUICK_PAUSE_S = 0.01
_MOST_BYTES = 1 << 16
_MOST_WORDS = 200
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}\.json")
_BEAT = "beat-"
_RUN = "run"
_PASSED_ON = (BusUnavailable, LeaseLost, InvalidSetting, WaitTimeout)
_ERRORS: dict[str, type[FlavorError]] = {each.__name__: each for each in _PASSED_ON}


class Call(StrEnum):
    """What a script can ask of its edge; each is a method of `flavor.bus.events.ClientEvents`."""

    SET = "set"
    CLEAN = "clean"
    IS_SET = "is_set"
    NEWEST_STARTED = "newest_started"
    WAIT_STARTED = "wait_started"
    TAKE = "take"
    TAKEN = "taken"
    LEFT_S = "left_s"


@dataclass(frozen=True)
class Asker:
    """The process that asks."""

    host: str = ""
    job: str = ""
    """The number of its Slurm job; '' without one."""
    restarts: str = ""
    """How often Slurm has started that job again."""
    nodes: int = field(default=1, compare=False)
    """On how many machines its script runs, as `srun` or torchrun says."""

    @classmethod
    def of(cls, host: str, environment: Mapping[str, str]) -> Asker:
        """Return this process's, from its environment."""
        told = [environment.get(name, "") for name in ("SLURM_STEP_NUM_NODES", "GROUP_WORLD_SIZE")]
        nodes = max([1, *(int(each) for each in told if re.fullmatch("[0-9]{1,6}", each))])
        return cls(host, environment.get("SLURM_JOB_ID", ""), environment.get("SLURM_RESTART_COUNT", ""), nodes)


@dataclass(frozen=True)
class Ask:
    """One call of a script."""

    call: Call
    event: Event | None = None
    round: int = 0
    """The round of the event, or the round after which a wait looks for one."""
    timeout_s: float | None = None
    """How long to wait; None for as long as it takes."""
    asker: Asker = Asker()

    def write(self, path: Path) -> None:
        """Write it for the edge. Raises `OSError`."""
        write_json(path, {**asdict(self), "call": self.call.value, "event": self.event and self.event.value})

    @classmethod
    def read(cls, path: Path) -> Ask:
        """Read what a script asks. Raises `FileNotFoundError`, and `InvalidRecord` for anything else."""
        return cls.parse(read_plain(path, most=_MOST_BYTES))

    @classmethod
    def parse(cls, data: bytes) -> Ask:
        """Read what a script asks. Raises `InvalidRecord`."""
        try:
            found = json.loads(data)
            asker = {name: str(found["asker"][name])[:_MOST_WORDS] for name in ("host", "job", "restarts")}
            nodes = found["asker"].get("nodes", 1)  # which earlier scripts do not say
            if type(nodes) is not int or not 1 <= nodes < 1 << 20:
                raise ValueError(nodes)
            round_ = found["round"]
            if type(round_) is not int or not 0 <= round_ < 1 << 53:
                raise ValueError(round_)
            event = None if found["event"] is None else event_name(found["event"])
            timeout_s = None if found["timeout_s"] is None else float(found["timeout_s"])
            if timeout_s is not None and not 0 <= timeout_s < math.inf:
                raise ValueError(timeout_s)
            call = Call(found["call"])
            if event is None and call in (Call.SET, Call.CLEAN, Call.IS_SET):
                raise ValueError(call)
            return cls(call, event, round_, timeout_s, Asker(**asker, nodes=nodes))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise InvalidRecord("this is nothing that a script asks of its edge") from None


@dataclass(frozen=True)
class Answer:
    """What an edge answers: a value, or an error."""

    value: float | bool | None = None
    error: BaseException | None = None

    def write(self, path: Path) -> None:
        """Write it for the script. Raises `OSError`."""
        write_json(path, self._to_json())

    def _to_json(self) -> dict[str, Any]:
        error = self.error
        if error is None:
            return {"value": self.value}
        if isinstance(error, RunOver):
            return {"error": "RunOver", "run": error.run, "state": error.state, "reason": error.reason}
        name = next((name for name, kind in _ERRORS.items() if isinstance(error, kind)), "")
        return {"error": name, "text": str(error)}

    @classmethod
    def read(cls, path: Path) -> Answer:
        """Read what the edge has answered. Raises `FileNotFoundError`, and `InvalidRecord` for anything else."""
        return cls.parse(read_plain(path, most=_MOST_BYTES))

    @classmethod
    def parse(cls, data: bytes) -> Answer:
        """Read what the edge has answered. Raises `InvalidRecord`."""
        try:
            found = json.loads(data)
            if "error" not in found:
                value = found["value"]
                if not (value is None or (type(value) in (bool, int, float) and math.isfinite(value))):
                    raise ValueError(value)
                return cls(value)
            if found["error"] == "RunOver":
                return cls(error=RunOver(*(str(found[name]) for name in ("run", "state", "reason"))))
            return cls(error=_ERRORS.get(str(found["error"]), FlavorError)(str(found["text"])))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise InvalidRecord("this is nothing that an edge answers") from None


@dataclass(frozen=True)
class RelayFolder:
    """The folder of one start of a script."""

    path: Path

    @property
    def asks(self) -> Path:
        """The folder of what the script asks."""
        return self.path / "asks"

    @property
    def answers(self) -> Path:
        """The folder of what the edge answers."""
        return self.path / "answers"

    @property
    def local(self) -> Path:
        """The folder of the script's checkpoint."""
        return self.path / "local"

    @property
    def run_id(self) -> str:
        """The run of this start; '' where it is not noted."""
        with contextlib.suppress(OSError, ValueError):
            return (self.path / _RUN).read_text(encoding="ascii")
        return ""

    def note(self, run_id: str) -> None:
        """Note the run of this start. Raises `OSError`."""
        (self.path / _RUN).write_text(run_id, encoding="ascii")

    @property
    def is_closed(self) -> bool:
        """Whether it is said there that nothing is answered any more."""
        return (self.answers / CLOSED).exists()

    def asked(self) -> list[str]:
        """Return the names of what is not answered yet, sorted; a folder asks nothing. Raises `OSError`."""
        with os.scandir(self.asks) as found:
            return sorted(
                each.name for each in found if _NAME.fullmatch(each.name) and not each.is_dir(follow_symlinks=False)
            )

    def answer(self, name: str, answer: Answer) -> None:
        """Answer what the script has asked under this name, and forget that it has. Raises `OSError`."""
        path = self.answers / name
        try:
            answer.write(path)
        except IsADirectoryError:  # which some program of the site has made
            path.rename(path.with_name(f".{name}.{secrets.token_hex(4)}"))
            answer.write(path)
        (self.asks / name).unlink(missing_ok=True)

    def beat(self, number: int) -> None:
        """Give the sign of life with this number in place of the one before. Raises `OSError`."""
        before, now = (self.answers / f"{_BEAT}{each}" for each in (number - 1, number))
        try:
            before.rename(now)
        except FileNotFoundError:
            now.touch()

    def close(self, answer: Answer) -> None:
        """Answer nothing any more; `answer` says why. An earlier reason stays. Raises `OSError`."""
        if not self.is_closed:
            answer.write(self.answers / CLOSED)


def beats(names: list[str]) -> str:
    """Return the sign of life among the names of a folder; '' for none."""
    return max((name for name in names if name.startswith(_BEAT)), default="")


def see_anew(*paths: Path) -> None:
    """Have a network file system ask its server for these files and folders, which another machine may have changed.

    NFS keeps for up to a minute what it knows of a folder and of a file, and also that there is no file of a name. It
    asks its server when a folder is listed, or a file opened.
    """
    for path in paths:
        with contextlib.suppress(OSError):
            if path.is_dir():
                os.listdir(path)
            else:
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
