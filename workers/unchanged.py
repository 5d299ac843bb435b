"""Detect lost training: a round whose model equals the one before, updates that equal the global model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aggregators.computed import ComputedTensor, Tensor
from aggregators.encoded import EncodedTensor
from aggregators.updates import ClientModel
from flavor.checkpoints import TensorFile
from flavor.checkpoints.compare import same_bits
from flavor.records.model import GlobalModel
from flavor.records.update import Update


def unchanged_updates(
    updates: Mapping[str, Update], models: Mapping[str, ClientModel], old: GlobalModel, base: TensorFile | None
) -> list[str]:
    """Return the clients that handed in the global model; without `base`, those whose file has the same bytes."""
    return [
        client
        for client, update in updates.items()
        if update.object.digest == old.model.digest or (base is not None and is_unchanged(models[client].tensors, base))
    ]


def is_unchanged(tensors: Mapping[str, Tensor], base: TensorFile) -> bool:
    """Return whether these tensors equal those of `base` bit for bit; compares small tensors first, to read little."""
    for name in sorted(tensors, key=lambda name: tensors[name].size):
        tensor = tensors[name]
        if isinstance(tensor, EncodedTensor):
            if not tensor.is_unchanged:
                return False
        elif name not in base or not same_bits(
            np.asarray(tensor) if isinstance(tensor, ComputedTensor) else tensor, base.stored(name)
        ):
            return False
    return True
