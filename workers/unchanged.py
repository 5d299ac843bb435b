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
from workers.combiner import Work
from workers.updates import open_global


def unchanged_updates(
    work: Work, models: Mapping[str, ClientModel], old: GlobalModel, base: TensorFile | None
) -> list[str]:
    """Return the clients that handed in the global model that they got.

    `models` are their updates as handed in. Without `base`, which is the model `old`, returns those whose file has the
    same bytes.
    """
    found = []
    for client, update in work.updates.items():
        given, file = work.base_of(client) or old, base
        if base is not None and given is not old:
            file = open_global(work.opened, given)
        is_same = update.object.digest == given.model.digest
        if is_same or (file is not None and is_unchanged(models[client].tensors, file)):
            found.append(client)
    return found


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
