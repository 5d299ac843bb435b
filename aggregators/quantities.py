"""Integers that are no quantities: bytes, states of random generators, labels. Their mean means nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

_PARTS = ("_extra_state", "rng_state", "random_state", "rng", "seed", "label", "labels", "classes", "classes_")
_MASKING = 1e4
_MOST_TOLD = 5
_COUNTERS = ("num_batches_tracked", "step", "steps", "epoch", "count", "counter", "n", "n_samples_seen_")


class Spec(Protocol):
    """What is asked of a tensor; a `TensorSpec` has it."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its elements."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...


def suspicious_integers(specs: Iterable[Spec]) -> dict[str, str]:
    """Name to reason of each integer tensor that looks like no quantity by what it is called or made of.

    Of such tensors a mean, or a median, is noise: they are for `--keep` or `--equal`.
    """
    found = {}
    for spec in specs:
        if spec.dtype.kind not in "iu":
            continue
        last = _last(spec.name)
        if part := next((part for part in _PARTS if last == part or last.endswith(f"_{part}")), None):
            found[spec.name] = f"it is called {part!r}"
        elif spec.dtype == np.uint8:
            found[spec.name] = "it is made of bytes (uint8)"
    return found


def is_counter(spec: Spec) -> bool:
    """Whether an integer tensor counts something: one that does may differ between sites."""
    return _last(spec.name) in _COUNTERS or int(np.prod(spec.shape)) == 1


def is_mask(array: npt.NDArray[Any]) -> bool:
    """Whether a float tensor is made of 0 and values that mask something, -inf most often; NaN is none of them."""
    wide = array.astype(np.float64)
    return bool(((wide == 0) | (np.abs(wide) > _MASKING)).all())


def turned_negative(names: Sequence[str]) -> str:
    """In words, that a server step alone has made these tensors negative."""
    told = ", ".join(map(repr, names[:_MOST_TOLD]))
    if len(names) > _MOST_TOLD:
        told += f" and {len(names) - _MOST_TOLD} more"
    return (
        f"{told}: negative values after the server step, and none before it in any model: a negative variance or count "
        "breaks the model; name a tensor that is a statistic, and no parameter, with --statistics (statistics=)"
    )


def matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The names that one of these patterns (`*`, `?`, `[…]`) matches, in order."""
    patterns = tuple(patterns)
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _last(name: str) -> str:
    """The last part of a name like `layers/0.batch.num_batches_tracked`."""
    return name.replace("/", ".").rpartition(".")[2]
