"""The local steps that sites report (`metadata.localSteps`), for a rule that needs them, such as fednova."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from aggregators.protocols import needs_steps
from aggregators.registry import parse
from flavor.errors import InvalidSetting, InvalidUpdate
from flavor.records.info import LOCAL_STEPS
from flavor.rule_settings import COMMAND

Info = Mapping[str, Mapping[str, Any]]


def check_steps(rule: str | None, info: Info) -> None:
    """Raise `InvalidUpdate` for an update without a number of local steps, where the run's rule needs it."""
    if LOCAL_STEPS not in info["metadata"] and are_needed(rule):
        raise InvalidUpdate(
            f"its info.json has no metadata.{LOCAL_STEPS}, and this run's rule {rule} divides each site's change by "
            f"its local steps: report the number of optimizer steps of the round, as in SaveInfoJson({{'metadata': "
            f"{{..., '{LOCAL_STEPS}': steps}}, ...}})"
        )


def steps_of(rule: str | None, infos: Mapping[str, Info]) -> dict[str, float] | None:
    """Return the local steps of a round's updates, by client; None where the run's rule does not need them."""
    if not are_needed(rule):
        return None
    for info in infos.values():
        check_steps(rule, info)
    return {client: info["metadata"][LOCAL_STEPS] for client, info in infos.items()}


@functools.lru_cache(16)  # looking for third parties' entry points costs milliseconds
def are_needed(rule: str | None) -> bool:
    """Return whether a run's rule needs the sites' local steps; a rule that is not installed here does not."""
    if rule is None or rule == COMMAND:
        return False
    try:
        return needs_steps(parse(rule).reducer)
    except InvalidSetting:
        return False
