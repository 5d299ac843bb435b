"""The functions that a training script calls: three events, two files, a report of its progress, and a few paths.

    from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

    SetEvent("TrainInitDone")                 # ready
    while True:
        WaitEvent("TrainStarted")             # a global model, if there is one, is at $GLOBAL_MODEL_PATH
        ...                                   # train, save {"state_dict": ...} to $LOCAL_MODEL_PATH
        SaveInfoJson({"metadata": ..., "metrics": ...})
        SetEvent("TrainFinished")             # hand both files in

`flavor-fl` and `check-fl` set the environment that these functions read. Importing this module takes as long as
importing redis: it loads no numpy, torch, rq or pydantic.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flavor.atomic import write_json, write_whole
from flavor.bus.variables import RELAY_VARIABLE
from flavor.cook.report import Report, flush
from flavor.cook.session import Session as _Session
from flavor.cook.session import is_evaluator, is_started_anew, no_events, start_event, variable
from flavor.errors import AggregatorFailed, EvaluatorFailed, InvalidSetting, WaitTimeout
from flavor.programs.aggregator_paths import KINDS, read_paths, write_paths
from flavor.programs.finished_mark import mark_path, write_mark
from flavor.records.info import FILE_NAME, MERGED_NAME, checked_info, completed, info_bytes, read_info
from flavor.records.merging import merge_infos
from flavor.records.names import Event, event_name

__all__ = [
    "CleanAllEvent",
    "CleanEvent",
    "CleanInfoJson",
    "EventSet",
    "GetPaths",
    "IsSetEvent",
    "LoadGlobalInfoJson",
    "PathSet",
    "Report",
    "SaveGlobalInfoJson",
    "SaveInfoJson",
    "SetEvent",
    "SetPaths",
    "TimeLeft",
    "WaitEvent",
]


EventSet = frozenset(Event)
"""The names of all events."""
PathSet = frozenset(KINDS)
"""The kinds of paths that `GetPaths` and `SetPaths` know."""
_LOOK_S = 1.0


def SetEvent(event: str) -> None:
    """Set `event` in the current round. Setting it twice is harmless.

    `TrainFinished` marks both files as they are now: the edge refuses files that the script writes to after that.

    Raises `UnknownEvent` (a `ValueError`) for a name that is not in the protocol, `MissingVariable` outside of
    `flavor-fl`, `BusUnavailable` when Redis cannot be reached. After an error the event is not set.
    """
    name = event_name(event)
    if is_evaluator():
        if name is Event.PROCESS_FINISHED:
            return
        if name is Event.ERROR:
            raise EvaluatorFailed("the evaluator set the event Error")
        raise no_events(f"SetEvent({name.value!r})")
    if is_started_anew():
        if name is Event.PROCESS_FINISHED:  # the end of the process says the same
            return
        if name is Event.ERROR:
            raise AggregatorFailed("the aggregator set the event Error")
        raise no_events(f"SetEvent({name.value!r})")
    session = _Session.current()
    round_ = session.round_of(name)
    if name is Event.TRAIN_FINISHED:
        flush()  # the last report of this round, before its edge hears of the end
    ends_training = name is session.finishes[0] is Event.TRAIN_FINISHED
    is_marked = ends_training and session.events.marks_files and _write_mark(round_)
    try:
        session.events.set(name, round_)
    except BaseException:
        if is_marked:  # the event is not set: the script may write again, and set it then
            _remove_mark()
        raise
    if session.round is not None and name in session.finishes:
        session.enter(session.round)  # it is finished, also where IsSetEvent found it


def WaitEvent(event: str, is_error: Any = None, *, timeout_s: float | None = None) -> int:
    """Wait until `event` is set, and return the number of its round (1, 2, ...).

    A trainer waits for `TrainStarted` of the next round that it has not trained yet, and takes that round up. An
    aggregator (`flavor-agg --init-once`) waits for `AggregateStarted`. `timeout_s` is in seconds; without it the wait
    lasts as long as the run. `is_error` is an object with an attribute `value`, such as a `multiprocessing.Value`: the
    wait also ends, within a second, once that value is not 0.

    Raises `InvalidSetting` (a `ValueError`) for an event that this script is never sent; `WaitTimeout` (a
    `TimeoutError`); `RunOver` (a `SystemExit`, code 0 if the run finished) when the run ends first, so that an endless
    loop ends there; `LeaseLost` when this client's edge is gone; else as `SetEvent`.
    """
    name = event_name(event)
    if is_error is not None and not hasattr(is_error, "value"):
        is_error, timeout_s = None, is_error
    if timeout_s is not None and not timeout_s >= 0:
        raise InvalidSetting(f"WaitEvent: timeout_s must be seconds, 0 or more, and is {timeout_s!r}")
    if is_started_anew():
        raise no_events(f"WaitEvent({name.value!r})")
    starts = start_event()
    if name is not starts:
        raise InvalidSetting(_never_sent(name))
    session = _Session.current()
    behind, until = session.behind(), math.inf if timeout_s is None else time.monotonic() + timeout_s
    while is_error is not None and is_error.value == 0 and time.monotonic() + _LOOK_S < until:
        with contextlib.suppress(WaitTimeout):
            return session.enter(session.events.wait_started(behind, timeout_s=_LOOK_S))
    if is_error is not None and is_error.value != 0:
        return session.round or 0
    left_s = timeout_s if is_error is None else max(0.0, until - time.monotonic())
    return session.enter(session.events.wait_started(behind, timeout_s=left_s))


def _never_sent(event: Event) -> str:
    """The message for a script that waits for an event that it never gets: why, and what to wait for."""
    starts = start_event()
    trains = starts is Event.TRAIN_STARTED
    who = "a trainer" if trains else "an aggregator"
    finishes = Event.TRAIN_FINISHED if trains else Event.AGGREGATE_FINISHED
    own = event in (Event.TRAIN_INIT_DONE, finishes, Event.PROCESS_FINISHED, Event.ERROR)
    why = f"{who} sets it itself, and is never sent it" if own else f"{who} is never sent it"
    return f"WaitEvent({event.value!r}): {why}, so this call would never return: call WaitEvent({starts.value!r})"


def IsSetEvent(event: str) -> bool:
    """Whether `event` is set in the current round.

    For the event that begins a round: whether `WaitEvent` would return at once. If so, this function takes the round up
    as `WaitEvent` does, and it becomes the current round. The answer stays True until that round is finished.
    """
    name = event_name(event)
    session = _Session.current()
    if name is session.starts:
        if (newest := session.events.newest_started()) <= session.behind():
            return False
        session.events.take(newest)
        session.enter(newest, waited=False)
        return True
    return session.events.is_set(name, session.round_of(name))


def TimeLeft() -> float | None:
    """The seconds to the deadline of the current round, by the Redis server's clock; 0.0 once it has passed.

    An update that comes after the deadline may not count: a slow site can train fewer steps, and still take part. In an
    asynchronous run it is 0.0 once the task was given up as too old, and None before. None where the round has no
    deadline for this script: in `check-fl`, after the end of the run, and in a script that is no trainer or has not
    taken up a round. Each call asks the server. Raises as `SetEvent`.
    """
    if is_evaluator() or is_started_anew() or start_event() is not Event.TRAIN_STARTED:
        return None
    session = _Session.current()
    round_ = session.round or session.events.taken()  # which check-fl does not take for a wait
    return session.events.left_s(round_) if round_ else None


def CleanEvent(event: str) -> None:
    """Unset `event` in the current round. For the event that begins a round: take the round up, as `WaitEvent` does."""
    name = event_name(event)
    session = _Session.current()
    if name is session.starts:
        if newest := session.events.newest_started():
            session.events.take(session.enter(newest))
    else:
        session.events.clean(name, session.round_of(name))
        if name is Event.TRAIN_FINISHED:
            _remove_mark()


def CleanAllEvent() -> None:
    """Unset all events of the current round except those of its beginning and its end.

    Events belong to a round of a run, so none is left over from an earlier round or run.
    """
    session = _Session.current()
    for name in Event:
        if name is not session.starts and name not in session.finishes:
            session.events.clean(name, session.round_of(name))


def SaveInfoJson(info: dict[str, Any] | None = None, *, output: dict[str, Any] | None = None) -> None:
    """Write the client information of this round to `info.json` beside `$LOCAL_MODEL_PATH`, atomically.

    `info["metadata"]` needs `epoch` and `datasetSize` (int) and `importance` (number). `info["metrics"]` needs the four
    numbers `basic/confusion_tp`, `_fp`, `_fn` and `_tn` (-1 where not tracked), and takes any further number under any
    name. Scalars of numpy and torch are accepted. A metric that is None or NaN counts as missing at this client. Counts
    are summed over the sites: numbers or lists of them under names that begin with `count/`, as the functions of
    `flavor.cook.metrics` make them. With counts, the four numbers may be left out. An evaluator (`flavor-fl -e`) needs
    `datasetSize` and its metrics alone. `output` is another name of `info`.

    Raises `InvalidInfo` (a `ValueError`), which names every bad field, and leaves the file that was there. It also does
    so where the information has more bytes than an info.json may have.
    """
    given: object = output if info is None else info
    if is_evaluator():
        given = completed(given, int(os.environ.get("FLAVOR_ROUND") or 0))
    content = info_bytes(checked_info(given, where="SaveInfoJson"))
    path = _local_info()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def CleanInfoJson() -> None:
    """Remove this client's `info.json`, if there is one."""
    _local_info().unlink(missing_ok=True)


def LoadGlobalInfoJson() -> dict[str, Any] | None:
    """The merged information of the last round's clients, or None before there is any.

    `metadata.datasetSize` and the four `basic/confusion_*` are lists in the order of `metadata.clients`. Every other
    metric is the mean over the clients; NAME + " (weighted)" is its mean weighted by `datasetSize`. Counts, whose names
    begin with `count/`, are sums. Metrics whose names begin with `pooled/` are those of the examples of all clients,
    None where they are 0/0. Where not all clients have a metric, `metadata.metricSites[NAME]` says how many do.
    """
    folder = Path(variable("GLOBAL_MODEL_PATH")).parent
    if os.environ.get(RELAY_VARIABLE):  # another machine has written it
        from flavor.programs.relay_folder import see_anew

        see_anew(folder)
    own = Path(os.environ.get("LOCAL_MODEL_PATH") or folder / "none" / "none").parent
    for name in (MERGED_NAME, FILE_NAME) if own != folder else (MERGED_NAME,):
        with contextlib.suppress(FileNotFoundError):
            info: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
            return info
    return None


def SaveGlobalInfoJson(infos: Sequence[str | os.PathLike[str]], output_info_path: str | os.PathLike[str]) -> None:
    """Merge the `info.json` files of clients into the file `output_info_path`, as the default aggregation does.

    Each client has the name of the folder that its file lies in. Raises `InvalidInfo` for a file that is no info.json.
    """
    paths = [Path(path) for path in infos]
    merged = merge_infos([path.parent.name for path in paths], [read_info(path) for path in paths])
    write_json(Path(output_info_path), merged)


def GetPaths(filename: str) -> list[str]:
    """Read the paths of this kind (`localModels`, `localInfos`, `globalModel`, `globalInfo`) from `$OUTPUT_PATH`."""
    return read_paths(Path(variable("OUTPUT_PATH")), filename)


def SetPaths(filename: str, items: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> None:
    """Set the path or paths of this kind, for `GetPaths` to return in any process with the same `$OUTPUT_PATH`."""
    chosen = [items] if isinstance(items, str | os.PathLike) else items
    write_paths(Path(variable("OUTPUT_PATH")), filename, chosen)


def current_round() -> int | None:
    """The round that this process has taken up; None before the first one, and in a process that waits for none."""
    return _Session._instance.round if _Session._instance is not None else None


def _local_info() -> Path:
    return Path(variable("LOCAL_MODEL_PATH")).parent / FILE_NAME


def _write_mark(round_: int) -> bool:
    local, given = (os.environ.get(name) for name in ("LOCAL_MODEL_PATH", "GLOBAL_MODEL_PATH"))
    return bool(local and given) and write_mark(Path(str(local)), Path(str(given)), round_)


def _remove_mark() -> None:
    if local := os.environ.get("LOCAL_MODEL_PATH"):
        with contextlib.suppress(OSError):
            mark_path(Path(local)).unlink(missing_ok=True)
