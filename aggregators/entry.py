"""One line of the catalogue."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Convert = Callable[[str], Any]
EntryKind = Literal["alias", "reducer", "server step"]


@dataclass(frozen=True)
class Entry:
    """One rule: its name, what it does, its source and its condition.

    `kind` is `"unusable"` for an entry point that cannot be used; `description` is then the reason.
    """

    name: str
    kind: EntryKind | Literal["unusable"]
    description: str
    source: str
    condition: str
    build: Callable[..., Any] = field(repr=False)
    options: Mapping[str, Convert] | None = field(default_factory=dict, repr=False)
    """Name to conversion of each option; None for a rule that takes options of any name."""
    required: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """How to write the rule, with defaults in brackets: `nesterov:[lr=0.7],[momentum=0.9]`."""
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
