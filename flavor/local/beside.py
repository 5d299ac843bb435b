"""What goes on beside a local run, such as a page that shows it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

from flavor.bus.runs import RunStore
from flavor.store.protocol import ObjectStore

Beside = Callable[[RunStore, str, ObjectStore], AbstractContextManager[object]]
"""Is given the run, the URL of its Redis and its store; entered before the run's processes start, left at their end."""


def nothing_beside(runs: RunStore, url: str, store: ObjectStore) -> AbstractContextManager[object]:
    """Do nothing beside the run."""
    return contextlib.nullcontext()
