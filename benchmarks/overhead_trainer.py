"""The trainer of `overhead.py`: adds 0.001·i to each of 16 equal float32 arrays, and does nothing else."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np

from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

ARRAYS = 16


def load(path: str, format_: str, state: dict) -> None:
    """Copy the checkpoint into the model's own arrays, as `load_state_dict` does."""
    if format_ == "pickle":
        with open(path, "rb") as file:
            loaded = pickle.load(file)["state_dict"]
        for name, array in state.items():
            array[...] = loaded[name]
    elif format_ == "torch":
        import torch

        loaded = torch.load(path, weights_only=True, mmap=True)["state_dict"]
        for name, tensor in state.items():
            tensor.copy_(loaded[name])
    else:
        from safetensors import safe_open

        with safe_open(path, framework="np") as file:
            for name, array in state.items():
                array[...] = file.get_tensor(name)


def save(path: str, format_: str, state: dict) -> None:
    if format_ == "pickle":
        with open(path, "wb") as file:
            pickle.dump({"state_dict": state}, file, protocol=5)
    elif format_ == "torch":
        import torch

        torch.save({"state_dict": state}, path)
    else:
        from safetensors.numpy import save_file

        save_file(state, path)


def main() -> None:
    format_, size_bytes = sys.argv[1], int(sys.argv[2])
    i = int(os.environ["FLAVOR_CLIENT"].rpartition("-")[2]) - 1
    elements = size_bytes // 4 // ARRAYS
    state = {f"layer{k}": np.zeros(elements, np.float32) for k in range(ARRAYS)}
    if format_ == "torch":
        import torch

        state = {name: torch.from_numpy(array) for name, array in state.items()}
    info = {
        "metadata": {"epoch": 0, "datasetSize": 100 * (i + 1), "importance": 1.0},
        "metrics": {**{f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")}, "loss": 0.5},
    }
    SetEvent("TrainInitDone")
    while True:
        round_ = WaitEvent("TrainStarted")
        if Path(os.environ["GLOBAL_MODEL_PATH"]).exists():
            load(os.environ["GLOBAL_MODEL_PATH"], format_, state)
        for name in state:
            state[name] += 0.001 * i
        save(os.environ["LOCAL_MODEL_PATH"], format_, state)
        info["metadata"]["epoch"] = round_
        SaveInfoJson(info)
        SetEvent("TrainFinished")


main()
