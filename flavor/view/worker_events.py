"""What happens at an aggregator with the jobs of its queue. None of these events is in a run's log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from flavor.view.event import Event


@dataclass(frozen=True)
class WorkGivenBack(Event):
    """The aggregator cannot do its work for now, or that of one run, and has put the job back into the queue."""

    blocks: ClassVar[bool] = True
    of_run: str = ""
    """The run whose work the aggregator does not take; '' where it takes no work at all."""

    @property
    def line(self) -> str:
        """See `Event`."""
        whose, what = (f"the work of run {self.of_run!r}", "none of it") if self.of_run else ("its work", "none")
        return f"{whose} goes back into the queue, and it takes {what} for now: {self.reason}"


@dataclass(frozen=True)
class WorkTaken(Event):
    """The aggregator takes work again that it gave back before."""

    reason: str = ""
    of_run: str = ""

    @property
    def line(self) -> str:
        """See `Event`."""
        return f"it takes the work of run {self.of_run!r} again" if self.of_run else "it takes work again"
