"""Which evaluations the run has made by itself: by these alone it chooses its best model, ends, and shows its curve.

Those that somebody asked for (`flavor evaluate`, `flavor contributions --by-sites`) may be by a few sites. They decide
nothing, and stand for the run's own only where there is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from flavor.records.evaluation import EvaluationKind


class Numbered(Protocol):
    """An evaluation in any form: a summary, a record, or what Redis has of it."""

    @property
    def number(self) -> int:
        """Its number among those of its round."""


_Of = TypeVar("_Of", bound=Numbered)


def own_evaluations(every: Iterable[_Of], kind: EvaluationKind = EvaluationKind.SITES) -> list[_Of]:
    """Return those that the coordinator has opened, in their order: by the sites, or on the operator's own data."""
    return [each for each in every if EvaluationKind.of(each.number) is kind is not EvaluationKind.ASKED]


def shown_of(every: Iterable[_Of]) -> list[_Of]:
    """Return those by sites that stand for a model, in their order.

    The run's own; where it has none, those that somebody asked for.
    """
    by_sites = [each for each in every if EvaluationKind.of(each.number) is not EvaluationKind.CENTRAL]
    return own_evaluations(by_sites) or by_sites
