"""Which of the ready clients a round samples (`--fraction`): the same run, round and seed give the same clients."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from flavor.config import RunConfig


def sample(run: str, round_: int, ready: Sequence[str], config: RunConfig) -> tuple[str, ...]:
    """Return the clients of a round, sorted: the share `fraction` of the ready ones, and never fewer than needed."""
    size = min(len(ready), max(config.needed, math.ceil(config.fraction * len(ready))))
    if size == len(ready):
        return tuple(sorted(ready))
    draw = random.Random(f"{config.seed}/{run}/{round_}")
    return tuple(sorted(draw.sample(sorted(ready), size)))
