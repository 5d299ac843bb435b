"""What real frameworks write: read as it was meant, or refused with what to save instead."""

from __future__ import annotations

import gzip
import io
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import ml_dtypes
import numpy as np
import pytest

from flavor.checkpoints import (
    Encoding,
    Format,
    TensorFile,
    detect,
    digest_and_check,
    encode,
    from_safetensors,
    is_finite,
    read,
    read_beside,
    take_safetensors,
    to_safetensors,
    write_beside,
)
from flavor.errors import CheckpointError
from tests.lazy import Lazy

torch, given = Lazy("torch"), Lazy("tests.tensors")

HOWS = ["zip", "legacy", "pickle"]


def save(path: Path, how: str, value: Any) -> Path:
    if how == "pickle":
        path.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=how == "zip")
    return path


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.nn.Buffer(given.T),
        lambda: torch.nn.Parameter(given.T),
        lambda: given.tagged(),  # noqa: PLW0108 - which imports torch
    ],
    ids=["buffer", "parameter", "subclass"],
)
def test_a_tensor_by_another_name_is_its_tensor(tmp_path: Path, how: str, make: Callable[[], torch.Tensor]) -> None:
    found = read(save(tmp_path / "x", how, {"state_dict": {"w": make()}})).tensors["w"]
    np.testing.assert_array_equal(found, given.T.numpy())


@pytest.mark.parametrize("how", HOWS)
def test_a_subclass_with_a_state_is_named(tmp_path: Path, how: str) -> None:
    path = save(tmp_path / "x", how, {"state_dict": {"w": given.tagged(scale=3)}})
    with pytest.raises(CheckpointError, match=r"'w' is a .*Tagged \(a tensor subclass with a state of its own\)"):
        read(path)


@pytest.mark.parametrize("how", HOWS)
def test_a_numpy_integer_is_a_key(tmp_path: Path, how: str) -> None:
    path = save(tmp_path / "x", how, {"state_dict": {np.int64(3): {"w": given.T}, np.uint8(1): {"w": given.T}}})
    checkpoint = read(path)
    assert list(checkpoint.tensors) == ["3/w", "1/w"]
    wire, back = tmp_path / "wire", tmp_path / "back"
    info = to_safetensors(path, wire)
    from_safetensors(wire, back, Format.PICKLE, info.structure)
    assert list(pickle.loads(back.read_bytes())["state_dict"]) == [np.int64(3), 1]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2"])
def test_eight_bit_floats_come_back_as_they_were(tmp_path: Path, how: str, kind: str) -> None:
    dtype = getattr(torch, kind)
    path = save(tmp_path / "x", how, {"state_dict": {"w": given.T.to(dtype), "v": given.T}})
    wire, back = tmp_path / "wire", tmp_path / "back"
    info = to_safetensors(path, wire)
    assert digest_and_check(wire).nonfinite is None
    from_safetensors(wire, back, info.format, info.structure)
    loaded = pickle.loads(back.read_bytes()) if how == "pickle" else torch.load(back, weights_only=True)
    assert loaded["state_dict"]["w"].dtype is dtype
    assert torch.equal(loaded["state_dict"]["w"].float(), given.T)
    with pytest.raises(CheckpointError, match=f"'w' is {kind}, which npz cannot hold"):
        from_safetensors(wire, tmp_path / "npz", Format.NPZ)


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_one_bad_eight_bit_float_is_found(dtype: Any) -> None:
    values = np.ones(300_000, dtype)
    values[-1] = np.finfo(np.float32).max if dtype is ml_dtypes.float8_e4m3fn else 1
    worst = np.full(10, ml_dtypes.finfo(dtype).max)
    assert is_finite(worst.astype(dtype))
    values[-1] = np.nan
    assert not is_finite(values)


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_eight_bit_floats_travel_in_a_compressed_run(tmp_path: Path, kind: Any) -> None:
    path = save(tmp_path / "x", "zip", {"state_dict": {"w": given.T.to(torch.float8_e5m2), "v": given.T}})
    base = tmp_path / "base"
    info = to_safetensors(path, base)
    encode(path, tmp_path / "wire", TensorFile.open(base), Encoding(kind, info.sha256), Format.TORCH)
    assert TensorFile.open(tmp_path / "wire").tensor("w").dtype == np.dtype(ml_dtypes.float8_e5m2)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: given.T.to(torch.complex64), "a tensor of complex64, which cannot be averaged; .*view_as_real"),
        (lambda: given.T.to(torch.complex128), "a tensor of complex128"),
        (
            lambda: torch.quantize_per_tensor(given.T, 0.1, 0, torch.qint8),
            r"_rebuild_qtensor, which is not read; save its dequantize",
        ),
        (lambda: given.T.to_sparse(), r"save its to_dense\(\)"),  # noqa: PLW0108 - which imports torch
    ],
    ids=["complex64", "complex128", "quantized", "sparse"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_tensor_that_cannot_be_averaged_is_named_and_matters_in_state_dict_alone(
    tmp_path: Path, how: str, make: Callable[[], torch.Tensor], message: str
) -> None:
    tensor = make()
    path = save(tmp_path / "x", how, {"state_dict": {"w": tensor}})
    with pytest.raises(CheckpointError, match=f"state_dict 'w'.*{message}"):
        read(path)
    beside = read(save(path, how, {"state_dict": {"w": given.T}, "odd": tensor, "epoch": 3}))
    assert (list(beside.tensors), beside.beside, beside.left_out) == (["w"], {"epoch": 3}, ("odd",))


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, object], Any]:
    """A class of a library that is not here, whose instances pickle as `reduced`."""

    def make(module: str, name: str, reduced: object) -> Any:
        parts = module.split(".")
        for length in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:length]), types.ModuleType(".".join(parts[:length])))
        kind = type(name, (), {"__module__": module, "__qualname__": name, "__reduce__": lambda _: (kind, (reduced,))})
        setattr(sys.modules[module], name, kind)
        return kind()

    return make


def test_objects_of_other_libraries_are_named_with_what_to_save(
    tmp_path: Path, foreign: Callable[[str, str, object], Any]
) -> None:
    path = tmp_path / "x"
    for state_dict, message in (
        (foreign("flax.core.frozen_dict", "FrozenDict", {}), r"FrozenDict, .*; save flax\.core\.unfreeze"),
        ({"w": foreign("jax._src.array", "_reconstruct_array", {})}, r"'w' is a jax.*; save numpy\.asarray"),
        ({"w": foreign("pandas.core.frame", "DataFrame", {})}, r"'w' is a pandas.*; save its to_numpy\(\)"),
        (foreign("sklearn.svm", "SVC", {}), r"state_dict is a sklearn.*; save the arrays .*model\.coef_"),
    ):
        path.write_bytes(pickle.dumps({"state_dict": state_dict}))
        with pytest.raises(CheckpointError, match=message):
            read(path)
    path.write_bytes(pickle.dumps(foreign("sklearn.svm", "SVC", {})))
    with pytest.raises(CheckpointError, match=r"it holds a sklearn.*; save the arrays .*model\.coef_"):
        read(path)


def dumped(value: object, **options: Any) -> bytes:
    file = io.BytesIO()
    joblib.dump(value, file, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dumped, r"joblib wrote this file.*; save it with pickle\.dump"),
        (lambda value: dumped(value, compress=3), "it is compressed .zlib, as joblib does it"),
        (lambda value: gzip.compress(pickle.dumps(value)), "it is compressed .gzip.: save it without compression"),
        (lambda value: b"\x89HDF\r\n\x1a\n" + bytes(100), "it is HDF5, as Keras saves it: save a dict"),
        (lambda value: b'{"w": [1, 2]}', "it is text that begins as JSON"),
    ],
    ids=["joblib", "joblib-compressed", "gzip", "hdf5", "json"],
)
def test_files_of_other_kinds_are_named(tmp_path: Path, content: Callable[[object], bytes], message: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content({"state_dict": {"w": np.ones(300)}}))
    with pytest.raises(CheckpointError, match=message):
        read(path)


@pytest.mark.parametrize("how", [*HOWS, "safetensors"])
def test_an_empty_state_dict_leaves_no_site(tmp_path: Path, how: str) -> None:
    from safetensors.numpy import save_file

    path, base = tmp_path / "x", tmp_path / "base"
    to_safetensors(save(base, "zip", {"state_dict": {"w": given.T}}), tmp_path / "whole")
    if how == "safetensors":
        save_file({}, path)
        with pytest.raises(CheckpointError, match="its state_dict is empty; save model"):
            take_safetensors(path)
    else:
        save(path, how, {"state_dict": {}})
    with pytest.raises(CheckpointError, match="its state_dict is empty; save model"):
        to_safetensors(path, tmp_path / "wire")
    with pytest.raises(CheckpointError, match="its state_dict is empty; save model"):
        encode(path, tmp_path / "wire", TensorFile.open(tmp_path / "whole"), Encoding("bf16", "0" * 64), detect(path))


def lightning() -> dict[str, Any]:
    """The keys of a checkpoint of Lightning 2.5, with values of their kinds."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "global_step": 12,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": model.state_dict(),
        "loops": {"fit_loop": {"epoch_progress": {"total": {"ready": 3}}, "state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": given.T[0], "best_model_path": ""}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "lr": 0.01,
            "sizes": (3, 2),
            "dtype": torch.float32,
            "seed": np.int64(7),
            "raw": b"\x00\xff",
        },
        "MixedPrecision": None,
    }


@pytest.mark.parametrize("how", HOWS)
def test_a_site_gets_back_what_stood_beside_its_state_dict(tmp_path: Path, how: str) -> None:
    """With the global model's tensors, in any later process of the edge, after the script's file is gone."""
    own = lightning()
    path, wire, kept, back = (tmp_path / name for name in ("own", "wire", "kept", "back"))
    info = to_safetensors(save(path, how, own), wire)
    assert info.left_out == ()
    write_beside(kept, info.beside)
    del info
    path.unlink()
    other = {**own, "state_dict": {"weight": torch.full((2, 3), 9.0), "bias": torch.full((2,), 8.0)}, "epoch": 77}
    theirs = tmp_path / "theirs"
    found = to_safetensors(save(tmp_path / "other", how, other), theirs)
    fmt = Format.PICKLE if how == "pickle" else Format.TORCH
    from_safetensors(theirs, back, fmt, found.structure, beside=read_beside(kept))
    loaded = pickle.loads(back.read_bytes()) if how == "pickle" else torch.load(back, weights_only=False)
    assert set(loaded) == set(own)
    assert torch.equal(loaded["state_dict"]["weight"], torch.full((2, 3), 9.0))
    for key in set(own) - {"state_dict", "optimizer_states", "callbacks"}:
        assert loaded[key] == own[key], key
    assert loaded["callbacks"]["ModelCheckpoint{'monitor': None}"]["best_model_score"] == given.T[0]
    fresh = torch.optim.Adam(torch.nn.Linear(3, 2).parameters(), lr=1.0)
    fresh.load_state_dict(loaded["optimizer_states"][0])
    assert fresh.param_groups[0]["lr"] == 0.01
    assert torch.equal(fresh.state_dict()["state"][0]["exp_avg"], own["optimizer_states"][0]["state"][0]["exp_avg"])


def test_what_cannot_be_kept_is_left_out_whole_and_named(tmp_path: Path) -> None:
    loop: list[object] = [1]
    loop.append(loop)
    value = {
        "state_dict": {"w": given.T},
        "model": torch.nn.Linear(1, 1),
        "nested": {"deep": [{"model": torch.nn.Linear(1, 1)}]},
        "endless": loop,
        "epoch": 3,
        "names": {"a", "b"},
    }
    info = to_safetensors(save(tmp_path / "x", "zip", value), tmp_path / "wire")
    assert (info.beside, info.left_out) == ({"epoch": 3}, ("model", "nested", "endless", "names"))


def test_a_site_that_saved_nothing_beside_gets_nothing_beside(tmp_path: Path) -> None:
    info = to_safetensors(save(tmp_path / "x", "zip", {"state_dict": {"w": given.T}}), tmp_path / "wire")
    assert (info.beside, info.left_out) == ({}, ())
    kept = read_beside(tmp_path / "absent")
    from_safetensors(tmp_path / "wire", tmp_path / "back", Format.TORCH, beside=kept)
    assert list(torch.load(tmp_path / "back", weights_only=True)) == ["state_dict"]
