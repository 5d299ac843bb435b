"""Files that lie: nothing in them runs, and whatever is wrong with them is a CheckpointError."""

from __future__ import annotations

import builtins
import functools
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flavor.checkpoints import Checkpoint, Format, TensorFile, digest_and_check, read, to_safetensors, write
from flavor.checkpoints.pickles.reader import Reader, Recipe, load
from flavor.checkpoints.torch.reader import LEGACY_NUMBER
from flavor.errors import CheckpointError
from tests.lazy import Lazy

torch = Lazy("torch")


def outcome(act: Callable[[], object]) -> str:
    """What came of it; anything but a result or a CheckpointError of one line fails the test."""
    try:
        return f"read {act()}"
    except CheckpointError as error:
        return "refused" if "\n" not in str(error) else f"lines: {error}"


class Gadget:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call

    def __call__(self) -> None:
        """Only so that pickle takes it for a function."""


def gadgets(marker: Path) -> dict[str, Any]:
    touch = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Gadget(os.system, f"touch {marker}"),
        "eval": Gadget(builtins.eval, touch),
        "exec": Gadget(builtins.exec, touch),
        "popen": Gadget(subprocess.Popen, ["touch", str(marker)]),
        "getattr": Gadget(Gadget(getattr, Gadget(__import__, "os"), "system"), f"touch {marker}"),
        "apply": Gadget(list, Gadget(map, eval, [touch])),
        "nested legacy": Gadget(torch.storage._load_from_bytes, legacy(Gadget(os.system, f"touch {marker}"))),
        "nested zip": Gadget(torch.storage._load_from_bytes, zipped(Gadget(os.system, f"touch {marker}"))),
        "object array": np.array([Gadget(os.system, f"touch {marker}")], dtype=object),
    }


def legacy(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def zipped(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


GADGETS = ("os.system", "eval", "exec", "popen", "getattr", "apply", "nested legacy", "nested zip", "object array")

WRAPPERS: dict[str, Callable[[Any], bytes]] = {
    **{f"pickle {protocol}": lambda value, protocol=protocol: pickle.dumps(value, protocol) for protocol in (0, 2, 5)},
    "legacy": legacy,
    "zip": zipped,
}


@pytest.mark.parametrize("how", WRAPPERS)
@pytest.mark.parametrize("name", GADGETS)
def test_no_gadget_runs_wherever_it_stands(tmp_path: Path, how: str, name: str) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "x"
    weights = {"w": np.ones(2)}
    for content in (
        {"state_dict": {"w": gadgets(marker)[name]}},
        {"state_dict": weights, "other": gadgets(marker)[name]},
        {"state_dict": gadgets(marker)[name]},
        gadgets(marker)[name],
    ):
        path.write_bytes(WRAPPERS[how](content))
        assert outcome(lambda: list(read(path).tensors)) in {"read ['w']", "refused"}
        assert not marker.exists(), f"{name} ran"


def test_the_gadgets_are_real(tmp_path: Path) -> None:
    for name in ("os.system", "eval", "nested legacy", "getattr"):
        marker = tmp_path / name.replace(" ", "")
        pickle.loads(pickle.dumps(gadgets(marker)[name]))
        assert marker.exists(), name


def test_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sideeffect.py").write_text("thing = None")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "x"
    path.write_bytes(op(b"}(\x8c\x0astate_dict}\x8c\x05otherc", b"sideeffect\nthing\nu"))
    assert read(path, Format.PICKLE).tensors == {}
    assert "sideeffect" not in sys.modules


def test_only_recipes_are_called() -> None:
    program = memoryview(op(b"cm\nf\n)R"))
    assert load(Reader(program), {("m", "f"): Recipe("m.f", lambda: 7)}, "x") == 7
    with pytest.raises(CheckpointError, match="it calls a function"):
        load(Reader(program), {("m", "f"): lambda: 7}, "x")


def op(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def test_opcodes_that_reach_for_attributes_do_nothing(tmp_path: Path) -> None:
    """BUILD with a slot state would set attributes on whatever lies on the stack, our functions too."""
    from flavor.checkpoints.pickles.arrays import NUMPY_GLOBALS

    before = {name: getattr(value, "make", None) for name, value in NUMPY_GLOBALS.items()}
    path = tmp_path / "x"
    recipe = b"ccollections\nOrderedDict\n"
    for program in (
        op(recipe, b"N}\x8c\x04make\x8c\x01xs\x86b"),
        op(recipe, b"}\x8c\x04make\x8c\x01xsb"),
        op(b"]", b"}\x8c\x06appendNsb"),
        op(b"(", b"ios\nsystem\n"),
        op(b"(cos\nsystem\n\x8c\x04trueo"),
        op(b"\x8c\x01x)\x81"),
        op(b"cos\nsystem\n)}\x92"),
        op(b"\x82\x01"),
        op(b"\x97"),
        op(b"Ppersistent\n"),
        op(b"\x8c\x01xQ"),
        op(b"h\x05"),
        op(b"0"),
        op(b"\x8e" + b"\xff" * 8),
        op(b"\x96" + b"\xff" * 7 + b"\x7f"),
        op(b"\x8b\xff\xff\xff\x7f"),
        op(b"r\xff\xff\xff\xff"),
        op(b"\x95" + b"\xff" * 8),
        op(b"c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R"),
        op(b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85\x85R"),
    ):
        path.write_bytes(program)
        with pytest.raises(CheckpointError):
            read(path, Format.PICKLE)
    assert before == {name: getattr(value, "make", None) for name, value in NUMPY_GLOBALS.items()}


def test_a_small_pickle_cannot_look_endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flavor.checkpoints.state_dict.nesting.MAX_NODES", 5000)  # to be refused sooner
    bomb: Any = []
    for _ in range(60):
        bomb = [bomb, bomb]
    path = tmp_path / "x"
    path.write_bytes(pickle.dumps({"state_dict": {"w": bomb}}))
    with pytest.raises(CheckpointError, match="save only the model's weights"):
        read(path)
    deep: Any = {}
    for _ in range(200):
        deep = {"a": deep}
    path.write_bytes(pickle.dumps({"state_dict": deep}))
    with pytest.raises(CheckpointError, match="levels deep"):
        read(path)
    endless: dict[str, Any] = {}
    endless["state_dict"] = endless
    path.write_bytes(pickle.dumps(endless))
    with pytest.raises(CheckpointError, match="levels deep"):
        read(path)


def rebuild(offset: Any, shape: Any, strides: Any, numel: int = 4) -> bytes:
    """A torch zip with one tensor of these claims over a storage of four floats."""
    from flavor.checkpoints.pickles.writer import Call, Global, Persistent, emit

    text = io.BytesIO()
    storage = Persistent(("storage", Global("torch", "FloatStorage"), "0", "cpu", numel))
    tensor = Call(Global("torch._utils", "_rebuild_tensor_v2"), (storage, offset, shape, strides, False, None))
    emit(text, {"state_dict": {"w": tensor}}, 2)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", text.getvalue())
        archive.writestr("a/data/0", np.arange(4, dtype="<f4").tobytes())
        archive.writestr("a/version", b"3\n")
    return file.getvalue()


@pytest.mark.parametrize(
    "claims",
    [
        (1, (4,), (1,)),
        (0, (5,), (1,)),
        (0, (2, 2), (4, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (-1,), (1,)),
        (0, (2,), (1, 1)),
        (0, (2**62, 2**62), (0, 0)),
        (0, (2**40,), (0,)),
        (2**64, (1,), (1,)),
        (0, (2,), (2**64,)),
        (0, (0, 2**62, 2**62), (1, 1, 1)),
        (0.0, (1,), (1,)),
        (0, (True,), (1,)),
        (0, "4", (1,)),
        (0, (1,) * 40, (1,) * 40),
        (0, (4,), (1,), 5),
        (0, (4,), (1,), -4),
    ],
)
def test_tensors_cannot_look_outside_their_storage(tmp_path: Path, claims: tuple[Any, ...]) -> None:
    path = tmp_path / "x"
    path.write_bytes(rebuild(0, (2, 2), (2, 1)))
    assert read(path).tensors["w"].tolist() == [[0, 1], [2, 3]]
    path.write_bytes(rebuild(*claims))
    with pytest.raises(CheckpointError):
        read(path)


@functools.cache
def samples() -> dict[str, bytes]:
    tensors = {"w": torch.rand(3, 4), "half": torch.rand(7).half(), "n": torch.tensor(3)}
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    files: dict[str, bytes] = {
        "zip": zipped({"state_dict": tensors}),
        "legacy": legacy({"state_dict": tensors}),
        "pickle": pickle.dumps({"state_dict": arrays}),
        "pickle 0": pickle.dumps({"state_dict": arrays}, 0),
        "torch in pickle": pickle.dumps({"state_dict": tensors}),
    }
    for name, save in ("npz", np.savez), ("deflated npz", np.savez_compressed):
        file = io.BytesIO()
        save(file, **arrays)
        files[name] = file.getvalue()
    return files


@pytest.fixture
def every(tmp_path: Path) -> dict[str, bytes]:
    write(tmp_path / "s", Checkpoint({"w": np.ones((3, 4)), "n": np.arange(3)}), Format.SAFETENSORS)
    return samples() | {"safetensors": (tmp_path / "s").read_bytes()}


def test_truncated_files_are_checkpoint_errors(tmp_path: Path, every: dict[str, bytes]) -> None:
    path = tmp_path / "x"
    for name, whole in every.items():
        path.write_bytes(whole)
        read(path)
        step = max(1, len(whole) // 80)
        for end in [*range(0, len(whole) - 1, step), len(whole) - 1]:
            path.write_bytes(whole[:end])
            with pytest.raises(CheckpointError) as caught:
                read(path)
            assert "\n" not in str(caught.value), (name, end)


def test_flipped_bytes_raise_nothing_but_checkpoint_errors(tmp_path: Path, every: dict[str, bytes]) -> None:
    chance = random.Random(0)
    path, wire = tmp_path / "x", io.BytesIO()
    for whole in every.values():
        for _ in range(100):
            damaged = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            path.write_bytes(damaged)
            assert not outcome(lambda: to_safetensors(path, wire)).startswith("lines")


def test_the_wrong_format_is_a_checkpoint_error(tmp_path: Path, every: dict[str, bytes]) -> None:
    path = tmp_path / "x"
    for content in [*every.values(), b"\x00", b"nonsense"]:
        path.write_bytes(content)
        for fmt in Format:
            assert not outcome(lambda fmt=fmt: read(path, fmt)).startswith("lines")


@pytest.mark.parametrize("keys", [[[]], [{}], [1], "a", None, ["0"]])
def test_a_damaged_list_of_storages_is_refused(tmp_path: Path, keys: object) -> None:
    path = tmp_path / "model.pt"
    begin = (LEGACY_NUMBER, 1001, {"little_endian": True, "protocol_version": 1001, "type_sizes": {}})
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in (*begin, {"state_dict": {}}, keys)))
    with pytest.raises(CheckpointError, match="its list of storages is damaged"):
        read(path, Format.TORCH)


def test_a_zip_bomb_is_refused_unopened(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, w=np.zeros(2**16, np.float32))
    assert read(path).tensors["w"].shape == (2**16,), "small and harmless"
    np.savez_compressed(path, w=np.zeros(20 * 2**20, np.float32))
    with pytest.raises(CheckpointError, match="save it uncompressed"):
        read(path)


def test_many_small_bombs_are_refused_as_one_large(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, **{f"w{number}": np.zeros(2**22, np.float32) for number in range(5)})  # 16 MiB each
    with pytest.raises(
        CheckpointError, match=r"up to entry .w3.npy. it claims 67109376 bytes in \d+; save it uncompressed"
    ):
        read(path)
    torch.save({"state_dict": {str(i): torch.zeros(1).expand(2**23) for i in range(3)}}, path)
    with pytest.raises(CheckpointError, match=r"claim 100663296 bytes, the file has \d+; save their contiguous"):
        read(path)
    path.write_bytes(pickle.dumps({"state_dict": [np.zeros(2**20, np.float32)] * 3}))
    assert len(read(path).tensors) == 3, "tied tensors are no bomb"


def test_an_npy_cannot_claim_more_than_it_has(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for shape in ("(3,)", "(2**70,)", "(-2,)", "(0, 4611686018427387904, 8)", "(True, True)", "2", "(1,)*40"):
        head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".encode().ljust(117) + b"\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("w.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(8))
        with pytest.raises(CheckpointError):
            read(path)


def safetensors_bytes(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> Any:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"short", "cut short inside its header"),
        (struct.pack("<Q", 2**63) + b"{}", "cut short inside its header"),
        (safetensors_bytes(b"[]"), "does not start"),
        (safetensors_bytes(b"{"), "damaged"),
        (safetensors_bytes(b"{\xff}"), "damaged"),
        (safetensors_bytes(b'{"a":' * 100_000), "damaged"),
        (
            safetensors_bytes(b'{"w":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}'),
            "damaged",
        ),
        (safetensors_bytes(b'{"a":1,"a":2}'), "appears twice"),
        (safetensors_bytes({"w": entry()}, bytes(7)), "cut short"),
        (safetensors_bytes({"w": entry()}, bytes(9)), "longer than its header says"),
        (safetensors_bytes({"w": entry(offsets=(8, 16))}, bytes(16)), "overlaps or leaves a gap"),
        (safetensors_bytes({"w": entry(), "v": entry()}, bytes(16)), "overlaps or leaves a gap"),
        (
            safetensors_bytes({"w": entry(), "v": entry(offsets=(4, 12))}, bytes(12)),
            "overlaps or leaves a gap",
        ),
        (safetensors_bytes({"w": entry(shape=(3,))}, bytes(8)), "do not fit"),
        (safetensors_bytes({"w": entry(offsets=(0, 8, 9))}, bytes(8)), "do not fit"),
        (safetensors_bytes({"w": entry(offsets=(8, 0))}, bytes(8)), "do not fit"),
        (safetensors_bytes({"w": entry(offsets=(-8, 0))}, bytes(8)), "do not fit"),
        (safetensors_bytes({"w": entry(shape=(-2, -1))}, bytes(8)), "impossible shape"),
        (safetensors_bytes({"w": entry(shape=(2**62, 8, 0))}, bytes(8)), "impossible shape"),
        (safetensors_bytes({"w": entry(shape=(1.0, 2))}, bytes(8)), "impossible shape"),
        (safetensors_bytes({"w": entry(shape=(True, 2))}, bytes(8)), "impossible shape"),
        (safetensors_bytes({"w": entry(shape=(1,) * 33)}, bytes(8)), "impossible shape"),
        (safetensors_bytes({"w": entry(dtype="C64")}, bytes(8)), "complex numbers cannot be averaged"),
        (safetensors_bytes({"w": entry(dtype="F128")}, bytes(8)), "'w' is 'F128'"),
        (safetensors_bytes({"w": entry(dtype=["F32"])}, bytes(8)), "'w' is"),
        (safetensors_bytes({"w": [1]}), "lacks dtype"),
        (safetensors_bytes({"w": entry() | {"more": 1}}, bytes(8)), "lacks dtype"),
        (safetensors_bytes({"__metadata__": {"a": 1}}), "does not map text to text"),
        (safetensors_bytes({"__metadata__": "a"}), "does not map text to text"),
        (safetensors_bytes({"__metadata__": {"flavor.structure": "{"}}), "flavor.structure is damaged"),
    ],
)
def test_lying_safetensors_headers_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read(path, Format.SAFETENSORS)
    if "structure" not in message:
        with pytest.raises(CheckpointError, match=message):
            digest_and_check(path)


def test_headers_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 100_000_001) + b"{")
        file.truncate(200_000_000)
    with pytest.raises(CheckpointError, match="at most 100000000"):
        TensorFile.open(path)
    monkeypatch.setattr("flavor.checkpoints.safetensors.header.MAX_TENSORS", 1000)
    many = {str(number): entry(shape=(0,), offsets=(0, 0)) for number in range(1001)}
    path.write_bytes(safetensors_bytes(many))
    with pytest.raises(CheckpointError, match="1001 tensors; at most 1000 "):
        TensorFile.open(path)
