"""Integers that are no quantities: bytes, states of random generators, labels. Their mean is meaningless."""

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

_OF_TRAINING = frozenset(
    (
        *("optimizer", "optimizers", "optimizer_state", "optimizer_states", "optimizer_state_dict", "opt_state"),
        *("param_groups", "betas", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg"),
        *("scheduler", "lr_scheduler", "lr_schedulers", "last_epoch", "base_lrs", "_last_lr", "_step_count"),
    )
)
_RATES = frozenset(("lr", "learning_rate", "step", "weight_decay"))
"""Names of numbers of the training, if they are floats of no dimensions."""


class Spec(Protocol):
    """A tensor's name, dtype and shape; a `TensorSpec` has them."""

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
    """Return each integer tensor that looks like no quantity, with the reason: its name or its type.

    The mean or median of such a tensor is noise: it is for `--keep` or `--equal`.
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
    """Return whether an integer tensor counts something, so that it may differ between sites."""
    return _last(spec.name) in _COUNTERS or int(np.prod(spec.shape)) == 1


def training_state(specs: Iterable[Spec]) -> list[str]:
    """Return the tensors that look by their names like the state of an optimizer or a schedule, and no weights."""
    found = []
    for spec in specs:
        parts = spec.name.replace("/", ".").split(".")
        if not _OF_TRAINING.isdisjoint(parts) or (parts[-1] in _RATES and spec.dtype.kind == "f" and not spec.shape):
            found.append(spec.name)
    return found


def is_mask(array: npt.NDArray[Any]) -> bool:
    """Return whether a float tensor consists of 0 and values that mask something, most often -inf and never NaN."""
    wide = array.astype(np.float64)
    return bool(((wide == 0) | (np.abs(wide) > _MASKING)).all())


def turned_negative(names: Sequence[str]) -> str:
    """Return a message that only the server step made these tensors negative."""
    told = ", ".join(map(repr, names[:_MOST_TOLD]))
    if len(names) > _MOST_TOLD:
        told += f" and {len(names) - _MOST_TOLD} more"
    return (
        f"{told}: negative values after the server step, and none before it in any model: a negative variance or count "
        "breaks the model; name a tensor that is a statistic, and no parameter, with --statistics (statistics=)"
    )


def matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Return the names that match one of these patterns (`*`, `?`, `[…]`), in order."""
    patterns = tuple(patterns)
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _last(name: str) -> str:
    """Return the last part of a name like `layers/0.batch.num_batches_tracked`."""
    return name.replace("/", ".").rpartition(".")[2]
