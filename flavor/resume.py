"""The settings of a run that may change when it is resumed. `RunConfig` marks each of them.

A setting that may change decides when a round closes, what is refused, or how long to wait. Other settings take part in
the computation of the model, or in what the sites agreed to. Each manifest has the settings of its round, and
its worker signs them; `flavor verify` accepts a difference to the run's record only where this table does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flavor.config import RESUMED, RunConfig
from flavor.counted import are, counted
from flavor.errors import InvalidSetting
from flavor.evaluation_settings import conflict_of_names, ruled_by_sites
from flavor.mode_settings import conflict_of_mode
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.setting import Setting

FEDTRAIN = "aumai-fedtrain"
"""The `aggregator` of a run that `aumai_fedtrain` coordinates, and whose rounds it averages itself."""
MAY_CHANGE = frozenset(name for name, field in RunConfig.model_fields.items() if Setting.of(field).may_change)
"""Names of fields of `RunConfig`; all other fields stay as the run began."""


def resumed_config(before: Mapping[str, Any], given: Mapping[str, Any], *, closed: int) -> tuple[RunConfig, list[str]]:
    """Return the settings of a run that goes on after round `closed`, and the changes, one a line.

    `before` are its settings so far, `given` those that the operator named. Raises `InvalidSetting` for a setting that
    may not change, for values that do not fit together, and for fewer rounds than are closed.
    """
    for name in sorted(set(given) - MAY_CHANGE):
        if given[name] != before.get(name):
            raise InvalidSetting(
                f"--{name.replace('_', '-')}: it cannot change within a run, because the model depends on it: begin "
                "another run from the newest global model (`flavor serve --init-model`)"
            )
    config, known = RunConfig.parse({**before, **given}, context=RESUMED), RunConfig.known(before)
    had = ruled_by_sites(known)
    new = [rule for rule in ruled_by_sites(config) if rule not in had]
    if reason := conflict_of_mode(config, new) or conflict_of_names(config, known):
        raise InvalidSetting(reason)
    if config.rounds < max(1, closed):
        raise InvalidSetting(f"--rounds {config.rounds}: {counted(closed, 'round')} {are(closed)} closed already")
    return config, changes(before, config.to_mapping())


def changes(before: Mapping[str, Any], after: Mapping[str, Any], names: Sequence[str] = ()) -> list[str]:
    """Return the differences in the settings that may change: `quorum 3 -> 2`."""
    defaults = RunConfig.defaults()  # of a feature that is not in use
    old, new = {**defaults, **before}, {**defaults, **after}
    return [
        f"{name} {shown(old.get(name))} -> {shown(new.get(name))}"
        for name in names or sorted(MAY_CHANGE)
        if _set(old.get(name)) != _set(new.get(name))
    ]


def _set(value: object) -> object:
    """Return a setting's value, None for an empty list or table: an older release had no such setting."""
    return None if value in ([], {}) else value


def is_of_fedtrain(view: RunView) -> bool:
    """Return whether `aumai_fedtrain` coordinates this run.

    Such runs once had the aggregator `mean`. They are told apart by the state beside each global model, which the rule
    `mean` never leaves.
    """
    return averages_itself(view.config, has_state=view.global_model is not None and view.global_model.state is not None)


def averages_itself(config: Mapping[str, Any], *, has_state: bool) -> bool:
    """Return whether the settings are those of a run of `aumai_fedtrain`; `has_state` is of its global model."""
    rule = config.get("aggregator")
    return rule == FEDTRAIN or (rule == "mean" and config.get("server_step") is None and has_state)


def coordinated_by(view: RunView) -> str:
    """Return the command that coordinates a run, for a sentence."""
    if is_of_fedtrain(view):
        return "the same `aumai-fedtrain run` command or Python program"
    return "`flavor serve` with the same options"


def goes_on_by(view: RunView) -> str:
    """Return the advice to an operator on how to go on with a run: the same in every command."""
    if view.state is RunState.FINISHED:
        return f"choose another name, or `flavor rm {view.run} --objects`, which removes its models, too"
    if not view.state.ended:
        return f"{coordinated_by(view)} goes on with it"
    how = f"`flavor resume {view.run}` goes on with it"
    if is_of_fedtrain(view):
        how = f"`flavor resume {view.run} --detach`, and then {coordinated_by(view)}, go on with it"
    return f"{how}; to begin another run, choose another name"


def not_by_serve(view: RunView) -> str:
    """Say that `flavor serve`, `flavor resume` and `flavor-agg` do not aggregate a run of `aumai_fedtrain`."""
    return (
        f"run {view.run!r} was begun by aumai_fedtrain, which coordinates it and averages its rounds itself: "
        f"{goes_on_by(view)}"
    )


def shown(value: object) -> str:
    """Write a setting's value for a line."""
    if isinstance(value, Mapping):  # of `set_for`
        every = [f"{client} {name}={said}" for client, settings in value.items() for name, said in settings.items()]
        return ", ".join(every) or "not set"
    return "not set" if value is None else str(value)


def fixed_settings_differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that differ and may not, except the store, whose URL may differ by machine.

    A setting that one of two releases does not know is absent there; absence differs from every value.
    """
    names = sorted({*one, *other} - {"store"} - MAY_CHANGE)
    return [name for name in names if one.get(name) != other.get(name)]
