"""The protocol for doing a task that the run gives to a client.

The loop knows no kind of task: it hands each task to a `Work`, and lets that look at each piece of news.
`flavor.edge.training.Training` is the only kind today. Evaluations are no tasks of a round, and no `Work`: several can
await a site at once, and `flavor.edge.evaluating.Evaluating` carries them out while the trainer waits. Where others
will go:

- **A task of another kind than training** is another class with these methods, which `flavor.edge.loop.Loop` chooses by
  the task's kind in its method `_begin`.
- **A relay** takes part in an upper run as an edge, and serves the rounds of a lower run to other sites. It is a `Work`
  in a room above `flavor.edge` and `flavor.coordinator`: its `begin` opens a round of the lower run with the model of
  the task, and its `look` hands in that round's result, with its examples added up, once the round has one.
  `flavor.edge.agent.Edge` makes its `Work` and its trainer itself: it has to take the relay's `Work` in place of both.
"""

from __future__ import annotations

from typing import Protocol

from flavor.edge.inbox import News
from flavor.records.task import Task


class Work(Protocol):
    """Does the tasks of one kind, one at a time."""

    def begin(self, round_: int, task: Task) -> None:
        """Begin the task that this client is given in this round, and return while it is worked on."""
        ...

    def look(self, news: News) -> None:
        """Hand in the task's result, if the news says that it is there."""
        ...

    def repeat_if_forgotten(self, round_: int) -> None:
        """Write again what Redis has lost of the current task in a failover, if the task is of the round `round_`."""
        ...
