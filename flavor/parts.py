"""Which tensors of a model are shared with the other sites, and which stay at their site: `--share` and `--local`.

The patterns are those of `fnmatch`, on the names of tensors as they cross the wire. Without `--share` every tensor is
shared that no pattern of `--local` matches.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from flavor.counted import counted
from flavor.patterns import CONTROL_VARIATE, STATISTICS

_MOST_NAMED = 3
_COUNTER = "*num_batches_tracked"


@dataclass(frozen=True)
class Parts:
    """The patterns of a run. Without any, every tensor is shared."""

    share: Sequence[str] = ()
    local: Sequence[str] = ()

    def __bool__(self) -> bool:
        """Whether there are patterns."""
        return bool(self.share or self.local)

    @property
    def options(self) -> str:
        """The patterns as they are given on a command line; '' for none."""
        given = [*(("--share", each) for each in self.share), *(("--local", each) for each in self.local)]
        return " ".join(f"{option} '{pattern}'" for option, pattern in given)

    def shared(self, names: Iterable[str]) -> list[str]:
        """Return the names of the shared tensors among all `names` of a model, in their order.

        A control variate of SCAFFOLD is shared if its parameter is: else it would tell how that is trained.
        """
        every = list(names)
        parameters = {_variate_name(name): name for name in every if CONTROL_VARIATE not in name}
        return [name for name in every if self._is_shared(_parameter_of(name, parameters))]

    def problem(self, names: Iterable[str], *, near: bool = True) -> str:
        """Return why these patterns are of no use for a model with these tensors; '' where they are.

        Each pattern has to match a tensor, and some tensors have to be shared and others not. With `near`, the reason
        names tensors that a pattern may have meant.
        """
        every = list(names)
        for option, patterns in (("--share", self.share), ("--local", self.local)):
            for pattern in patterns:
                if not any(fnmatchcase(name, pattern) for name in every):
                    what = f"{option} {pattern!r} matches none of {counted(len(every), 'tensor')}"
                    return f"{what}{_near(pattern, every)}" if near else what
        shared = len(self.shared(every))
        if self and shared == len(every):
            return f"{self.options} shares all of {counted(len(every), 'tensor')}: leave it out, or name fewer"
        if not shared:
            return f"{self.options} shares none of {counted(len(every), 'tensor')}: nothing would be aggregated"
        return ""

    def forgotten(self, shapes: Mapping[str, Sequence[int]]) -> list[str]:
        """Return the statistics that are shared though these patterns keep the normalisation of other layers.

        They seem to mean normalisation if the statistics of a layer stay, with nothing beside but vectors and numbers.
        A layer whose statistics stay may share its counter of batches.
        """
        shared = frozenset(self.shared(shapes))
        own = [name for name in shapes if name not in shared]
        kept, others = ([name for name in names if is_statistic(name)] for names in (own, shared))
        if not kept or any(len(shapes[name]) > 1 for name in own):
            return []
        layers = {_layer_of(name) for name in kept}
        return [
            name
            for name in shapes
            if name in others and not (fnmatchcase(name, _COUNTER) and _layer_of(name) in layers)
        ]

    def foreign(self, names: Iterable[str]) -> str:
        """Return the first of these names that is not shared; '' for none. Looks at each name alone."""
        return next((name for name in names if CONTROL_VARIATE not in name and not self._is_shared(name)), "")

    def _is_shared(self, name: str) -> bool:
        if any(fnmatchcase(name, pattern) for pattern in self.local):
            return False
        return not self.share or any(fnmatchcase(name, pattern) for pattern in self.share)


WHOLE = Parts()
"""Every tensor is shared."""


def is_statistic(name: str) -> bool:
    """Return whether this is the name of running statistics."""
    return any(fnmatchcase(name, pattern) for pattern in STATISTICS)


def _layer_of(name: str) -> str:
    return name[: max(name.rfind("."), name.rfind("/")) + 1]


def _variate_name(parameter: str) -> str:
    return parameter.replace(".", "__")


def _parameter_of(name: str, parameters: dict[str, str]) -> str:
    """Return the name of the parameter to which a control variate belongs; for other tensors their own name."""
    before, mark, rest = name.partition(CONTROL_VARIATE)
    return parameters.get(_variate_name(before) + rest, name) if mark else name


def _near(pattern: str, names: Sequence[str]) -> str:
    """Return the names that the writer of a pattern may have meant."""
    wanted = pattern.strip("*?._").lower()
    near = sorted(names, key=lambda name: -_likeness(wanted, name.lower()))[:_MOST_NAMED]
    return f": the nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}" if near else ""


def _likeness(wanted: str, name: str) -> float:
    """Return how alike a pattern's text and a name, or the most alike part of it, are: from 0 to 1."""
    if wanted in name:
        return 1.0
    pieces = [name, *(piece for piece in name.replace("_", ".").split(".") if piece)]
    return max(difflib.SequenceMatcher(None, wanted, piece).ratio() for piece in pieces)
