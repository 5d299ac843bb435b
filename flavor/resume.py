"""Which settings of a run may change when it is resumed, and which may not: `RunConfig` says so of each.

A setting that may change decides when a round closes, what is refused or how long is waited. One that may not takes
part in the computation of the model, or in what the sites agreed to. Each manifest has the settings of its round, and
its worker signs them; `flavor verify` accepts a difference to the run's record only where this table does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flavor.config import RunConfig
from flavor.errors import InvalidSetting
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.setting import Setting

MAY_CHANGE = frozenset(name for name, field in RunConfig.model_fields.items() if Setting.of(field).may_change)
"""Names of `RunConfig`'s fields; every other one stays as the run began."""


def resumed_config(before: Mapping[str, Any], given: Mapping[str, Any], *, closed: int) -> tuple[RunConfig, list[str]]:
    """The settings of a run that goes on after round `closed`, and what has changed, a line each.

    `before` are its settings so far, `given` those that the operator named. `InvalidSetting` for one that may not
    change, for values that do not go together, and for fewer rounds than are closed.
    """
    for name in sorted(set(given) - MAY_CHANGE):
        if given[name] != before.get(name):
            raise InvalidSetting(
                f"--{name.replace('_', '-')}: it cannot change within a run, because the model depends on it: begin "
                "another run from the newest global model (`flavor serve --init-model`)"
            )
    config = RunConfig.parse({**before, **given})
    if config.rounds < max(1, closed):
        are = "round is" if closed == 1 else "rounds are"
        raise InvalidSetting(f"--rounds {config.rounds}: {closed} {are} closed already")
    return config, changes(before, config.to_mapping())


def changes(before: Mapping[str, Any], after: Mapping[str, Any], names: Sequence[str] = ()) -> list[str]:
    """How the settings that may change differ: `quorum 3 -> 2`."""
    return [
        f"{name} {shown(before.get(name))} -> {shown(after.get(name))}"
        for name in names or sorted(MAY_CHANGE)
        if before.get(name) != after.get(name)
    ]


def goes_on_by(view: RunView) -> str:
    """What an operator does to go on with a run as it stands now: every command says the same."""
    if view.state is RunState.FINISHED:
        return f"choose another name, or `flavor rm {view.run} --objects`, which removes its models, too"
    if view.state.ended:
        return f"`flavor resume {view.run}` goes on with it; to begin another run, choose another name"
    return "`flavor serve` with the same options goes on with it"


def shown(value: object) -> str:
    """A setting's value, for a line."""
    return "not set" if value is None else str(value)


def fixed_settings_differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names of the settings that differ and may not; not the store's place, which each machine may call otherwise.

    A setting that one of the two releases did not know is absent there; absence differs from every value.
    """
    names = sorted({*one, *other} - {"store"} - MAY_CHANGE)
    return [name for name in names if one.get(name) != other.get(name)]
