"""Every format against the library that owns it: what it writes we read, and what we write it reads."""

from __future__ import annotations

import argparse
import io
import pickle
import subprocess
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flavor.checkpoints import (
    Checkpoint,
    Encoding,
    Format,
    Structure,
    TensorFile,
    check_metadata,
    describe,
    detect,
    encode,
    from_safetensors,
    read,
    take_safetensors,
    to_safetensors,
    write,
)
from flavor.errors import CheckpointError
from tests.lazy import Lazy

torch = Lazy("torch")

BF16 = np.dtype(ml_dtypes.bfloat16)
FOREIGN = [BF16, np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.float8_e5m2)]
DTYPES = [np.dtype(kind) for kind in ("?", "u1", "i1", "i2", "u2", "f2", "i4", "u4", "f4", "i8", "u8", "f8")] + FOREIGN
TORCH_DTYPES = ["bool" if dtype == np.bool_ else dtype.name for dtype in DTYPES]
"""Their names as attributes of torch."""

quick = settings(
    max_examples=50,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def same(left: Any, right: Any) -> bool:
    """Bit-exact equality, with NaN equal to itself."""
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and np.ascontiguousarray(left).tobytes() == np.ascontiguousarray(right).tobytes()
    )


def bits(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).numpy())


def save(path: Path, how: str, value: Any) -> Path:
    if how == "pickle":
        path.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=how == "zip")
    return path


def load(path: Path, fmt: Format) -> Any:
    if fmt is Format.TORCH:
        return torch.load(path, weights_only=True)["state_dict"]
    if fmt is Format.PICKLE:
        return pickle.loads(path.read_bytes())["state_dict"]
    assert fmt is Format.NPZ
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


@st.composite
def arrays(draw: st.DrawFn, dtypes: list[Any] = DTYPES) -> Any:
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    count = int(np.prod(shape))
    data = draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    if dtype == np.bool_:
        data = bytes(byte & 1 for byte in data)
    return np.frombuffer(data, dtype).reshape(shape)


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8).filter(
    lambda name: name != "__metadata__"
)


@pytest.mark.parametrize("fmt", Format)
@quick
@given(tensors=st.dictionaries(names, arrays(), max_size=5))
def test_any_flat_dict_survives_write_and_read(tmp_path: Path, fmt: Format, tensors: dict[str, Any]) -> None:
    if fmt is Format.NPZ:
        tensors = {name: array for name, array in tensors.items() if array.dtype not in FOREIGN}
    path = tmp_path / "x"
    write(path, Checkpoint(tensors), fmt)
    assert detect(path) is fmt
    back = read(path)
    assert list(back.tensors) == list(tensors)
    assert all(same(back.tensors[name], tensors[name]) for name in tensors)
    assert back.structure is None
    assert describe(path) == {name: (array.dtype, array.shape) for name, array in tensors.items()}
    assert [item.name for item in tmp_path.iterdir()] == ["x"], "a temporary file was left behind"


scalars = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
)
keys = st.one_of(st.text("ab/~1.i", max_size=3), st.integers(-2, 2))
nests = st.recursive(
    st.one_of(arrays(), scalars),
    lambda inner: st.one_of(
        st.dictionaries(keys, inner, max_size=4),
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
    ),
    max_leaves=12,
)


def assert_equal_nest(left: Any, right: Any) -> None:
    if isinstance(left, np.ndarray):
        assert same(left, right)
    elif isinstance(left, dict):
        assert isinstance(right, dict)
        assert list(left) == list(right)
        assert [type(key) for key in left] == [type(key) for key in right]
        for key in left:
            assert_equal_nest(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert type(left) is type(right)
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_equal_nest(one, other)
    else:
        assert type(left) is type(right)
        assert left == right


@quick
@given(state_dict=st.dictionaries(keys, nests, max_size=5).map(lambda found: {**found, "w": np.ones(1)}))
def test_any_nesting_survives_the_wire(tmp_path: Path, state_dict: dict[Any, Any]) -> None:
    source, wire, back = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    source.write_bytes(pickle.dumps({"state_dict": state_dict}))
    info = to_safetensors(source, wire)
    check_metadata(wire)
    own = info.structure and Structure.from_json(info.structure.to_json(), "as the site keeps it, with its texts")
    from_safetensors(wire, back, Format.PICKLE, own)
    assert_equal_nest(state_dict, load(back, Format.PICKLE))


def test_paths_that_collide_keep_both_tensors(tmp_path: Path) -> None:
    one = {
        "a/b": np.ones(1),
        "a": {"b": np.zeros(1)},
        "": {"a": np.ones(2)},
        1: np.ones(3),
        "1": np.ones(4),
        "~i1": np.ones(5),
    }
    path = tmp_path / "x"
    path.write_bytes(pickle.dumps({"state_dict": one}))
    checkpoint = read(path)
    assert list(checkpoint.tensors) == ["a~1b", "a/b", "/a", "~i1", "1", "~0i1"]
    write(path, checkpoint, Format.PICKLE)
    assert_equal_nest(one, load(path, Format.PICKLE))


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_torch_tensors_of_every_kind_are_read(tmp_path: Path, how: str, dtype: str) -> None:
    base = torch.arange(24).reshape(2, 3, 4).to(getattr(torch, dtype))
    tensors = {
        "plain": base,
        "transposed": base.permute(2, 0, 1),
        "slice": base[1:, ::2],
        "again": base,
        "zero_d": base[1, 2, 3],
        "empty": base[:, :0],
        "expanded": base[0, 0, :1].expand(5),
    }
    path = save(tmp_path / "x", how, {"state_dict": tensors})
    assert detect(path) is (Format.PICKLE if how == "pickle" else Format.TORCH)
    checkpoint = read(path)
    assert list(checkpoint.tensors) == list(tensors)
    for name, tensor in tensors.items():
        array = checkpoint.tensors[name]
        assert array.shape == tuple(tensor.shape)
        assert array.tobytes() == bits(tensor), name


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_what_is_written(tmp_path: Path, mmap: bool) -> None:
    path = tmp_path / "x.ckpt"
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5)).bfloat16()
    expected = model.state_dict() | {dtype: torch.ones(2, 3).to(getattr(torch, dtype)) for dtype in TORCH_DTYPES}
    expected |= {"zero_d": torch.tensor(2.5), "empty": torch.empty(0, 3), "turned": torch.rand(3, 4).t()}
    save(path, "zip", {"state_dict": expected})
    write(path, read(path), Format.TORCH)
    loaded = torch.load(path, weights_only=True, mmap=mmap)["state_dict"]
    assert type(loaded) is OrderedDict
    assert list(loaded) == list(expected)
    for name, tensor in expected.items():
        assert loaded[name].dtype is tensor.dtype
        assert torch.equal(loaded[name], tensor), name
        assert loaded[name].is_contiguous()
        assert loaded[name].data_ptr() % 64 == 0 or not mmap or not tensor.numel()
    model.load_state_dict(dict(list(loaded.items())[:7]))


class Optimizer:
    """As those of torch pickle, without the second that importing one takes."""

    def __init__(self) -> None:
        self.state: dict[torch.Tensor, Any] = defaultdict(dict)
        self.hooks: OrderedDict[int, Any] = OrderedDict()
        self.groups = [{"lr": 0.1, "betas": (0.9, 0.99)}]


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_other_keys_do_not_matter(tmp_path: Path, how: str) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = Optimizer()
    optimizer.state[model.weight] = {"exp_avg": torch.ones(2, 2)}
    everything = {
        "args": argparse.Namespace(lr=1.0, where=Path("x")),
        "optimizer": optimizer,
        "model": model,
        "rng": torch.get_rng_state(),
        "objects": np.array([{}, None], dtype=object),
        "state_dict": model.state_dict(),
        "epochs": {1, 2},
    }
    checkpoint = read(save(tmp_path / "x", how, everything))
    assert list(checkpoint.tensors) == ["weight", "bias"]
    assert same(checkpoint.tensors["weight"], model.weight.detach().numpy())


def test_parameters_and_shared_storages_are_read(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.rand(4, 4))
    tensors = {"weight": weight, "tied": weight, "row": weight.detach()[2]}
    path = save(tmp_path / "x", "zip", {"state_dict": tensors})
    arrays = read(path).tensors
    assert np.shares_memory(arrays["weight"], arrays["row"]), "one storage became two"
    assert same(arrays["row"], arrays["weight"][2])


def test_bfloat16_is_exact_through_every_step(tmp_path: Path) -> None:
    every = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)  # NaN payloads too
    source, wire = save(tmp_path / "a", "zip", {"state_dict": {"w": every}}), tmp_path / "b"
    to_safetensors(source, wire)
    for fmt in Format.TORCH, Format.PICKLE, Format.SAFETENSORS:
        from_safetensors(wire, tmp_path / "c", fmt)
        assert read(tmp_path / "c").tensors["w"].tobytes() == bits(every)
    with pytest.raises(CheckpointError, match="bfloat16, which npz cannot hold"):
        from_safetensors(wire, tmp_path / "c", Format.NPZ)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    tensors = {
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big_endian": np.arange(4, dtype=">i4"),
        "strided": np.arange(20)[::3],
        "turned": np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
        "long": np.arange(3000, dtype=np.float32),
        "bool": np.array(True),
        "empty": np.empty((0, 2)),
        "bf16": np.arange(5).astype(BF16),
    }
    path = tmp_path / "x"
    path.write_bytes(pickle.dumps({"state_dict": tensors}, protocol=protocol))
    assert detect(path) is Format.PICKLE
    checkpoint = read(path)
    assert checkpoint.structure is None
    for name, array in tensors.items():
        assert same(checkpoint.tensors[name], array.astype(array.dtype.newbyteorder("="))), name


def test_leaves_come_back_as_what_they_were(tmp_path: Path) -> None:
    state_dict = {
        "torch": torch.ones(2, dtype=torch.uint16),
        "numpy": np.ones(2, np.float32),
        "number": np.float32(3),
        "int": 7,
        "bool": True,
        "float": 0.5,
        "none": None,
        "text": "relu",
    }
    wire = tmp_path / "wire"
    for how in "zip", "pickle":
        source = save(tmp_path / "source", how, {"state_dict": state_dict})
        info = to_safetensors(source, wire)
        from_safetensors(wire, tmp_path / "back", info.format, info.structure)
        path = tmp_path / "back"
        back = (pickle.loads(path.read_bytes()) if how == "pickle" else torch.load(path, weights_only=False))[
            "state_dict"
        ]
        assert [type(value) for value in back.values()] == [type(value) for value in state_dict.values()]
        assert torch.equal(back["torch"], state_dict["torch"])
        assert same(back["numpy"], state_dict["numpy"])
        assert {key: back[key] for key in list(back)[2:]} == {key: state_dict[key] for key in list(back)[2:]}


@pytest.mark.parametrize("how", ["whole", "change", "as it is"])
def test_text_between_the_tensors_stays_at_its_site(tmp_path: Path, how: str) -> None:
    """It went into the header of the update, and the first site's into everybody's global model."""
    source, wire, back = tmp_path / "source", tmp_path / "wire", tmp_path / "back"
    tensors = {"w": np.ones(2, np.float32)}
    nested = {"net": {**tensors, "columns": ["age", "SECRET-1"], "none": None}, "site": "SECRET-2"}
    source.write_bytes(pickle.dumps({"state_dict": nested}))
    if how == "whole":
        info = to_safetensors(source, wire)
    elif how == "change":
        safetensors.numpy.save_file({"net/w": tensors["w"]}, tmp_path / "base")
        base = TensorFile.open(tmp_path / "base")
        info = encode(source, wire, base, Encoding("bf16", "0" * 64))
    else:
        own = tmp_path / "own"
        write(own, read(source), Format.SAFETENSORS)
        assert b"SECRET" in own.read_bytes()
        assert take_safetensors(own) is None, "it is converted instead"
        with pytest.raises(CheckpointError, match="holds text of the state_dict"):
            check_metadata(own)
        info = to_safetensors(own, wire)
    assert b"SECRET" not in wire.read_bytes()
    check_metadata(wire)
    if how == "change":
        return
    from_safetensors(wire, back, Format.PICKLE, info.structure)
    assert load(back, Format.PICKLE)["net"]["columns"] == ["age", "SECRET-1"], "at the site it stands there again"
    from_safetensors(wire, back, Format.PICKLE)
    assert load(back, Format.PICKLE)["site"] == ""
    assert info.structure is not None
    assert info.structure.texts == ("net/columns", "site")


def test_an_average_of_integers_is_rounded(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(pickle.dumps({"state_dict": {"w": np.ones(2), "steps": 3, "on": True}}))
    checkpoint = read(path)
    checkpoint.tensors.update(steps=np.array(3.6, np.float32), on=np.array(0.75))
    write(path, checkpoint, Format.PICKLE)
    assert load(path, Format.PICKLE)["steps"] == 4
    assert load(path, Format.PICKLE)["on"] is True
    checkpoint.tensors["steps"] = np.array(np.nan)
    with pytest.raises(CheckpointError, match="'steps' was an integer and is nan now"):
        write(path, checkpoint, Format.PICKLE)


@pytest.mark.parametrize("prefix", ["", "state_dict/", "state_dict."])
@pytest.mark.parametrize("save_npz", [np.savez, np.savez_compressed])
def test_npz_keeps_names_and_prefix(tmp_path: Path, prefix: str, save_npz: Any) -> None:
    path, wire, back = tmp_path / "x.npz", tmp_path / "wire", tmp_path / "back"
    tensors = {"b/w": np.arange(6.0).reshape(2, 3), "a.w": np.asfortranarray(np.ones((2, 3), np.float16))}
    save_npz(path, **{prefix + name: array for name, array in tensors.items()})
    info = to_safetensors(path, wire)
    assert info.names == ("b/w", "a.w")
    from_safetensors(wire, back, Format.NPZ)
    loaded = load(back, Format.NPZ)
    assert list(loaded) == [prefix + name for name in tensors]
    assert all(same(loaded[prefix + name], array) for name, array in tensors.items())


def test_a_site_gets_its_own_structure_back(tmp_path: Path) -> None:
    source, wire, glob, back = (tmp_path / name for name in "abcd")
    source.write_bytes(pickle.dumps({"state_dict": {"head": [np.ones(2), np.zeros(3)]}}))
    info = to_safetensors(source, wire)
    write(glob, Checkpoint(dict(read(wire).tensors)), Format.SAFETENSORS)  # an aggregator that drops metadata
    from_safetensors(glob, back, info.format, info.structure)
    assert_equal_nest(load(back, Format.PICKLE), {"head": [np.ones(2), np.zeros(3)]})
    with pytest.raises(CheckpointError, match="not those of its structure"):
        write(back, Checkpoint({"other": np.ones(1)}, info.structure), Format.TORCH)


def test_structure_is_validated() -> None:
    for text in (
        "[]",
        "{",
        '{"root":{"t":"x"}}',
        '{"root":{"d":[[1.5,{"t":"x"}]]}}',
        '{"root":{"q":1}}',
        '{"prefix":3}',
        '{"root":{"l":[{"t":"x","as":"eval"}]}}',
        '{"root":{"d":[["a"]]}}',
        '{"root":' + '{"l":[' * 500 + "]}" * 500 + "}",
    ):
        with pytest.raises(CheckpointError, match="damaged"):
            Structure.from_json(text, "x")


def test_the_same_checkpoint_is_the_same_file(tmp_path: Path) -> None:
    checkpoint = Checkpoint({"b": np.ones(3), "a": np.zeros(2, np.int64)})
    for fmt in Format:
        write(tmp_path / "1", checkpoint, fmt)
        write(tmp_path / "2", checkpoint, fmt)
        assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


class OtherOne:
    """A key that is not 1, and pickles as a numpy integer that is."""

    def __reduce__(self) -> Any:
        return np.int8(1).__reduce__()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}, "epoch": 3}, r"no key 'state_dict' \(keys: 'model', 'epoch'\); save"),
        ([1], "it holds a list, not a dict"),
        (argparse.Namespace(), "it holds a argparse.Namespace, not a dict"),
        ({"state_dict": np.ones(2)}, "state_dict is a ndarray, not a dict of tensors"),
        ({"state_dict": {"w": {1: argparse.Namespace()}}}, "state_dict 'w/1' is a argparse.Namespace"),
        ({"state_dict": {"w": {2.5: 1}}}, "'w' has a float as a key"),
        ({"fc": np.ones(2)}, r"it is a state_dict itself, with no key 'state_dict' \(keys: 'fc'\); save"),
        ({"state_dict": {"w": np.ones(2, complex)}}, "'w': an array of complex128, which cannot be averaged"),
        ({"state_dict": {"w": {1: 2.0, OtherOne(): 3.0}}}, "'w' has the key 1 twice"),
        ({"state_dict": {"w": np.array(["x"])}}, "dtype 'U1' is refused"),
        ({"state_dict": {"w": np.array([{}])}}, "an array of Python objects is refused"),
        ({"state_dict": {"w": 2**70}}, "does not fit 64 bits"),
        ({"state_dict": {"w": b"bytes"}}, "is a bytes, not a tensor"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert "model.pkl" in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(2, dtype=torch.complex64),
        lambda: torch.ones(2).to_sparse(),
        lambda: torch.ones(2, device="meta"),
        lambda: torch.conj(torch.ones(2, dtype=torch.complex64)).imag,
    ],
    ids=["complex", "sparse", "meta", "negated"],
)
def test_odd_torch_tensors_are_refused_only_where_they_matter(tmp_path: Path, make: Callable[[], torch.Tensor]) -> None:
    tensor = make()
    path = save(tmp_path / "x", "zip", {"state_dict": {"w": torch.ones(1)}, "other": tensor})
    assert list(read(path).tensors) == ["w"]
    save(path, "zip", {"state_dict": {"w": tensor}})
    with pytest.raises(CheckpointError, match="state_dict 'w'"):
        read(path)


def test_detect_names_what_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in b"hello world", b"\x93NUMPY\x01\x00rest", bytes(100):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"torch\.save, pickle of ndarrays, np\.savez or safetensors"):
            detect(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="empty"):
        detect(path)
    with pytest.raises(CheckpointError, match="no such file"):
        detect(tmp_path / "missing")
    np.savez(tmp_path / "missing", w=np.ones(1))
    with pytest.raises(CheckpointError, match=r"np\.savez appends \.npz"):
        detect(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        detect(tmp_path)


def test_an_npz_with_objects_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, state_dict=np.array({"w": 1}, dtype=object))
    with pytest.raises(CheckpointError, match=r"save np\.savez\(path, \*\*state_dict\)"):
        read(path)
    np.savez(path, w=np.ones(2).astype(BF16).view("V2"))
    with pytest.raises(CheckpointError, match=r"np\.savez loses bfloat16"):
        read(path)


def test_conversion_needs_little_memory_and_no_torch(tmp_path: Path) -> None:
    source = tmp_path / "x.ckpt"
    torch.save({"state_dict": {str(i): torch.zeros(2**23) for i in range(2)}}, source)  # 64 MiB
    code = (
        "import re, sys\n"
        "from flavor.checkpoints import Format, from_safetensors, to_safetensors\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
        "before = peak()\n"
        f"to_safetensors({str(source)!r}, {str(tmp_path / 'wire')!r})\n"
        f"for fmt in Format: from_safetensors({str(tmp_path / 'wire')!r}, {str(tmp_path / 'back')!r}, fmt)\n"
        "assert 'torch' not in sys.modules\n"
        "print(peak() - before)\n"  # ru_maxrss would be that of this process, from before the exec
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 24 * 1024, f"{done.stdout} KiB more for a model of 64 MiB"


def test_a_stream_receives_what_a_path_does(tmp_path: Path) -> None:
    source = save(tmp_path / "x", "zip", {"state_dict": {"w": torch.rand(5)}})
    stream = io.BytesIO()
    info = to_safetensors(source, stream)
    assert info == to_safetensors(source, tmp_path / "wire")
    assert stream.getvalue() == (tmp_path / "wire").read_bytes()
    assert info.size_bytes == len(stream.getvalue())
