"""Pre-trained weights that a run starts from."""

from __future__ import annotations

import shutil
from pathlib import Path

from flavor.errors import CheckpointError, InvalidSetting
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.store.protocol import ObjectStore


def store_initial(
    store: ObjectStore, run: str, path: Path, *, opaque: bool = False, what: str = "--init-model"
) -> GlobalModel:
    """Put pre-trained weights into the store; `InvalidSetting`, naming `what` gave them, when they are none."""
    import numpy as np

    from flavor.checkpoints import TensorFile, detect, digest_and_check, to_safetensors
    from flavor.store.digests import sha256_file
    from flavor.store.paths import OPAQUE, global_prefix, named

    prefix = global_prefix(run, 0)
    with store.stage() as staged:
        if opaque:
            shutil.copyfile(path, staged)
            digest, size = sha256_file(staged)
            target = named(prefix, "model", digest, ".bin")
            store.put(target, staged, digest=digest)
            return GlobalModel(ObjectRef(target, digest, size, store.seal(target)), format=OPAQUE)
        try:
            format_ = detect(path)
            wire = to_safetensors(path, staged, format_)
            odd, file = digest_and_check(staged).odd, TensorFile.open(staged)
            nan = next((name for name in odd if np.isnan(file.tensor(name)).any()), None)
            del file
        except CheckpointError as error:
            raise InvalidSetting(f"{what} {error}") from None
        if nan is not None:
            raise InvalidSetting(f"{what} {path}: tensor {nan!r} has NaN values")
        target = named(prefix, "model", wire.sha256, ".safetensors")
        store.put(target, staged, digest=wire.sha256)
    return GlobalModel(ObjectRef(target, wire.sha256, wire.size_bytes, store.seal(target)), format=format_.value)
