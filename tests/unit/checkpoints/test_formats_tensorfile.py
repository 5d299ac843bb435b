"""The wire format against the safetensors library, and its writer and inspection."""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flavor.checkpoints import (
    Checkpoint,
    Format,
    TensorFile,
    TensorFileWriter,
    TensorSpec,
    digest_and_check,
    is_finite,
    read,
    to_safetensors,
    write,
)
from flavor.checkpoints.blocks import RELEASE_BYTES
from flavor.checkpoints.finite import BLOCK_ELEMENTS
from flavor.checkpoints.mapped import HUGE_PAGE_BYTES
from flavor.checkpoints.safetensors.background_digest import TrailingDigest
from flavor.errors import CheckpointError, StoreError
from tests.lazy import Lazy
from tests.resident import counted, resident_bytes

torch, of_torch = Lazy("torch"), Lazy("safetensors.torch")

BF16 = np.dtype(ml_dtypes.bfloat16)
F4 = np.dtype(np.float32)


def model() -> dict[str, Any]:
    chance = np.random.default_rng(0)
    return {
        "z.weight": chance.standard_normal((3, 5)).astype(np.float32),
        "a.steps": np.array(7, np.int64),
        "mask": chance.random(9) > 0.5,
        "half": chance.random((2, 3)).astype(np.float16),
        "empty": np.empty((0, 4), np.float64),
        "bytes": np.arange(5, dtype=np.uint8),
        "ä": chance.random(3),
    }


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    tensors = model()
    write(tmp_path / "x", Checkpoint(tensors, metadata={"format": "np"}), Format.SAFETENSORS)
    loaded = safetensors.numpy.load_file(tmp_path / "x")
    assert loaded.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(loaded[name], array, strict=True)
    with safetensors.safe_open(tmp_path / "x", "np") as file:
        assert file.metadata() == {"format": "np"}


def test_we_read_what_the_library_writes(tmp_path: Path) -> None:
    tensors = model()
    safetensors.numpy.save_file(tensors, tmp_path / "x", metadata={"format": "np", "more": "text"})
    file = TensorFile.open(tmp_path / "x")
    assert set(file.names) == set(tensors)
    assert file.metadata == {"format": "np", "more": "text"}
    for name, array in tensors.items():
        assert (file.dtype(name), file.shape(name)) == (array.dtype, array.shape)
        np.testing.assert_array_equal(file.tensor(name), array, strict=True)
    every = {"w": torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)}
    of_torch.save_file(every, tmp_path / "x")
    assert TensorFile.open(tmp_path / "x").dtype("w") == BF16
    assert TensorFile.open(tmp_path / "x").tensor("w").view(np.uint16).tolist() == list(range(65536))
    safetensors.numpy.save_file({}, tmp_path / "x")
    assert TensorFile.open(tmp_path / "x").names == ()


def test_tensors_are_aligned_views_in_the_trainers_order(tmp_path: Path) -> None:
    tensors = model()
    write(tmp_path / "x", Checkpoint(tensors), Format.SAFETENSORS)
    file = TensorFile.open(tmp_path / "x")
    assert file.names == tuple(tensors)
    assert file.data_start % 64 == 0
    sizes = [spec.dtype.itemsize for spec in file.specs_in_file_order]
    assert sizes == sorted(sizes, reverse=True)
    for name in file.names:
        array = file.tensor(name)
        assert array.flags.aligned
        assert not array.flags.writeable
        assert not array.flags.owndata or not array.size
    assert "mask" in file
    assert len(file) == 7
    with pytest.raises(CheckpointError, match="there is no tensor 'nothing'"):
        file.tensor("nothing")


def test_only_the_format_note_leaves_the_site(tmp_path: Path) -> None:
    safetensors.numpy.save_file(model(), tmp_path / "x", metadata={"format": "pt", "patient": "secret"})
    to_safetensors(tmp_path / "x", tmp_path / "wire")
    assert TensorFile.open(tmp_path / "wire").metadata == {"format": "pt"}
    assert b"secret" not in (tmp_path / "wire").read_bytes()
    assert read(tmp_path / "x").metadata["patient"] == "secret"


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=5), cut=st.integers(1, 7))
def test_blocks_of_any_size_make_the_same_file(tmp_path: Path, shapes: list[list[int]], cut: int) -> None:
    tensors = {f"t{number}": np.random.default_rng(number).random(shape) for number, shape in enumerate(shapes)}
    specs = [TensorSpec(name, array.dtype, array.shape) for name, array in tensors.items()]
    whole, mapped = tmp_path / "whole", tmp_path / "mapped"
    write(whole, Checkpoint(tensors), Format.SAFETENSORS)
    stream = io.BytesIO()
    with TensorFileWriter(stream, specs) as writer:
        for spec in writer.specs:
            flat = tensors[spec.name].reshape(-1)
            for start in range(0, flat.size, cut):
                writer.write(spec.name, flat[start : start + cut])
    assert stream.getvalue() == whole.read_bytes()
    assert writer.sha256 == hashlib.sha256(whole.read_bytes()).hexdigest()
    assert writer.size_bytes == whole.stat().st_size
    with TensorFileWriter(mapped, specs) as map_writer:
        for name, target in map_writer.map().items():
            target[...] = tensors[name]
        assert "mapped" not in os.listdir(tmp_path), "visible before it was complete"
    assert mapped.read_bytes() == whole.read_bytes()
    assert (map_writer.sha256, map_writer.size_bytes) == (writer.sha256, writer.size_bytes)
    mapped.unlink()


def test_zeros_become_holes_and_are_read_as_before(tmp_path: Path) -> None:
    huge = HUGE_PAGE_BYTES // 4
    tensors = {"a": np.zeros(6 * huge, np.float32), "b": np.zeros(6 * huge, np.float32)}
    tensors["a"][0] = tensors["a"][3 * huge] = 1
    with TensorFileWriter(tmp_path / "x", [TensorSpec(name, F4, array.shape) for name, array in tensors.items()]) as x:
        for spec in x.specs:
            x.write(spec.name, tensors[spec.name])
    found = os.stat(tmp_path / "x")
    assert x.size_bytes == found.st_size
    assert found.st_blocks * 512 <= 4 * HUGE_PAGE_BYTES, "the pages of the two numbers, and the last one"
    assert hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest() == x.sha256
    for name, array in tensors.items():
        np.testing.assert_array_equal(TensorFile.open(tmp_path / "x").tensor(name), array)


@counted
def test_a_mapped_file_is_not_resident_where_it_is_complete(tmp_path: Path) -> None:
    size = 8 * RELEASE_BYTES
    with (tmp_path / "x").open("w+b") as file:
        file.truncate(2 * size)
        mapped = mmap.mmap(file.fileno(), 2 * size)
    mapped[:] = b"1" * (2 * size)
    assert resident_bytes(tmp_path) == 2 * size
    digest = TrailingDigest(mapped, [("a", size), ("b", 2 * size)])
    digest.completed("b")  # the digest waits for a
    assert resident_bytes(tmp_path) == size
    digest.completed("a")
    assert digest.finish() == hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()
    assert resident_bytes(tmp_path) <= RELEASE_BYTES


def test_what_is_written_goes_to_the_kernel_in_huge_pages() -> None:
    class Recorder(io.BytesIO):
        def __init__(self) -> None:
            super().__init__()
            self.writes: list[int] = []

        def write(self, data: Any, /) -> int:
            self.writes.append(len(data))
            return super().write(data)

    chance = np.random.default_rng(0)
    tensors = {"a": chance.random(700_001).astype(np.float32), "b": chance.random(300_000), "c": np.arange(9)}
    specs = [TensorSpec(name, array.dtype, array.shape) for name, array in tensors.items()]
    stream = Recorder()
    with TensorFileWriter(stream, specs) as writer:
        for spec in writer.specs:
            for start in range(0, tensors[spec.name].size, 100_003):
                writer.write(spec.name, tensors[spec.name][start : start + 100_003])
    assert stream.writes == [HUGE_PAGE_BYTES, HUGE_PAGE_BYTES, writer.size_bytes - 2 * HUGE_PAGE_BYTES]
    loaded = safetensors.numpy.load(stream.getvalue())
    assert all(np.array_equal(loaded[name], array) for name, array in tensors.items())
    assert writer.sha256 == hashlib.sha256(stream.getvalue()).hexdigest()


def test_threads_fill_a_mapped_file_in_any_order(tmp_path: Path) -> None:
    specs = [TensorSpec(f"t{number}", F4, (50_000,)) for number in range(4)]
    with TensorFileWriter(tmp_path / "x", specs, {"k": "v"}) as writer:
        targets = writer.map()

        def fill(worker: int) -> None:
            for number in reversed(range(4)):
                targets[f"t{number}"][worker::2] = number + worker / 2

        threads = [threading.Thread(target=fill, args=(worker,)) for worker in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    file = TensorFile.open(tmp_path / "x")
    assert file.metadata == {"k": "v"}
    assert file.tensor("t3")[:4].tolist() == [3, 3.5, 3, 3.5]
    assert digest_and_check(tmp_path / "x") == (writer.sha256, writer.size_bytes, None, ())


def test_the_writer_refuses_what_does_not_fit(tmp_path: Path) -> None:
    specs = [TensorSpec("a", F4, (2,)), TensorSpec("b", F4, (3,))]
    path = tmp_path / "x"
    path.write_bytes(b"before")
    for wrong, message in (
        (("b", np.zeros(3, np.float32)), "'b' came out of turn; 'a' is due"),
        (("a", np.zeros(3, np.float32)), "does not fit float32"),
        (("a", np.zeros(1)), "float64"),
    ):
        with pytest.raises(CheckpointError, match=message), TensorFileWriter(path, specs) as writer:
            writer.write(*wrong)
    with pytest.raises(CheckpointError, match="'b' is incomplete"), TensorFileWriter(path, specs) as writer:
        writer.write("a", np.zeros(2, np.float32))
    with pytest.raises(CheckpointError, match="call map"), TensorFileWriter(io.BytesIO(), specs) as writer:
        writer.map()
    for bad, message in (
        ([TensorSpec("a", np.dtype(complex), (2,))], "complex128, which cannot be aggregated"),
        ([TensorSpec("__metadata__", F4, (2,))], "rename it"),
        ([TensorSpec("\ud800", F4, (2,))], "not Unicode text"),
        ([TensorSpec("a", F4, (-2,))], "impossible shape"),
        ([specs[0], specs[0]], "two tensors have one name"),
    ):
        with pytest.raises(CheckpointError, match=message):
            TensorFileWriter(path, bad)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["x"], "a temporary file was left behind"


def test_a_disk_that_refuses_is_a_store_error(tmp_path: Path) -> None:
    for fmt in Format:
        with pytest.raises(StoreError, match="cannot be written: No such file or directory"):
            write(tmp_path / "missing" / "x", Checkpoint({"w": np.ones(2)}), fmt)
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(StoreError, match="No space left"):
        TensorFileWriter(full, []).close()


FLOATS = [np.dtype(kind) for kind in ("f2", "f4", "f8")] + [BF16]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_one_bad_element_anywhere_is_found(tmp_path: Path, dtype: Any, value: float) -> None:
    size = 2 * BLOCK_ELEMENTS + 77
    for place in (0, 1, BLOCK_ELEMENTS - 1, BLOCK_ELEMENTS, size - 1):
        array = np.ones(size, dtype)
        assert is_finite(array)
        array[place] = value
        assert not is_finite(array)
    write(tmp_path / "x", Checkpoint({"good": np.ones(5, dtype), "bad": array}), Format.SAFETENSORS)
    assert digest_and_check(tmp_path / "x").nonfinite == "bad"


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_large_small_and_no_values_are_finite(dtype: Any) -> None:
    limits = ml_dtypes.finfo(dtype)
    for value in (limits.max, limits.min, limits.smallest_subnormal, 0):
        assert is_finite(np.full(1000, value, dtype)), value
    assert is_finite(np.empty((0, 3), dtype))
    assert is_finite(np.array(limits.max, dtype))
    assert not is_finite(np.array(np.nan, dtype))


def test_opposite_infinities_do_not_cancel() -> None:
    assert not is_finite(np.array([np.inf, -np.inf, 1], np.float32))
    assert not is_finite(np.array([3e38, 3e38, np.nan], np.float32))


def test_digest_is_that_of_the_whole_file(tmp_path: Path) -> None:
    info = to_safetensors_of(tmp_path, model() | {"long": np.ones(300_000, np.float32)})
    whole = (tmp_path / "wire").read_bytes()
    assert info.sha256 == hashlib.sha256(whole).hexdigest()
    assert digest_and_check(tmp_path / "wire") == (info.sha256, len(whole), None, ())


def to_safetensors_of(folder: Path, tensors: dict[str, Any]) -> Any:
    np.savez(folder / "x.npz", **tensors)
    return to_safetensors(folder / "x.npz", folder / "wire")


@pytest.mark.parametrize("order", [["a", "b", "c"], ["c", "b", "a"], ["b"], []])
def test_a_digest_behind_the_threads_is_that_of_the_file(tmp_path: Path, order: list[str]) -> None:
    specs = [TensorSpec(name, np.dtype(np.float32), (300_000,)) for name in "abc"]
    with TensorFileWriter(tmp_path / "x", specs) as writer:
        arrays = writer.map()
        for array in arrays.values():
            array[...] = 7
        for name in order:
            arrays[name][...] = ord(name)
            writer.completed(name)
        del arrays, array
    assert writer.sha256 == hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()


def test_an_abandoned_digest_leaves_nothing(tmp_path: Path) -> None:
    def abandoned() -> None:
        with TensorFileWriter(tmp_path / "x", [TensorSpec("a", np.dtype(np.float32), (9,))]) as writer:
            writer.map()
            writer.completed("a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        abandoned()
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "digest"]
