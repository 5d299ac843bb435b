"""The best judged model of a run, as people read it."""

from __future__ import annotations

from typing import NamedTuple

from flavor.config import RunConfig
from flavor.evaluation_settings import rules_of
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


def best_by(view: RunView, round_: int, *, central: bool) -> Select | None:
    """Return the rule by which the model of this round is the run's best at present; None where it is not.

    `central` says which evaluation of the model is meant: a rule goes by those of the sites, or by those on the
    operator's own data.
    """
    select = rules_of(RunConfig.known(view.config), central=central).select
    return select if view.best is not None and view.best.round == round_ else None


def selected_of(view: RunView) -> Selected | None:
    """Return the best model of a run; None where no model is, or the run selects none."""
    select = view.config.get("select")
    if view.best is None or not isinstance(select, str):
        return None
    return Selected(select, view.best.round, view.best.value, view.best.sites)
