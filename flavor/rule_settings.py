"""Which rule of aggregation does not go together with the run's kind of checkpoints."""

from __future__ import annotations

from typing import Protocol

from flavor.checkpoints.kinds import TENSORS
from flavor.parts import Parts

COMMAND = "command"
"""The `aggregator` of a run that only a user's own may aggregate."""


class _Ruled(Protocol):
    """The settings of a run that are about its rule."""

    @property
    def aggregator(self) -> str | None: ...

    @property
    def server_step(self) -> str | None: ...

    @property
    def compress(self) -> str: ...

    @property
    def max_update_norm(self) -> float | None: ...

    @property
    def mode(self) -> str: ...

    @property
    def checkpoint(self) -> str: ...

    @property
    def parts(self) -> Parts: ...

    @property
    def not_for_command(self) -> str: ...


def conflict_of_rule(config: _Ruled, *, has_tensors: bool) -> str:
    """Return why the rule cannot aggregate checkpoints of this kind; '' where it can."""
    name = config.checkpoint
    if config.parts and name != TENSORS.name:
        return (
            f"{config.parts.options} names tensors, and {name} checkpoints are not divided: leave it out, or have the "
            f"scripts save a state_dict (--checkpoint {TENSORS.name})"
        )
    if not has_tensors and (config.aggregator not in (None, COMMAND) or config.server_step is not None):
        rule = config.server_step if config.aggregator in (None, COMMAND) else config.aggregator
        return (
            f"{rule!r} aggregates tensors, and {name} checkpoints have none that it could see: "
            "they need an aggregator of your own (`flavor-agg -m`, `flavor run --aggregator-main`)"
        )
    if not has_tensors and (config.compress != "none" or config.max_update_norm is not None):
        option = "--compress" if config.compress != "none" else "--max-update-norm"
        return f"{option} is for tensors, and {name} checkpoints have none that it could see"
    if not has_tensors and config.mode != "sync":
        return f"mode {config.mode} measures changes of tensors, and {name} checkpoints have none that it could see"
    return config.not_for_command if not has_tensors or config.aggregator == COMMAND else ""
