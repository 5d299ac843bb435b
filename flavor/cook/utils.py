"""What a training script calls: three events, two files, a few paths.

    from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

    SetEvent("TrainInitDone")                 # ready
    while True:
        WaitEvent("TrainStarted")             # the global model is at $GLOBAL_MODEL_PATH (from round 2 on)
        ...                                   # train, save {"state_dict": ...} to $LOCAL_MODEL_PATH
        SaveInfoJson({"metadata": ..., "metrics": ...})
        SetEvent("TrainFinished")             # hand both files in

`flavor-fl` (and `check-fl`) set the environment that these functions read. Importing this module costs what redis
costs: no numpy, torch, rq or pydantic is loaded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flavor.bus.names import Event, event_name
from flavor.errors import AggregatorFailed, InvalidSetting, MissingVariable
from flavor.handover import read_paths, write_paths
from flavor.store.info import FILE_NAME, checked_info, write_json

if TYPE_CHECKING:
    from flavor.bus.events import ClientEvents

__all__ = [
    "CleanEvent",
    "CleanInfoJson",
    "GetPaths",
    "IsSetEvent",
    "LoadGlobalInfoJson",
    "SaveInfoJson",
    "SetEvent",
    "SetPaths",
    "WaitEvent",
]


def SetEvent(event: str) -> None:
    """Say that `event` has happened in the current round. Setting it twice is harmless.

    Raises `UnknownEvent` (a `ValueError`) for a name that is not in the protocol, `MissingVariable` outside of
    `flavor-fl`, `BusUnavailable` when Redis cannot be reached; the event is not set then.
    """
    name = event_name(event)
    if _is_started_anew():
        if name is Event.PROCESS_FINISHED:  # as the end of the process says, too
            return
        if name is Event.ERROR:
            raise AggregatorFailed("the aggregator set the event Error")
        raise _no_events(f"SetEvent({name.value!r})")
    session = _Session.current()
    session.events.set(name, session.round_of(name))


def WaitEvent(event: str, timeout_s: float | None = None) -> int:
    """Wait until `event` has happened, and return the number of the round (1, 2, ...) that it belongs to.

    For `TrainStarted` that is the next round this client has not trained in yet, for `AggregateStarted` in an
    aggregator (`flavor-agg --init-once`) the next one it has not aggregated. `timeout_s` is in seconds; without it
    the wait lasts as long as the run.

    Raises `WaitTimeout` (a `TimeoutError`); `RunOver` (a `SystemExit`, code 0 if the run finished) when the run ends
    first, so that an endless loop ends there; `LeaseLost` when this client's edge is gone; else as `SetEvent`.
    """
    name = event_name(event)
    if timeout_s is not None and not timeout_s >= 0:
        raise InvalidSetting(f"WaitEvent: timeout_s must be seconds, 0 or more, and is {timeout_s!r}")
    if _is_started_anew():
        raise _no_events(f"WaitEvent({name.value!r})")
    session = _Session.current()
    if name is session.starts:
        session.round = session.events.wait_started(session.behind(), timeout_s=timeout_s)
    else:
        session.events.wait(name, session.round_of(name), timeout_s=timeout_s)
    return session.round or 0


def IsSetEvent(event: str) -> bool:
    """Whether `event` has happened in the current round.

    For the event that begins a round: whether there is one that `WaitEvent` would return for at once.
    """
    name = event_name(event)
    session = _Session.current()
    if name is session.starts:
        return session.events.newest_started() > session.behind()
    return session.events.is_set(name, session.round_of(name))


def CleanEvent(event: str) -> None:
    """Forget that `event` has happened in the current round. The one that begins a round: take it as waited for."""
    name = event_name(event)
    session = _Session.current()
    if name is session.starts:
        session.round = session.events.newest_started() or None
        if session.round:
            session.events.take(session.round)
    else:
        session.events.clean(name, session.round_of(name))


def SaveInfoJson(output: dict[str, Any]) -> None:
    """Write the client information of this round to `info.json` beside `$LOCAL_MODEL_PATH`, atomically.

    `output["metadata"]` needs `epoch` and `datasetSize` (int) and `importance` (number); `output["metrics"]` the four
    `basic/confusion_tp`, `_fp`, `_fn`, `_tn` numbers (-1 if not tracked) and any further number under any name.
    numpy's and torch's scalars will do. A metric that is None or NaN is missing at this client.

    Raises `InvalidInfo` (a `ValueError`) naming every bad field; the file that was there is untouched then.
    """
    info = checked_info(output, where="SaveInfoJson")
    path = _local_info()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, info)


def CleanInfoJson() -> None:
    """Remove this client's `info.json`, if there is one."""
    _local_info().unlink(missing_ok=True)


def LoadGlobalInfoJson() -> dict[str, Any] | None:
    """The merged information of the last round's clients, or None before there is any.

    `metadata.datasetSize` and every `basic/*` metric are lists in the order of `metadata.clients`; every other metric
    is a mean over clients, with its mean weighted by `datasetSize` beside it under NAME + " (weighted)". Where not all
    of them have it, `metadata.metricSites[NAME]` says how many do.
    """
    path = Path(_variable("GLOBAL_MODEL_PATH")).parent / FILE_NAME
    try:
        info: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return info


def GetPaths(kind: str) -> list[str]:
    """The paths of this kind (`localModels`, `localInfos`, `globalModel`, `globalInfo`), from `$OUTPUT_PATH`."""
    return read_paths(Path(_variable("OUTPUT_PATH")), kind)


def SetPaths(kind: str, paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> None:
    """Set the path or paths of this kind, for `GetPaths` to return in any process with the same `$OUTPUT_PATH`."""
    chosen = [paths] if isinstance(paths, str | os.PathLike) else paths
    write_paths(Path(_variable("OUTPUT_PATH")), kind, chosen)


def _is_started_anew() -> bool:
    """Whether this is an aggregator that is started anew in each round: it has no bus."""
    return os.environ.get("FLAVOR_ROLE") == "aggregator" and not os.environ.get("FLAVOR_REDIS_URL")


def _no_events(what: str) -> InvalidSetting:
    return InvalidSetting(
        f"{what}: an aggregator that is started anew in each round has no events: leave them out, or pass --init-once"
    )


def _local_info() -> Path:
    return Path(_variable("LOCAL_MODEL_PATH")).parent / FILE_NAME


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise MissingVariable(
            f"the environment variable {name} is not set: run this script through `flavor-fl -m`, `flavor run -m` or "
            "`check-fl -m`, which set it"
        )
    return value


class _Session:
    """This process's place in the run: its connection, and the round that it is in (None before it has waited)."""

    _instance: _Session | None = None

    def __init__(self, round_: int | None = None) -> None:
        from flavor.bus.address import from_environment
        from flavor.bus.events import ClientEvents

        self.pid = os.getpid()
        self.round = round_
        aggregates = os.environ.get("FLAVOR_ROLE") == "aggregator"
        self.starts = Event.AGGREGATE_STARTED if aggregates else Event.TRAIN_STARTED
        self._finishes = (Event.AGGREGATE_FINISHED, Event.PROCESS_FINISHED) if aggregates else (Event.TRAIN_FINISHED,)
        self.events: ClientEvents = ClientEvents(
            from_environment(os.environ, _variable("FLAVOR_REDIS_URL")),
            _variable("FLAVOR_RUN"),
            _variable("FLAVOR_CLIENT"),
            edge=os.environ.get("FLAVOR_EDGE", ""),
            starts=self.starts,
        )

    @classmethod
    def current(cls) -> _Session:
        """The session of this process; a fork gets its own connection and keeps the round."""
        if _is_started_anew():
            raise _no_events("events")
        if cls._instance is None or cls._instance.pid != os.getpid():
            cls._instance = cls(cls._instance.round if cls._instance else None)
        return cls._instance

    def round_of(self, event: Event) -> int:
        """The round that an event set or read now belongs to."""
        if self.round is None:
            return 0 if event is Event.TRAIN_INIT_DONE else self.events.newest_started()
        return 0 if event is Event.TRAIN_INIT_DONE else self.round

    def behind(self) -> int:
        """The newest round that is behind this script.

        A process that has waited knows; one that has not (a script that starts a process a step) reads it.
        """
        if self.round is not None:
            return self.round
        started = self.events.newest_started()
        finished = started and any(self.events.is_set(event, started) for event in self._finishes)
        return started if finished else max(0, started - 1)
