"""Find a global model that is itself to blame for updates whose values cannot be used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aggregators.dtypes import Array
from aggregators.quantities import is_mask
from flavor.checkpoints import TensorFile, is_finite, is_odd
from flavor.checkpoints.finite import BLOCK_ELEMENTS
from flavor.errors import BrokenModel
from workers.blame import BEGIN_BOUNDED, MAY_BE_EARLIER

_FAR = {np.dtype(np.float64): 2.0**256, np.dtype(np.float16): 2.0**15}
_FAR_ELSE = 2.0**32
"""From here on the fourth power of a value has no room in its type, or the double of one of float16."""


def raise_if_broken(base: TensorFile, names: Sequence[str]) -> None:
    """Raise `BrokenModel` where the global model itself has values in one of these tensors that no update may have.

    A mask of 0 and infinities is meant to have them.
    """
    for name in names:
        array = base.tensor(name)
        if is_odd(array) and not (is_mask(array) and np.isinf(array).any()):
            what = "values whose squares have no room in their type" if is_finite(array) else "NaN or infinite values"
            raise BrokenModel(
                f"the global model of this round has {what} in tensor {name!r}, and this update other ones: no site is "
                f"to blame for a model that cannot be trained; {MAY_BE_EARLIER}"
            )


def raise_if_far(base: TensorFile, what: str, name: str) -> None:
    """Raise `BrokenModel` where training from the global model may well have given what is wrong in a tensor.

    `what` is wrong, in tensor `name` of the update. A loss squares what a layer has multiplied: from so large values it
    seldom stays finite, and then each tensor of the update may be wrong.
    """
    for spec in base.specs:
        if spec.dtype.kind in "iub":
            continue
        array = base.tensor(spec.name)
        if (most := _most(array)) >= _FAR.get(spec.dtype, _FAR_ELSE) and not _masks_by_one_value(array):
            raise BrokenModel(
                f"the global model of this round has values up to {most:.2g} in tensor {spec.name!r}: an update of an "
                f"earlier round may be to blame for {what} in tensor {name!r} of this one; training from so large "
                f"values seldom stays finite: {BEGIN_BOUNDED}",
                is_sure=False,
            )


def _most(array: Array) -> float:
    """Return the largest magnitude in a float tensor."""
    flat, most = array.reshape(-1), 0.0
    for start in range(0, flat.size, BLOCK_ELEMENTS):
        block = flat[start : start + BLOCK_ELEMENTS]
        block = block if block.dtype in _FAR or block.dtype == np.float32 else block.astype(np.float32)
        most = max(most, -float(block.min()), float(block.max()))
    return most


def _masks_by_one_value(array: Array) -> bool:
    """Return whether a tensor consists of 0 and one value that masks something, as the least one of its type."""
    if not is_mask(array):
        return False
    masking = array[array != 0]
    return masking.size < array.size and bool((masking == masking[0]).all())
