"""Patterns of tensor names that every part of flavor knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

STATISTICS = (
    "*running_mean",
    "*running_var",
    "*num_batches_tracked",
    "*moving_mean",
    "*moving_variance",
    "*moving_var",
    "*batch_stats*",
)
"""Names of the running statistics of normalisation layers in torch, Keras, MXNet and Flax. These tensors are no
parameters. They are averaged, and the server step leaves them alone: its momentum could make a variance negative.

They are the default of a setting of runs. A change of it would be other settings for all runs that go on."""
CONTROL_VARIATE = "scaffold_c__"
"""Stands before a parameter's name in that of its control variate of SCAFFOLD (`flavor.cook.control`)."""


def no_parameters(statistics: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns of tensors that are no parameters: a run's `statistics`, and control variates in each run."""
    return (*statistics, f"*{CONTROL_VARIATE}*")


def with_known(named: Sequence[str]) -> tuple[str, ...]:
    """These patterns of statistics beside the known ones; with `none` among them, without those."""
    if "none" in named:
        return tuple(pattern for pattern in named if pattern != "none")
    return (*STATISTICS, *named)
