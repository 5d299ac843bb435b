"""What is measured at one moment: the documents of runs, the counts of their events, the queues and the server."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flavor.metrics.tally import Tally
from flavor.view.server import ServerState

Document = Mapping[str, Any]
"""A run as plain values; see `flavor.view.board`."""


@dataclass(frozen=True)
class RunScene:
    """One run."""

    document: Document
    tally: Tally = field(default_factory=Tally)
    labelled: Sequence[str] = ()
    """The clients that have a label of their own, sorted."""
    missed_ms: Mapping[str, int] = field(default_factory=dict)
    """Since when each client that is not there has had no lease, as far as that is known, by the server's clock."""
    moved: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Bytes by label and direction; see `flavor.metrics.moved`."""
    judged: Collection[str] | None = None
    """The metrics of evaluations that have series; None for all."""
    named: Collection[str] | None = None
    """The metrics of the sites that have series; None for all. See `flavor.metrics.named`."""


@dataclass(frozen=True)
class Scene:
    """All that is measured."""

    now_ms: int
    """By the server's clock."""
    problem: str = ""
    """Why Redis cannot be read; '' where it can. Nothing else is known then."""
    runs: Sequence[RunScene] = ()
    states: Mapping[str, int] = field(default_factory=dict)
    """How many runs there are in each state."""
    queues: Sequence[Document] = ()
    dropped: int | None = 0
    """None where the queues cannot be read."""
    removed: Mapping[str, int] = field(default_factory=dict)
    """Runs that operators have removed, and when, in milliseconds of the server's clock."""
    server: ServerState | None = None
    """None where the server does not say, as this user may not ask."""
