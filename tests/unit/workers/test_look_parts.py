"""An aggregator takes no update with a tensor that is not shared, also in a round without a global model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from safetensors.numpy import save

from flavor.config import RunConfig
from flavor.errors import CheckpointError
from flavor.records.objects import ObjectRef
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.records.update import Update
from flavor.store.local import LocalStore
from workers.look_tensors import TensorLook
from workers.reading import Reading

PATH = "runs/r/clients/a/0001-update-x.safetensors"


def looked_at(folder: Path, **tensors: np.ndarray) -> str:
    """Have a worker look at an update of these tensors; returns the structure that it found."""
    config = RunConfig(rounds=1, store="-", local=("*bn*",))
    view = RunView("r", RunState.RUNNING, 1, 1, config.to_mapping(), "", None, 0, None)
    store, data = LocalStore(folder / "store", create=True), save(tensors)
    ref = ObjectRef(PATH, hashlib.sha256(data).hexdigest(), len(data))
    with store.stage() as staged:
        staged.write_bytes(data)
        store.put(ref, staged)
    runs = cast(Any, SimpleNamespace(reference=lambda _: None))
    look = TensorLook(runs, store, view, 1, config)
    return look(Reading(store), PATH, Update(ref, ref, "npz", 1), len(data)).structure


def test_an_update_of_shared_tensors_alone_is_taken(tmp_path: Path) -> None:
    shared = {"w": np.ones(3, np.float32), "scaffold_c__w": np.ones(3, np.float32)}
    assert looked_at(tmp_path, **shared)
    with pytest.raises(CheckpointError, match=r"tensor 'bn\.w' is not shared in this run \(--local '\*bn\*'\)"):
        looked_at(tmp_path / "other", **shared, **{"bn.w": np.ones(3, np.float32)})
