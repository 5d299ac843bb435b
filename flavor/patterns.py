"""Patterns of tensor names that every part of flavor knows."""

from __future__ import annotations

from collections.abc import Sequence

STATISTICS = (
    "*running_mean",
    "*running_var",
    "*num_batches_tracked",
    "*moving_mean",
    "*moving_variance",
    "*moving_var",
    "*batch_stats*",
)
"""What a normalisation counts along, in the words of torch, Keras, MXNet and Flax: statistics, and no parameters. They
are averaged, and no server step is taken with them: momentum carries a variance below 0."""


def with_known(named: Sequence[str]) -> tuple[str, ...]:
    """These patterns of statistics beside the known ones; with `none` among them, without those."""
    if "none" in named:
        return tuple(pattern for pattern in named if pattern != "none")
    return (*STATISTICS, *named)
