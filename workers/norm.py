"""How far an update may lie from the global model."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

from aggregators.clip import change_norm, whole_change_norm
from aggregators.quantities import is_counter
from aggregators.updates import Update
from flavor.errors import UpdateRefused
from flavor.store.formats import TensorFile


def check_norm(
    update: Update, base: TensorFile, limit: float, held: Collection[str], *, otherwise: Callable[[], str]
) -> None:
    """Refuse an update that changes the global model `base` by more than `limit`.

    All tensors count but those `held`, bool, and integers that count something. What to think of a refusal that is not
    due to integers, `otherwise` says.
    """
    held = frozenset(held)
    old = {name: base.stored(name) for name in base.names}
    counted = [s.name for s in update.specs if s.dtype.kind in "iu" and s.name not in held and not is_counter(s)]
    whole = {name: whole_change_norm(update.tensors, old, [name]) for name in counted}
    floats = change_norm(update.tensors, old, held=held)
    norm = math.hypot(floats, *whole.values())
    if not norm <= limit:
        raise UpdateRefused(
            f"the update changes the global model by {norm:.6g} (L2), more than the {limit:g} that this run allows"
            f"{_integers_to_blame(whole) if floats <= limit else otherwise()}"
        )


def _integers_to_blame(norms: Mapping[str, float]) -> str:
    """What to think of where all float tensors together are within the bound."""
    name, norm = max(norms.items(), key=lambda item: item[1])
    return (
        f"; without its integers it is within that, and most of them is tensor {name!r} with {norm:.6g}: where that is "
        "no parameter, as the state of a random generator, leave it out of the checkpoint, or have the run --keep it"
    )
