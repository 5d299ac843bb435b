"""The best judged model of a run, as people read it."""

from __future__ import annotations

from typing import NamedTuple

from flavor.policy.selection import Select
from flavor.printable import shown_name
from flavor.records.run import RunView
from flavor.results.evaluated import by_of, mean_of


class Selected(NamedTuple):
    """The best model of a run so far, by its `--select`."""

    select: str
    """`NAME:max` or `NAME:min`."""
    round: int
    value: float
    sites: int
    """Number of sites that report the metric."""

    @property
    def words(self) -> str:
        """`accuracy 0.93 (plain mean) by 3 sites`."""
        name = Select.parse(self.select).name
        return f"{shown_name(name)} {self.value:.4g}{mean_of(name, self.sites)} {by_of(name, self.sites)}"


def selected_of(view: RunView) -> Selected | None:
    """Return the best model of a run; None where no model is, or the run selects none."""
    select = view.config.get("select")
    if view.best is None or not isinstance(select, str):
        return None
    return Selected(select, view.best.round, view.best.value, view.best.sites)
