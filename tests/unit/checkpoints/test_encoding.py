"""Compressed updates: the error bound, what the file holds, that rules cannot tell, and what is refused."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aggregators import engine, parse
from aggregators.blocks import SCRATCH_BYTES
from aggregators.encoded import EncodedTensor
from aggregators.updates import ClientModel
from flavor.checkpoints import Checkpoint, Encoding, Format, TensorFile, TensorFileWriter, TensorSpec, encode, write
from flavor.checkpoints.checkpoint import read
from flavor.checkpoints.encoding import BLOCK, PLAIN_BELOW, quantise
from flavor.errors import CheckpointError, FlavorError
from tests.lazy import Lazy

torch = Lazy("torch")

BF16 = np.dtype(ml_dtypes.bfloat16)
BASE = "ab" * 32
Model = dict[str, Any]


def saved(path: Path, model: Model, metadata: dict[str, str] | None = None) -> TensorFile:
    specs = [TensorSpec(name, array.dtype, array.shape) for name, array in model.items()]
    with TensorFileWriter(path, specs, metadata or {}) as writer:
        for spec in writer.specs:
            writer.write(spec.name, model[spec.name])
    return TensorFile.open(path)


def sent(folder: Path, theta: Model, local: Model, kind: str, block: int = BLOCK, name: str = "update") -> ClientModel:
    """`local` as it arrives after having been encoded against `theta`."""
    base = saved(folder / "base", theta)
    saved(folder / "local", local)
    encode(folder / "local", folder / name, base, Encoding(kind, BASE, block))  # type: ignore[arg-type]
    return ClientModel.of(TensorFile.open(folder / name), base)


def model(seed: int, like: Model | None = None) -> Model:
    """All kinds of tensors, big and small; near `like` if given."""
    rng = np.random.default_rng(seed)
    shapes = {"w": (300, 70), "b": (5,), "scalar": (), "empty": (0, 3), "long": (3 * BLOCK + 17,), "one": (BLOCK,)}
    made: Model = {}
    for name, shape in shapes.items():
        for dtype in (np.dtype(np.float32), np.dtype(np.float16), BF16):
            key = f"{name}.{dtype}"
            start = like[key].astype(np.float32) if like else rng.normal(size=shape)
            made[key] = (start + 0.01 * rng.normal(size=shape)).astype(dtype)
    made["double"] = rng.normal(size=7)
    made["steps"] = rng.integers(0, 100, 3)
    made["bytes"] = rng.integers(-128, 128, 9).astype(np.int8)
    made["mask"] = rng.random(11) > 0.5
    return made


changes = hnp.arrays(
    np.float32,
    st.integers(0, 50),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
    | st.integers(-500, 500).map(lambda i: i * 2.0**-149)  # the smallest there are
    | st.just(0.0),
)


@settings(max_examples=300, deadline=None)
@given(change=changes, block=st.integers(1, 20))
def test_no_element_is_off_by_more_than_half_its_scale(change: np.ndarray, block: int) -> None:
    values = np.empty(change.size, np.int8)
    scales = np.empty(-(-change.size // block), np.float32)
    assert quantise(change.copy(), values, scales, block)
    assert np.isfinite(scales).all()
    assert (scales >= 0).all()
    assert values.size == 0 or values.min() >= -127
    scale = np.repeat(scales.astype(np.float64), block)[: change.size]
    back = values * scale
    assert (np.abs(back - change) <= scale * (0.5 + 1e-4)).all()
    assert (back[change == 0] == 0).all()
    for start in range(0, change.size, block):  # a block of zeros has the scale 0, and only such a one
        assert (scales[start // block] == 0) == (not change[start : start + block].any())


@settings(max_examples=60, deadline=None)
@given(size=st.integers(0, 300), block=st.integers(1, 130), cut=st.data())
def test_any_span_decodes_to_the_same(size: int, block: int, cut: st.DataObject) -> None:
    from aggregators.blocks import Scratch

    rng = np.random.default_rng(size)
    base = rng.normal(size=size).astype(np.float32)
    values = rng.integers(-128, 128, size).astype(np.int8)
    scales = rng.random(-(-size // block)).astype(np.float32)
    tensor = EncodedTensor(base, values, scales, block)
    plain = base - values.astype(np.float32) * np.repeat(scales, block)[:size]
    np.testing.assert_array_equal(np.asarray(tensor), plain)
    start = cut.draw(st.integers(0, size))
    stop = cut.draw(st.integers(start, size))
    out = np.empty(stop - start, np.float32)
    tensor.decode(start, stop, out, Scratch())
    np.testing.assert_array_equal(out, plain[start:stop])


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_what_arrives_is_what_was_sent_up_to_rounding(tmp_path: Path, kind: str) -> None:
    theta = model(0)
    local = model(1, theta)
    update = sent(tmp_path, theta, local, kind)
    assert list(update.tensors) != []
    assert [spec.name for spec in update.specs] == list(local)
    for name, array in local.items():
        arrived = update.tensors[name]
        decoded = np.asarray(arrived)
        assert (decoded.dtype, decoded.shape) == (array.dtype, array.shape)
        covered = array.dtype == np.float32 or (kind == "int8" and array.dtype in (np.float16, BF16))
        assert isinstance(arrived, EncodedTensor) == covered
        if not covered:
            assert decoded.tobytes() == array.tobytes()
        elif array.size:
            delta = theta[name].astype(np.float64) - array.astype(np.float64)
            step = np.abs(delta).max() / (254 if kind == "int8" else 256)  # bfloat16 has 8 significant bits
            own = float(ml_dtypes.finfo(array.dtype).eps) * np.abs(array.astype(np.float64)).max()
            assert np.abs(decoded.astype(np.float64) - array.astype(np.float64)).max() <= 1.001 * step + own


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_an_unchanged_model_arrives_bit_for_bit(tmp_path: Path, kind: str) -> None:
    theta = model(0)
    update = sent(tmp_path, theta, theta, kind)
    for name, array in theta.items():
        assert np.asarray(update.tensors[name]).tobytes() == array.tobytes(), name


def test_the_wire_is_a_safetensors_file_that_others_read(tmp_path: Path) -> None:
    theta = {"w": np.zeros((2, BLOCK), np.float32), "half": np.ones(3, np.float16), "steps": np.array(3)}
    local = {"w": np.full((2, BLOCK), -2, np.float32), "half": np.zeros(3, np.float16), "steps": np.array(4)}
    local["w"][1] = 127
    sent(tmp_path, theta, local, "int8")
    loaded = safetensors.numpy.load_file(tmp_path / "update")
    assert set(loaded) == {"w", "flavor.scale/w", "half", "flavor.scale/half", "steps"}
    assert loaded["w"].dtype == np.int8
    np.testing.assert_array_equal(loaded["w"], np.repeat([[127], [-127]], BLOCK, 1))
    np.testing.assert_allclose(loaded["flavor.scale/w"], [2 / 127, 1], rtol=1e-6)
    np.testing.assert_allclose(loaded["half"] * loaded["flavor.scale/half"], 1, rtol=1e-6)
    assert loaded["steps"] == 4
    with safetensors.safe_open(tmp_path / "update", "np") as file:
        assert json.loads(file.metadata()["flavor.encoding"]) == {"kind": "int8", "block": BLOCK, "base": BASE}
    sent(tmp_path, theta, local, "bf16")
    with safetensors.safe_open(tmp_path / "update", "pt") as file:
        assert set(file.keys()) == {"w", "half", "steps"}
        assert file.get_tensor("w").dtype == torch.bfloat16
        assert file.get_tensor("w")[0].eq(2).all()
        assert file.get_tensor("half").eq(0).all()


def test_sizes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    theta = {"w": rng.normal(size=10**6).astype(np.float32)}
    whole = saved(tmp_path / "whole", theta).size_bytes
    for kind, times in (("bf16", 2), ("int8", 3.99)):
        sent(tmp_path, theta, {"w": theta["w"] + np.float32(1)}, kind)
        assert whole / (tmp_path / "update").stat().st_size > 0.999 * times


@pytest.mark.parametrize("kind", ["bf16", "int8"])
@pytest.mark.parametrize("format_", list(Format))
def test_the_trainers_format_and_nesting_do_not_matter(tmp_path: Path, kind: str, format_: Format) -> None:
    theta = {"w": np.zeros((4, 6), np.float32), "b": np.zeros(2, np.float32)}
    local = {"w": np.arange(24, dtype=np.float32).reshape(6, 4).T, "b": np.ones(2, np.float32)}  # one is strided
    base = saved(tmp_path / "base", theta)
    write(tmp_path / "local", Checkpoint(local), format_)
    info = encode(tmp_path / "local", tmp_path / "update", base, Encoding(kind, BASE))  # type: ignore[arg-type]
    assert (info.format, info.names) == (format_, ("w", "b"))
    assert info.size_bytes == (tmp_path / "update").stat().st_size
    update = ClientModel.of(TensorFile.open(tmp_path / "update"), base)
    np.testing.assert_allclose(np.asarray(update.tensors["w"]), local["w"], atol=0.1)
    assert "flavor.encoding" not in update.metadata


def test_the_nesting_travels(tmp_path: Path) -> None:
    import pickle

    state = {"layers": [{"w": np.ones(3, np.float32)}, {"w": np.zeros(2, np.float32)}], "name": "net"}
    (tmp_path / "local").write_bytes(pickle.dumps({"state_dict": state}))
    flat = read(tmp_path / "local").tensors
    base = saved(tmp_path / "base", flat)
    encode(tmp_path / "local", tmp_path / "update", base, Encoding("int8", BASE))
    update = ClientModel.of(TensorFile.open(tmp_path / "update"), base)
    back = saved(tmp_path / "back", {name: np.asarray(t) for name, t in update.tensors.items()}, update.metadata)
    own = read(tmp_path / "local").structure
    assert own is not None
    assert read(back.path).structure == own.shared() != own


RULES = [
    "mean",
    "median",
    "trimmed_mean:f=1",
    "krum:f=1",
    "multi_krum:f=1",
    "bulyan:f=1",
    "geometric_median",
    "norm_clip:c=median/mean",
    "norm_clip:c=0.1/median",
    "diloco",
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_no_rule_can_tell_it_from_its_dense_decoding(tmp_path: Path, rule: str, kind: str) -> None:
    theta = model(0)
    n = 7
    updates = [sent(tmp_path, theta, model(seed, theta), kind, name=f"u{seed}") for seed in range(1, n + 1)]
    lazy = [update.tensors for update in updates]
    lazy[2] = dict(model(3, theta))  # one came whole
    dense = [{name: np.asarray(tensor) for name, tensor in tensors.items()} for tensors in lazy]
    algorithm = parse(rule)

    def combined(models: list[Any], **options: Any) -> engine.Aggregation:
        return engine.run(
            models,
            [float(10 + i) for i in range(n)],
            reducer=algorithm.reducer,
            server_step=algorithm.server_step,
            global_model=theta if algorithm.needs_global else None,
            **options,
        )

    expected = combined(dense)
    for options in ({}, {"threads": 1, "block_elems": 1000}):
        result = combined(lazy, **options)
        assert result.clients == expected.clients
        for name, array in expected.model.items():
            assert array.tobytes() == result.model[name].tobytes(), name
        for name, array in expected.state.tensors.items() if expected.state else ():
            assert array.tobytes() == result.state.tensors[name].tobytes(), name  # type: ignore[union-attr]


def test_memory_is_a_few_blocks_whatever_the_size(tmp_path: Path) -> None:
    size = 16 * 10**6  # 64 MB as float32
    theta = {"w": np.zeros(size, np.float32)}
    local = {"w": np.ones(size, np.float32)}
    base = saved(tmp_path / "base", theta)
    saved(tmp_path / "local", local)
    del theta, local
    out = {"w": np.empty(size, np.float32)}
    tracemalloc.start()
    try:
        encode(tmp_path / "local", tmp_path / "update", base, Encoding("int8", BASE))
        update = ClientModel.of(TensorFile.open(tmp_path / "update"), base)
        engine.run([update.tensors] * 5, out=out)
        assert update.nonfinite() is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < SCRATCH_BYTES < 4 * size  # what the engine may use, and less than one model of five
    np.testing.assert_allclose(out["w"], 1, rtol=1e-6)


def test_a_large_update_is_hashed_and_released_tensor_by_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flavor.checkpoints.encoding.RELEASE_BYTES", 1)
    done, completed = list[str](), TensorFileWriter.completed
    monkeypatch.setattr(TensorFileWriter, "completed", lambda x, name: (done.append(name), completed(x, name)))
    tensors = {"w": np.ones(5000, np.float32), "v": np.full(5000, -np.inf, np.float32)}
    base = saved(tmp_path / "base", tensors)
    saved(tmp_path / "local", tensors)
    info = encode(tmp_path / "local", tmp_path / "update", base, Encoding("int8", BASE))
    assert sorted(done) == sorted(TensorFile.open(tmp_path / "update").names)
    assert info.sha256 == hashlib.sha256((tmp_path / "update").read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["bf16", "int8"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda m: m["w"].__setitem__(3, np.nan), "tensor 'w' has NaN or infinite values"),
        (lambda m: m["w"].__setitem__(3, -np.inf), "tensor 'w' has NaN or infinite values"),
        (lambda m: m["w"].__setitem__(3, -3.4e38), "tensor 'w' has NaN or infinite values"),  # θ − θᵢ overflows
        (lambda m: m.pop("w"), "tensor 'w' is missing; the global model has it"),
        (lambda m: m.update(x=m["w"]), "tensor 'x' is not in the global model"),
        (lambda m: m.update(w=m["w"][1:]), "tensor 'w' has shape (9,); the global model has (10,)"),
        (lambda m: m.update(w=m["w"].astype(np.float64)), "tensor 'w' is float64; the global model has float32"),
    ],
)
def test_the_edge_refuses_what_would_be_refused(
    tmp_path: Path, kind: str, spoil: Callable[[Model], Any], said: str
) -> None:
    theta = {"w": np.full(10, 1e38, np.float32), "v": np.ones(2, np.float32)}
    local = {name: array.copy() for name, array in theta.items()}
    spoil(local)
    base = saved(tmp_path / "base", theta)
    saved(tmp_path / "local", local)
    with pytest.raises(CheckpointError, match=r"^.+$") as caught:
        encode(tmp_path / "local", tmp_path / "update", base, Encoding(kind, BASE))  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert not (tmp_path / "update").exists()


def hostile(**metadata: Any) -> dict[str, str]:
    return {"flavor.encoding": json.dumps({"kind": "int8", "block": 4, "base": BASE} | metadata)}


def encoded(**changes: Any) -> Model:
    made = {"w": np.ones(10, np.int8), "flavor.scale/w": np.ones(3, np.float32)} | changes
    return {name: array for name, array in made.items() if array is not None}


@pytest.mark.parametrize(
    ("tensors", "metadata", "said"),
    [
        (encoded(), {"flavor.encoding": "int8"}, "flavor.encoding is damaged"),
        (encoded(), {"flavor.encoding": "[" * 10**5}, "flavor.encoding is damaged"),
        (encoded(), {"flavor.encoding": '{"kind": "int8", "block": 4}'}, "flavor.encoding is damaged"),
        (encoded(), hostile(extra=1), "flavor.encoding is damaged"),
        (encoded(), hostile(kind="int4"), "unknown kind 'int4'; there are: bf16, int8"),
        (encoded(), hostile(kind=["int8"]), "unknown kind ['int8']"),
        (encoded(), hostile(block=0), "block is 0; it is an integer from 1 to 1048576"),
        (encoded(), hostile(block=-4), "block is -4"),
        (encoded(), hostile(block=10**30), "block is 10000000"),
        (encoded(), hostile(block=True), "block is True"),
        (encoded(), hostile(block=4.0), "block is 4.0"),
        (encoded(), hostile(base="../../etc"), "base is '../../etc'; it is a SHA-256 in hex"),
        (encoded(), hostile(base=7), "base is 7"),
        (encoded(), hostile(block=5), "'flavor.scale/w' has shape (3,); an int8 update of the global model has (2,)"),
        (encoded(**{"flavor.scale/w": np.ones(2, np.float32)}), hostile(), "'flavor.scale/w' has shape (2,)"),
        (encoded(**{"flavor.scale/w": np.ones((3, 1), np.float32)}), hostile(), "'flavor.scale/w' has shape (3, 1)"),
        (encoded(**{"flavor.scale/w": np.ones(3)}), hostile(), "'flavor.scale/w' is float64"),
        (encoded(**{"flavor.scale/w": None}), hostile(), "tensor 'flavor.scale/w' is missing"),
        (encoded(**{"flavor.scale/v": np.ones(1, np.float32)}), hostile(), "tensor 'flavor.scale/v' is not in"),
        (encoded(w=None), hostile(), "tensor 'w' is missing"),
        (encoded(w=np.ones((2, 5), np.int8)), hostile(), "tensor 'w' has shape (2, 5)"),
        (
            encoded(w=np.ones(10, np.float32)),
            hostile(),
            "tensor 'flavor.scale/w' is not in an int8 update",
        ),
        (encoded(w=np.ones(10, np.uint8)), hostile(), "tensor 'w' is uint8"),
        (encoded(), hostile(kind="bf16"), "tensor 'w' is int8; an bf16 update of the global model has bfloat16"),
    ],
)
def test_a_lying_encoding_is_refused_in_one_line(
    tmp_path: Path, tensors: Model, metadata: dict[str, str], said: str
) -> None:
    base = saved(tmp_path / "base", {"w": np.zeros(10, np.float32)})
    file = saved(tmp_path / "update", tensors, metadata)
    with pytest.raises(FlavorError) as caught:
        ClientModel.of(file, base)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16])
@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, 3e38])
def test_scales_that_decode_to_infinity_are_found(tmp_path: Path, dtype: Any, scale: float) -> None:
    base = saved(tmp_path / "base", {"v": np.zeros(3, dtype), "w": np.zeros(10, dtype)})
    tensors = encoded(v=np.ones(3, np.int8), **{"flavor.scale/v": np.ones(1, np.float32)})
    tensors["w"][9] = -128
    tensors["flavor.scale/w"][2] = scale
    assert ClientModel.of(saved(tmp_path / "update", tensors, hostile()), base).nonfinite() == "w"


def test_a_scale_beyond_float16_is_found(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", {"w": np.zeros(10, np.float16)})
    tensors = encoded(**{"flavor.scale/w": np.full(3, 1e5, np.float32)})
    assert ClientModel.of(saved(tmp_path / "update", tensors, hostile()), base).nonfinite() == "w"


def test_a_compressed_update_is_no_checkpoint(tmp_path: Path) -> None:
    sent(tmp_path, {"w": np.zeros(3, np.float32)}, {"w": np.ones(3, np.float32)}, "int8")
    with pytest.raises(CheckpointError, match="a compressed update, a difference to a global model, and no checkpoint"):
        read(tmp_path / "update")


def test_a_name_that_scales_need_is_refused(tmp_path: Path) -> None:
    theta = {"w": np.zeros(3, np.float32), "flavor.scale/w": np.zeros(1, np.float32)}
    with pytest.raises(CheckpointError, match="two tensors have one name"):
        sent(tmp_path, theta, theta, "int8")


def test_encoding_needs_a_global_model(tmp_path: Path) -> None:
    file = saved(tmp_path / "update", encoded(), hostile())
    with pytest.raises(CheckpointError, match="there is none in this round"):
        ClientModel.of(file, None)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=40), at=st.integers(0, 10**4))
def test_damaged_bytes_are_refused_or_decode(tmp_path: Path, data: bytes, at: int) -> None:
    theta = {"w": np.zeros(50, np.float32), "b": np.zeros(3, np.float16)}
    base = saved(tmp_path / "base", theta)
    path = tmp_path / "update"
    if not path.exists():
        sent(tmp_path, theta, {"w": np.ones(50, np.float32), "b": np.ones(3, np.float16)}, "int8", block=8)
    whole = bytearray(path.read_bytes())
    start = at % len(whole)
    whole[start : start + len(data)] = data
    (tmp_path / "damaged").write_bytes(whole)
    said = ""
    try:
        update = ClientModel.of(TensorFile.open(tmp_path / "damaged"), base)
        update.nonfinite()
    except FlavorError as error:
        said, update = str(error), None
    assert "\n" not in said
    if update and update.encoding:  # else it is a plain file now, whose tensors are not those of the model
        assert {name: tensor.shape for name, tensor in update.tensors.items()} == {"w": (50,), "b": (3,)}


# -- what travels as it is


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_small_tensors_and_statistics_travel_as_they_are(tmp_path: Path, kind: str) -> None:
    """A variance of 1e-3 beside one of 1e5 is not rounded away, and a dense layer still is what it was."""
    rng = np.random.default_rng(4)
    variances = np.geomspace(1e-3, 1e5, 2000).astype(np.float32)
    theta = {
        "bn.running_var": np.ones(2000, np.float32),
        "bias": np.zeros(PLAIN_BELOW - 1, np.float32),
        "w": np.zeros((64, 64), np.float32),
        "steps": np.array(3),
    }
    local = {
        "bn.running_var": variances,
        "bias": np.geomspace(1e-9, 1, PLAIN_BELOW - 1).astype(np.float32),
        "w": rng.standard_normal((64, 64)).astype(np.float32),
        "steps": np.array(4),
    }
    base = saved(tmp_path / "base", theta)
    saved(tmp_path / "local", local)
    encoding = Encoding.sparing(kind, BASE, base.specs, ["bn.running_var"])  # type: ignore[arg-type]
    assert encoding.plain == {"bn.running_var", "bias", "steps"}
    encode(tmp_path / "local", tmp_path / "update", base, encoding)
    file = TensorFile.open(tmp_path / "update")
    update = ClientModel.of(file, base)
    for name in ("bn.running_var", "bias", "steps"):
        assert np.asarray(update.tensors[name]).tobytes() == local[name].tobytes()
    assert isinstance(update.tensors["w"], EncodedTensor)
    assert ("flavor.scale/w" in file, "flavor.scale/bias" in file) == (kind == "int8", False)
    means = engine.run([update.tensors, update.tensors], global_model=theta).model
    np.testing.assert_array_equal(means["bn.running_var"], variances)


def test_a_tensor_that_travels_as_it_is_is_looked_at_as_well(tmp_path: Path) -> None:
    theta = {"b": np.zeros(4, np.float32), "mask": np.array([0, -np.inf], np.float32)}
    base = saved(tmp_path / "base", theta)
    encoding = Encoding.sparing("int8", BASE, base.specs, [])
    saved(tmp_path / "local", theta)
    encode(tmp_path / "local", tmp_path / "update", base, encoding)
    mask = ClientModel.of(TensorFile.open(tmp_path / "update"), base).tensors["mask"]
    assert np.asarray(mask).tobytes() == theta["mask"].tobytes()
    saved(tmp_path / "local", {**theta, "b": np.array([1, np.nan, 0, 0], np.float32)})
    with pytest.raises(CheckpointError, match="tensor 'b' has NaN or infinite values"):
        encode(tmp_path / "local", tmp_path / "update", base, encoding)


@pytest.mark.parametrize(("kind", "arrived"), [("none", 2.336), ("bf16", 2.335), ("int8", 0.0)])
def test_what_int8_rounds_away_never_arrives_as_the_docs_say(kind: str, arrived: float) -> None:
    """Two sites go 1 % of the way to 3 in each round, beside one number that each moves by 10, to opposite sides."""

    def sent(change: np.ndarray) -> np.ndarray:
        if kind != "int8":
            return change if kind == "none" else change.astype(BF16).astype(np.float32)
        values, scales = np.empty(change.size, np.int8), np.empty(1, np.float32)
        assert quantise(change, values, scales, BLOCK)
        return values * scales[0]

    theta = np.zeros(1000, np.float32)
    for _ in range(150):
        changes = []
        for apart in (10, -10):
            local = theta + np.float32(0.01) * (3 - theta)
            local[0] = theta[0] + apart
            changes.append(sent(theta - local))
        theta = theta - np.mean(changes, axis=0, dtype=np.float32)
    assert np.allclose(theta[1:], arrived, atol=6e-4)
    page = (Path(__file__).parents[3] / "docs" / "how-do-i.md").read_text(encoding="utf-8")
    assert "| 2.336 | 2.335 | 0.000 |" in page
