"""Files that somebody else may still write to: read part by part, with the same result as mapped ones."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from aggregators import engine, parse
from aggregators.updates import ClientModel
from flavor.checkpoints import Encoding, TensorFile, TensorFileWriter, TensorSpec, digest_and_check, encode
from flavor.checkpoints.compare import same_bits
from flavor.checkpoints.unmapped import WHOLE_BYTES, FileTensor
from flavor.errors import CheckpointError, DigestMismatch

LARGE, SMALL = (300, 1001), (3, 5)
CLIENTS = 5


def written(path: Path, seed: int, shape: tuple[int, ...]) -> Path:
    draw = np.random.default_rng(seed)
    tensors = {
        "w": draw.normal(size=shape).astype(np.float32),
        "half": draw.normal(size=shape).astype(ml_dtypes.bfloat16),
        "double": draw.normal(size=shape),
        "steps": draw.integers(-9, 9, shape),
        "mask": draw.integers(0, 2, shape).astype(bool),
        "none": np.zeros((0, 3), np.float32),
        "scalar": np.array(seed, np.float32),
    }
    with TensorFileWriter(path, [TensorSpec(name, a.dtype, a.shape) for name, a in tensors.items()]) as writer:
        for spec in writer.specs:
            writer.write(spec.name, tensors[spec.name])
    return path


def tensors(file: TensorFile):
    return {spec.name: file.stored(spec.name) for spec in file.specs_in_file_order}


@pytest.fixture(params=[LARGE, SMALL])
def paths(tmp_path, request):
    return [written(tmp_path / f"{seed}.safetensors", seed, request.param) for seed in range(CLIENTS)]


def test_large_files_are_not_mapped_and_not_read_whole(tmp_path):
    path = written(tmp_path / "x", 1, LARGE)
    before = Path("/proc/self/maps").read_text()
    file = TensorFile.reading(path)
    assert isinstance(file.stored("w"), FileTensor)
    assert path.stat().st_size > WHOLE_BYTES
    assert str(path) not in Path("/proc/self/maps").read_text().replace(before, "")
    np.testing.assert_array_equal(file.tensor("w"), TensorFile.open(path).tensor("w"))


@pytest.mark.parametrize("rule", ["mean", "median", "krum:f=1", "geometric_median", "norm_clip:c=median/mean"])
def test_every_rule_sees_the_same(paths, rule):
    algorithm = parse(rule)
    results = []
    for opened in (TensorFile.open, TensorFile.reading):
        models = [tensors(opened(path)) for path in paths]
        base = models[0] if algorithm.needs_global else None
        results.append(engine.run(models, [1, 2, 3, 4, 5.5], reducer=algorithm.reducer, global_model=base, threads=2))
    for name, expected in results[0].model.items():
        np.testing.assert_allclose(
            results[1].model[name].astype(float), expected.astype(float), rtol=1e-6, atol=1e-6, err_msg=name
        )


def test_server_states_and_encoded_updates_too(paths, tmp_path):
    algorithm, results = parse("mean", "adam"), []
    base = TensorFile.open(paths[0])
    small = [tmp_path / f"{i}.int8" for i in range(2)]
    digest = hashlib.sha256(paths[0].read_bytes()).hexdigest()
    for path, target in zip(paths[1:], small, strict=False):
        encode(path, target, base, Encoding("int8", digest))
    for opened in (TensorFile.open, TensorFile.reading):
        models = [ClientModel.of(opened(path), opened(paths[0])).tensors for path in small]
        old, state = tensors(opened(paths[0])), None
        for turn in range(2):
            result = engine.run(models, server_step=algorithm.server_step, global_model=old, state=state)
            assert result.state is not None
            if not turn:
                result.state.save(tmp_path / "state")
                file = opened(tmp_path / "state")
                state = type(result.state).restore(tensors(file), file.metadata)  # type: ignore[arg-type]
        results.append(result)
    for name, expected in results[0].model.items():
        np.testing.assert_array_equal(results[1].model[name], expected)


def test_one_pass_tells_the_same(paths):
    for path in paths:
        assert digest_and_check(TensorFile.reading(path)) == digest_and_check(path)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_an_error_of_one_line(tmp_path, keep):
    """Whoever had it mapped would be dead."""
    path = written(tmp_path / "x", 1, LARGE)
    file = TensorFile.reading(path, "object runs/r/x")
    os.truncate(path, int(path.stat().st_size * keep))
    said = "object runs/r/x: the bytes are not those that were recorded: it was cut off while it was read"
    with pytest.raises(DigestMismatch, match=said):
        digest_and_check(file)
    with pytest.raises(DigestMismatch, match=said):
        engine.run([tensors(file)], None)


def test_what_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="object x: cannot be read: No such file"):
        TensorFile.reading(tmp_path / "none", "object x")
    (tmp_path / "empty").touch()
    with pytest.raises(CheckpointError, match="the file is empty"):
        TensorFile.reading(tmp_path / "empty")


@pytest.mark.parametrize("shape", [LARGE, SMALL])
def test_its_last_reader_closes_it(tmp_path, shape):
    """Not the next collection of garbage: the pages of a removed file are what the next round is written to."""
    path = written(tmp_path / "update", 1, shape)
    gc.disable()
    try:
        file = TensorFile.reading(path)
        tensors = [file.stored(name) for name in file.names]
        bytes(file.source.view[0:8])
        assert any(held == path for held in open_files())
        del file, tensors
        assert not any(held == path for held in open_files())
    finally:
        gc.enable()


def open_files() -> list[Path]:
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the folder itself
            found.append(each.readlink())
    return found


@pytest.mark.parametrize("name", ["w", "half", "double", "mask", "none", "scalar"])
def test_a_change_of_one_bit_is_seen_wherever_it_lies(tmp_path, paths, name):
    path = paths[0]
    arrays = {each: TensorFile.open(path).tensor(each).copy() for each in TensorFile.open(path).names}
    other = TensorFile.reading(path)
    assert same_bits(TensorFile.reading(path).stored(name), other.stored(name))
    assert same_bits(arrays[name], other.stored(name))
    for place in {0, arrays[name].size // 2, arrays[name].size - 1} if arrays[name].size else ():
        changed = arrays[name].copy()
        changed.reshape(-1).view(np.uint8)[(place + 1) * changed.itemsize - 1] ^= 1
        with TensorFileWriter(tmp_path / "changed", [TensorSpec(name, changed.dtype, changed.shape)]) as writer:
            writer.write(name, changed)
        for each in (changed, TensorFile.reading(tmp_path / "changed").stored(name)):
            assert not same_bits(each, other.stored(name))
            assert not same_bits(other.stored(name), each)
