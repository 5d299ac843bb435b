"""Which of several evaluations is shown: the newest, or that of the model of a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flavor.records.own_evaluations import shown_of
from flavor.results.evaluated import Evaluated


def chosen_of(found: Sequence[Evaluated], round_: int | None = None) -> Evaluated | None:
    """Return the newest evaluation, or that of the model of `round_`, with that on the operator's own data beside it.

    `found` is in the order in which they were closed. One by sites comes first; None where there is none. That of a
    round is the run's own, unless there is none. The newest is none of a model that is a single site's update, or lacks
    one.
    """
    those = [each for each in found if round_ in (None, each.round) and each.subject.counts]
    by_sites = [each for each in those if not each.is_central] if round_ is None else shown_of(those)
    if not by_sites:
        return those[-1] if those else None
    newest = by_sites[-1]
    own = [each for each in found if each.is_central and each.round == newest.round]
    return replace(newest, central=own[-1].central if own else None)
