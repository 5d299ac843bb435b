"""`aggregate` as a notebook uses it: on paths of every format, on dicts, without Redis."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from aggregators import ServerState, aggregate
from flavor.checkpoints import Format, detect
from flavor.errors import AggregationError, CheckpointError, InvalidSetting, StoreError
from tests.lazy import Lazy

torch = Lazy("torch")

SHAPES = {"w": (3, 4), "b": (4,), "scale": ()}


def tensors(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.standard_normal(shape), np.float32) for name, shape in SHAPES.items()}


def saved(path: Path, fmt: str, model: dict[str, Any]) -> Path:
    """The model in a file as its own library writes it."""
    if fmt in ("torch", "legacy"):
        value = {"state_dict": {name: torch.from_numpy(np.array(array)) for name, array in model.items()}}
        torch.save(value, path, _use_new_zipfile_serialization=fmt == "torch")
    elif fmt == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": model}))
    elif fmt == "npz":
        with open(path, "wb") as file:
            np.savez(file, **model)
    else:
        safetensors.numpy.save_file(model, path)
    return path


def loaded(path: Path) -> dict[str, Any]:
    """What the library that owns the format reads."""
    fmt = detect(path)
    if fmt is Format.TORCH:
        return {name: t.numpy() for name, t in torch.load(path, weights_only=True)["state_dict"].items()}
    if fmt is Format.PICKLE:
        return dict(pickle.loads(path.read_bytes())["state_dict"])
    if fmt is Format.NPZ:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    return safetensors.numpy.load_file(path)


def equal(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


KINDS = ["torch", "legacy", "pickle", "npz", "safetensors"]


def test_paths_of_all_formats_and_dicts_mix(tmp_path: Path) -> None:
    models: list[Any] = [saved(tmp_path / fmt, fmt, tensors(seed)) for seed, fmt in enumerate(KINDS)]
    models[2] = str(models[2])
    models.append(tensors(len(KINDS)))
    weights = [1, 2, 3, 4, 5, 6]
    got = aggregate(models, weights)
    wanted = aggregate([tensors(seed) for seed in range(6)], weights)
    assert equal(got, wanted)
    for name in SHAPES:
        rows = [tensors(seed)[name] for seed in range(6)]
        np.testing.assert_allclose(got[name], np.average(rows, axis=0, weights=weights), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fmt", KINDS)
def test_the_result_is_written_in_the_format_of_the_first_path(tmp_path: Path, fmt: str) -> None:
    models = [tensors(0), saved(tmp_path / "one", fmt, tensors(1)), saved(tmp_path / "two", "npz", tensors(2))]
    got = aggregate(models, out=tmp_path / "global")
    assert detect(tmp_path / "global") == detect(tmp_path / "one")
    assert equal(loaded(tmp_path / "global"), got)
    assert sorted(os.listdir(tmp_path)) == ["global", "one", "two"]


@pytest.mark.parametrize("fmt", list(Format))
def test_or_in_the_format_that_is_asked_for(tmp_path: Path, fmt: Format) -> None:
    got = aggregate([tensors(0), tensors(1)], out=tmp_path / "x", out_format=str(fmt))
    assert detect(tmp_path / "x") is fmt
    assert equal(loaded(tmp_path / "x"), got)


def test_dicts_alone_become_a_safetensors_file_that_is_returned_mapped(tmp_path: Path) -> None:
    got = aggregate([tensors(0), tensors(1)], out=str(tmp_path / "x"))
    assert detect(tmp_path / "x") is Format.SAFETENSORS
    assert not got["w"].flags.writeable
    assert equal(got, aggregate([tensors(0), tensors(1)]))


def test_nesting_comes_back_and_names_are_paths(tmp_path: Path) -> None:
    def nested(value: float) -> dict[str, Any]:
        return {"body": [np.full(2, value), {"w": np.full((2, 1), value, np.float32)}], "epoch": 3, "act": "relu"}

    for number in (1, 3):
        (tmp_path / f"{number}").write_bytes(pickle.dumps({"state_dict": nested(number), "optimizer": object}))
    got = aggregate([tmp_path / "1", tmp_path / "3"], out=tmp_path / "global")
    assert {name: array.tolist() for name, array in got.items()} == {
        "body/0": [2, 2],
        "body/1/w": [[2], [2]],
        "epoch": 3,
    }
    back = pickle.loads((tmp_path / "global").read_bytes())["state_dict"]
    assert (back["epoch"], type(back["epoch"]), back["act"]) == (3, int, "relu")
    assert back["body"][1]["w"].tolist() == [[2], [2]]
    flat = aggregate([tmp_path / "1", {name: array + 2 for name, array in got.items()}])
    assert list(flat) == list(got)


def test_out_may_be_the_path_of_an_input(tmp_path: Path) -> None:
    for fmt in KINDS:
        path, other = saved(tmp_path / "a", fmt, tensors(0)), saved(tmp_path / "b", fmt, tensors(1))
        wanted = aggregate([tensors(0), tensors(1)])
        assert equal(aggregate([path, other], out=path), wanted)
        assert equal(loaded(path), wanted)


def test_a_run_of_three_rounds_with_a_state_in_a_file(tmp_path: Path) -> None:
    theta: Any = saved(tmp_path / "global", "torch", tensors(0))
    state: Any = None
    memory, state_in_memory = tensors(0), None
    for round_ in range(3):
        clients = [saved(tmp_path / f"{i}", "torch", tensors(10 * round_ + i)) for i in (1, 2)]
        _, state = aggregate(clients, [1, 3], aggregator="diloco", global_model=theta, state=state, out=theta)
        state.save(tmp_path / "state")
        state = ServerState.load(tmp_path / "state")
        dicts = [tensors(10 * round_ + i) for i in (1, 2)]
        memory, state_in_memory = aggregate(
            dicts, [1, 3], aggregator="diloco", global_model=memory, state=state_in_memory
        )
    assert equal(loaded(theta), memory)
    assert (state.step, state.rounds) == ("nesterov", 3)
    assert equal(dict(state.tensors), dict(state_in_memory.tensors))


def test_half_precision_goes_through_files(tmp_path: Path) -> None:
    for value in (1, 2):
        half = {"h": torch.full((2,), value).half(), "b": torch.full((2,), value).bfloat16()}
        torch.save({"state_dict": half}, tmp_path / f"{value}")
    got = aggregate([tmp_path / "1", tmp_path / "2"], out=tmp_path / "g")
    assert (got["h"].dtype, got["b"].dtype) == (np.float16, ml_dtypes.bfloat16)
    back = torch.load(tmp_path / "g", weights_only=True)["state_dict"]
    assert torch.equal(back["b"], torch.full((2,), 1.5).bfloat16())
    with pytest.raises(CheckpointError, match="'b' is bfloat16, which npz cannot hold"):
        aggregate([tmp_path / "1", tmp_path / "2"], out=tmp_path / "n", out_format="npz")
    assert not (tmp_path / "n").exists()


def test_after_an_error_out_is_what_it_was(tmp_path: Path) -> None:
    out, one = tmp_path / "out", saved(tmp_path / "one", "safetensors", tensors(1))
    out.write_bytes(b"before")
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (AggregationError, "at least 5 clients, got n = 2", {"aggregator": "krum:f=1"}),
        (AggregationError, "nesterov needs the old global model", {"aggregator": "diloco"}),
        (AggregationError, "1 weights for 2 clients", {"weights": [1]}),
        (InvalidSetting, "unknown aggregator 'medain'", {"aggregator": "medain"}),
        (InvalidSetting, "unknown format 'onnx'; there are: torch, pickle, npz, safetensors", {"out_format": "onnx"}),
        (CheckpointError, "no such file", {"global_model": tmp_path / "missing"}),
    ]
    for kind, message, options in cases:
        with pytest.raises(kind, match=message) as caught:
            aggregate([one, tensors(2)], out=out, **options)
        assert "\n" not in str(caught.value)
        assert out.read_bytes() == b"before"
    with pytest.raises(StoreError, match="cannot be written"):
        aggregate([one, tensors(2)], out=tmp_path / "no" / "folder")
    assert sorted(os.listdir(tmp_path)) == ["one", "out"], "something was left behind"


def test_what_is_no_list_of_models_is_named() -> None:
    for models, message in [
        (tensors(0), "models is one model; give a list"),
        ("path", "models is one model; give a list"),
        ([tensors(0), 7], "client 1 is a int, neither a dict of arrays nor a path"),
        ([], "no client's model was given"),
    ]:
        with pytest.raises(AggregationError, match=message):
            aggregate(models)  # type: ignore[arg-type]
    with pytest.raises(AggregationError, match="out_format='npz' without out"):
        aggregate([tensors(0)], out_format="npz")


def test_models_that_differ_are_refused_by_name(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", "torch", tensors(0))
    other = saved(tmp_path / "other", "npz", tensors(1) | {"b": np.zeros(5, np.float32)})
    with pytest.raises(AggregationError, match=r"client 1: tensor 'b' has shape \(5,\); client 0 has \(4,\)"):
        aggregate([one, other], out=tmp_path / "out")


def test_a_notebook_needs_neither_redis_nor_what_the_commands_need() -> None:
    code = """
import sys
import numpy as np
from aggregators import aggregate
print(aggregate([{"w": np.array([1.0])}, {"w": np.array([3.0])}], [1, 3])["w"])
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"redis", "rq", "click", "pydantic", "rich", "torch", "fakeredis", "workers"}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[2.5]\n[]\n"
