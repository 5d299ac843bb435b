"""How a new model compares with the best one before it, by what the sites report of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from flavor.records.lacking import SomeSites
from flavor.records.numbers import finite, whole
from flavor.records.tolerance import gain

_NONE = SomeSites()


class Beside(NamedTuple):
    """The value of a new model and of the best one before it, over the sites that have a finite value of both."""

    value: float
    best: float
    sites: int


@dataclass(frozen=True)
class Comparison:
    """The comparison of a new model with the best one before it.

    Of two models, that one is worse which is infinite or NaN at a site where the other one has a finite value.
    """

    beside: Beside | None = None
    """None where the sites with a value of both models are too few."""
    diverged: SomeSites = _NONE
    """Sites at which the new model is infinite or NaN, and the best one is not, each with its value."""
    recovered: SomeSites = _NONE
    """Sites at which the best model is infinite or NaN, and the new one is not, each with the best one's value."""
    lacked: SomeSites = _NONE
    """Sites that have a value of one of both models alone."""
    unread: SomeSites = _NONE
    """Sites whose results of the best model cannot be read any more."""

    @property
    def is_made(self) -> bool:
        """Whether it says which of both is better."""
        return self.beside is not None or self.diverged.count > 0 or self.recovered.count > 0

    def is_better(self, *, is_larger: bool) -> bool:
        """Whether the new model is better; `is_larger` says that larger values are. Of equal ones the earlier stays."""
        if self.diverged.count:
            return False
        if self.recovered.count:
            return True
        return self.gained(is_larger=is_larger) > 0

    def gained(self, *, is_larger: bool) -> float:
        """By how much the new model is better at the sites that have a value of both; 0 for an equal or a worse one."""
        return gain(self.beside.value, self.beside.best, is_larger=is_larger) if self.beside is not None else 0.0

    def to_plain(self) -> dict[str, Any]:
        """Write it for `of_plain`, as fields of the summary of an evaluation."""
        sites = {name: getattr(self, name) for name in _SITES}
        return {
            "beside": self.beside,
            **{name: each.to_plain() for name, each in sites.items() if each.count},
        }

    @classmethod
    def of_plain(cls, fields: Mapping[str, Any]) -> Comparison:
        """Read what stands in the summary of an evaluation. Raises `ValueError` and `TypeError`."""
        sites = dict[str, SomeSites]()
        for name in _SITES:
            if (found := fields.get(name)) is not None:
                sites[name] = SomeSites.of_plain(found)
        return cls(_beside_of(fields.get("beside")), **sites)


_SITES = ("diverged", "recovered", "lacked", "unread")


def _beside_of(found: Any) -> Beside | None:
    if found is None:
        return None
    value, best, sites = found
    if finite(value) is None or finite(best) is None:
        raise ValueError("its values beside the best model are no finite numbers")
    return Beside(float(value), float(best), whole(sites))


NOT_COMPARED = Comparison()
"""No model was compared, or too few sites have a value of both."""
