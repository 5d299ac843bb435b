"""One line of the catalogue, and what a choice from it becomes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aggregators.mean import Mean
from aggregators.protocols import Reducer, ServerStep
from aggregators.server import Replace

Convert = Callable[[str], Any]


@dataclass(frozen=True)
class Entry:
    """One algorithm: its name, what it is, where it comes from and when it may be used.

    `unusable` is what a third party's package offers and cannot be had; the description says why.
    """

    name: str
    kind: Literal["alias", "reducer", "server step", "unusable"]
    description: str
    source: str
    condition: str
    build: Callable[..., Any] = field(repr=False)
    options: Mapping[str, Convert] | None = field(default_factory=dict, repr=False)
    required: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """How it is written, with defaults in brackets: `nesterov:[lr=0.7],[momentum=0.9]`."""
        if self.options is None:
            return f"{self.name}[:OPTION=VALUE,...]"
        if not self.options:
            return self.name
        defaults = inspect.signature(self.build).parameters
        parts = [
            f"{name}=" if name in self.required else f"[{name}={_shown(defaults[name].default)}]"
            for name in self.options
        ]
        return f"{self.name}:{','.join(parts)}"


def _shown(default: object) -> str:
    return "" if default is None else str(default)


@dataclass(frozen=True)
class Algorithm:
    """A reducer and a server step, ready for `aggregators.run`."""

    reducer: Reducer
    server_step: ServerStep

    @property
    def needs_global(self) -> bool:
        """Whether it cannot run in a first round without pre-trained weights."""
        return self.reducer.needs_global or self.server_step.needs_global

    def without_global(self) -> Algorithm:
        """What stands in for it in a first round without pre-trained weights.

        There is nothing to step from or to measure a change against: the reduced model becomes the global one, and a
        reducer that needs the old one is what its method `without_global` returns (norm_clip: the rule behind it),
        the mean if it has none.
        """
        reducer = self.reducer
        while reducer.needs_global:
            instead = getattr(reducer, "without_global", Mean)
            reducer = instead()
        return Algorithm(reducer, Replace())
