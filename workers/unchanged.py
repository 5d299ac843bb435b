"""Training that was lost: a round whose model is the one before, updates that are the model that they were given."""

from __future__ import annotations

from collections.abc import Mapping

from aggregators.encoded import EncodedTensor, Tensor
from aggregators.updates import ClientModel
from flavor.checkpoints import TensorFile
from flavor.checkpoints.compare import same_bits
from flavor.records.model import GlobalModel
from flavor.records.update import Update


def unchanged_updates(
    updates: Mapping[str, Update], models: Mapping[str, ClientModel], old: GlobalModel, base: TensorFile | None
) -> list[str]:
    """The clients that handed in the global model; without the file `base` those whose file is its, byte for byte."""
    return [
        client
        for client, update in updates.items()
        if update.object.digest == old.model.digest or (base is not None and is_unchanged(models[client].tensors, base))
    ]


def is_unchanged(tensors: Mapping[str, Tensor], base: TensorFile) -> bool:
    """Whether these are the tensors of `base`, bit for bit; the small ones first, so that mostly little is read."""
    for name in sorted(tensors, key=lambda name: tensors[name].size):
        tensor = tensors[name]
        if isinstance(tensor, EncodedTensor):
            if not tensor.is_unchanged:
                return False
        elif name not in base or not same_bits(tensor, base.stored(name)):
            return False
    return True
