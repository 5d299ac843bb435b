"""Bound the distance of an update from the global model."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from aggregators.clip import change_norm, whole_change_norm
from aggregators.parts import Stored
from aggregators.quantities import is_counter, matching
from aggregators.updates import ClientModel
from flavor.checkpoints import TensorFile
from flavor.errors import InvalidUpdate


def check_norm(
    update: ClientModel,
    base: TensorFile,
    limit: float,
    held: Collection[str],
    statistics: Sequence[str],
    *,
    otherwise: Callable[[], str],
    is_buffered: bool = False,
) -> None:
    """Refuse an update that changes the global model `base` by more than `limit` (L2 norm).

    `is_buffered` in a run where an update may have trained from an earlier global model than the newest, `base`.

    Counts all tensors but those `held`, bool tensors, and integers that count something. Tensors that match
    `statistics` count: a variance near 0 breaks a model as a parameter can, and nothing else would bound them.
    `otherwise` returns a hint for a refusal that neither integers nor statistics explain.
    """
    held = frozenset(held)
    old = {name: base.stored(name) for name in base.names}
    counted = [s.name for s in update.specs if s.dtype.kind in "iu" and s.name not in held and not is_counter(s)]
    whole = {name: whole_change_norm(update.tensors, old, [name]) for name in counted}
    floats = change_norm(update.tensors, old, held=held)
    norm = math.hypot(floats, *whole.values())
    if norm <= limit:
        return
    if floats <= limit:
        why = _integers_to_blame(whole)
    else:
        named = [s.name for s in update.specs if s.dtype.kind not in "iub" and s.name not in held]
        counting = matching(named, statistics)
        rest = math.hypot(change_norm(update.tensors, old, held=held | frozenset(counting)), *whole.values())
        why = _statistics_to_blame(update, old, counting) if counting and rest <= limit else otherwise()
    changed = "the model that it trained from" if is_buffered else "the global model"
    raise InvalidUpdate(
        f"the update changes {changed} by {norm:.6g} (L2), more than the {limit:g} that this run allows{why}"
    )


def _statistics_to_blame(update: ClientModel, old: Mapping[str, Stored], names: Sequence[str]) -> str:
    """Return a hint for an update whose parameters alone are within the bound."""
    everything = frozenset(old)
    norms = {name: change_norm(update.tensors, old, held=everything - {name}) for name in names}
    name, norm = max(norms.items(), key=lambda item: item[1])
    return (
        f"; without its statistics it is within that, and most of them is tensor {name!r} with {norm:.6g}: they count, "
        "since a variance that is wrong breaks a model, too; where that is honest, have the sites scale their inputs "
        "alike, raise --max-update-norm, or leave the statistics out of the checkpoint, so that each site keeps its own"
    )


def _integers_to_blame(norms: Mapping[str, float]) -> str:
    """Return a hint for an update whose float tensors alone are within the bound."""
    name, norm = max(norms.items(), key=lambda item: item[1])
    return (
        f"; without its integers it is within that, and most of them is tensor {name!r} with {norm:.6g}: where that is "
        "no parameter, as the state of a random generator, leave it out of the checkpoint, or have the run --keep it"
    )
