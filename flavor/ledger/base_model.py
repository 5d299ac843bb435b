"""The global model from which a round began: to it, the encoded updates of the round are differences."""

from __future__ import annotations

from collections.abc import Callable

from flavor.ledger.manifest import RunRecord
from flavor.records.model import GlobalModel
from flavor.store.protocol import ObjectStore

BASE_PRUNED = "the model that it began from is pruned (--keep-globals)"
"""Why a round whose base is gone cannot be looked at."""


def base_of(round_: int, record: RunRecord | None, model_of: Callable[[int], GlobalModel | None]) -> GlobalModel | None:
    """Return the model that the sites of a round trained from.

    That of the round before, as `model_of` knows it; in a first round the initial weights of the run's `record`, and
    None where it has none.
    """
    if round_ > 1:
        return model_of(round_ - 1)
    initial = record.initial if record is not None else None
    return initial.to_global("") if initial is not None else None


def is_pruned(store: ObjectStore, base: GlobalModel | None) -> bool:
    """Return whether a round had a base that is no longer in the store."""
    return base is not None and not store.exists(base.model.path)
