"""How a coordinator begins: it creates its run, or finds it there with the same settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flavor.bus.acl import has_users
from flavor.bus.bounds import bounds_warnings
from flavor.bus.persistence import persistence_warnings
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.coordinator.initial_model import check_beginning
from flavor.errors import RunExists, RunStopped
from flavor.exit_codes import ExitCode
from flavor.ledger.history import History
from flavor.ledger.manifest import BegunFrom, Model, RunRecord
from flavor.protocol import new_run_id, record_fields
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.resume import FEDTRAIN, MAY_CHANGE, goes_on_by, is_of_fedtrain, not_by_serve
from flavor.resume import shown as shown_setting
from flavor.site_settings import set_for_options
from flavor.store.opening import once_usable
from flavor.store.paths import run_record_path
from flavor.view.observer import Observer, notices
from flavor.view.round_events import RunCreated


def create_or_find(
    runs: RunStore,
    config: RunConfig,
    history: History,
    *,
    url: str,
    store_url: str,
    initial: GlobalModel | None,
    begun_from: BegunFrom | None,
    observer: Observer,
    pause: Callable[[float], bool],
) -> tuple[bool, RunConfig]:
    """Create the run, or find it; return whether it existed before, and its settings.

    `flavor resume` may have changed the settings of a run that existed. `pause` waits for so many seconds, and returns
    whether to give up. Raises `RunStopped` for a run that was stopped, and `RunExists` for one that has ended
    otherwise, or that has other settings, or began from another model than `initial`.
    """
    tell = notices(observer)
    for line in persistence_warnings(runs.redis, url):
        tell(line)
    if has_users(runs.redis, runs.run):  # others have the operator's own password
        for line in bounds_warnings(runs.redis, url):
            tell(line)
    settings = config.to_mapping()
    if runs.find() is None:
        record = RunRecord(
            run=runs.run,
            run_id=new_run_id(),
            rounds=config.rounds,
            config=settings,
            **record_fields(settings),
            initial=Model.of(initial) if initial else None,
            begun_from=begun_from if initial else None,
            created_ms=runs.now_ms(),
        )
        begun = once_usable(store_url, lambda: history.begin(record), tell=tell, pause=pause)
        left = ObjectRef(run_record_path(runs.run), begun.digest)
        where = begun.begun_from.words if begun.begun_from is not None else ""
        if runs.create(
            rounds=begun.rounds,
            config=settings,
            initial=initial,
            record=left,
            run_id=begun.run_id,
            begun_from=where,
        ):
            begins = f"it begins from {where}" if where else ""
            observer.hear(RunCreated(begins, run=runs.run, run_id=begun.run_id))
            return False, config
    view = runs.read_own()
    RunConfig.check_known(runs.run, view.config, by=view.release)
    found = _found(view, config, tell)
    if initial is not None and not is_of_fedtrain(view):  # of a session in Python, its weights at its start are given
        try:
            once_usable(store_url, lambda: check_beginning(history.archive, initial), tell=tell, pause=pause)
        except RunExists as error:
            raise _refused(str(error)) from None
    return True, found


def _found(view: RunView, config: RunConfig, tell: Callable[[str], None]) -> RunConfig:
    """Return the settings of the run that exists; raises `RunExists` or `RunStopped` unless it may be served."""
    is_finished = view.state is RunState.FINISHED
    if view.state.ended and not (is_finished and _same_but_resumed(view, config)):
        over = f"run {view.run!r} is over ({view.state}: {view.reason}): {goes_on_by(view)}"
        raise RunStopped(over) if view.state is RunState.STOPPED else _refused(over)
    config = standing(view, config, tell)
    if is_finished:
        tell(f"run {view.run!r} was finished before: {goes_on_by(view)}")
    return config


def _refused(message: str) -> RunExists:
    """Return the error, with the exit code after which no service manager starts the same command again."""
    error = RunExists(message)
    error.exit_code = ExitCode.WRONG_USE
    return error


def standing(view: RunView, config: RunConfig, tell: Callable[[str], None]) -> RunConfig:
    """Return the settings with which to go on with a run: `config`, but for those that `flavor resume` has changed.

    Raises `RunExists` where other settings differ.
    """
    others = _differences(view, config)
    if (is_of_fedtrain(view) or config.aggregator == FEDTRAIN) and "aggregator" in others:
        if is_of_fedtrain(view):
            raise _refused(not_by_serve(view))
        raise _refused(
            f"run {view.run!r} is there already, and aumai_fedtrain did not begin it: {goes_on_by(view)}, or choose "
            "another name"
        )
    changed = [name for name in others if name in view.changed]
    if unlike := {name: line for name, line in others.items() if name not in changed}:
        raise _refused(
            f"run {view.run!r} is there already with other settings: {'; '.join(unlike.values())}; "
            f"{goes_on_by(view)}{_change_by(view.run, config, unlike)}, or choose another name"
        )
    if not changed:
        return config
    there = {**RunConfig.defaults(), **view.config}
    settings = ", ".join(f"{name} {shown_setting(there.get(name))}" for name in changed)
    tell(f"run {view.run!r} was resumed with {settings}: that stands")
    stands = {
        name: value for name, value in view.config.items() if name in changed
    }  # a feature that is not in use: none
    return RunConfig.parse({**{n: v for n, v in config.to_mapping().items() if n not in changed}, **stands})


def _same_but_resumed(view: RunView, config: RunConfig) -> bool:
    return set(view.changed).issuperset(_differences(view, config))


def _differences(view: RunView, config: RunConfig) -> dict[str, str]:
    """Say how the settings of the run that exists differ from `config`: a line for each setting, by name.

    A setting that the release which began the run did not have is at its default.
    """
    there = {**RunConfig.defaults(), **view.config}
    return {
        name: f"{name} is {_setting(there.get(name))}, not {_setting(value)}"
        for name, value in config.every_setting().items()
        if there.get(name) != value
    }


def _change_by(run: str, config: RunConfig, names: Iterable[str]) -> str:
    """Say how an operator changes these settings of a run; '' where one of them cannot change."""
    if not MAY_CHANGE.issuperset(names):
        return ""
    options = [_option(name, value) for name in names if (value := getattr(config, name)) is not None]
    return f"; `flavor stop {run}`, then `flavor resume {' '.join([run, *options])}` changes that"


def _option(name: str, value: Any) -> str:
    return set_for_options(value) if name == "set_for" else f"--{name.replace('_', '-')} {value}"


def _setting(value: object) -> str:
    return "not set" if value is None else repr(value)
