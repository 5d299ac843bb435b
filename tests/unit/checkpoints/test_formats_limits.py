"""Small files that would become large ones, or much memory: refused before they do."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from flavor.checkpoints import Checkpoint, Format, TensorFile, check_metadata, digest_and_check, read, write
from flavor.checkpoints.limits import MAX_JSON_OBJECTS, MAX_JSON_VALUES, check_json
from flavor.checkpoints.safetensors import header
from flavor.checkpoints.state_dict.structure import Structure
from flavor.errors import CheckpointError


def safetensors(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def tensor(name: str = "w") -> dict[str, object]:
    return {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}


@pytest.mark.parametrize("value", [b"[]", b'""', b'{"a":1}'])
def test_a_header_of_many_tiny_values_is_refused_before_it_is_parsed(tmp_path: Path, value: bytes) -> None:
    """In a process that may use little memory: parsed, each would need a multiple of it."""
    path = tmp_path / "x"
    path.write_bytes(safetensors(b'{"a":[' + (value + b",") * (90_000_000 // (len(value) + 1)) + b"0]}"))
    program = (
        "import resource, sys\nfrom flavor.checkpoints import TensorFile\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\nTensorFile.open(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert "CheckpointError" in done.stderr, done.stderr[-300:]
    assert f"over {MAX_JSON_VALUES} values" in done.stderr or f"at most {MAX_JSON_OBJECTS} are read" in done.stderr


@pytest.mark.parametrize("escaped", [False, True])
def test_a_header_of_too_many_tensors_is_refused_before_it_is_parsed(escaped: bool, monkeypatch) -> None:
    """Parsed, 300,000 entries cost seconds; however their keys are spelled."""
    key = b"dt\\u0079pe" if escaped else b"dtype"
    entry = b'{"' + key + b'":"F32","shape":[0],"data_offsets":[0,0]}'
    many = b"{" + b",".join(b'"%d":' % number + entry for number in range(700_000 if escaped else 300_000)) + b"}"
    monkeypatch.setattr("flavor.checkpoints.safetensors.header.json", None)
    said = f"at most {MAX_JSON_OBJECTS} are read" if escaped else "300000 tensors; at most 100000 are carried"
    with pytest.raises(CheckpointError, match=said):
        header.parse(memoryview(safetensors(many)), "x")


def test_real_headers_are_far_from_that_limit() -> None:
    entry = '"model.layers.100.attention.weight":{"dtype":"F32","shape":[64,64,3,3],"data_offsets":[100000,200000]},'
    check_json("{" + entry * 100_000 + "}")
    check_json((entry * 100_000).encode())
    with pytest.raises(ValueError, match="values"):
        check_json("[" * (MAX_JSON_VALUES + 1))


def test_a_structure_is_limited_by_itself() -> None:
    """What is escaped in the header's text is many values only once it is text."""
    with pytest.raises(CheckpointError, match=f"over {MAX_JSON_VALUES} values"):
        Structure.from_json("[" * (MAX_JSON_VALUES + 1), "x")


@pytest.mark.parametrize("length", [4096, 4097, 10**6])
def test_names_are_limited_and_quoted_in_part(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(safetensors(json.dumps(tensor("n" * length)).encode(), bytes(4)))
    if length <= 4096:
        assert TensorFile.open(path).names == ("n" * length,)
        return
    with pytest.raises(CheckpointError, match=f"has a name of {length} characters") as caught:
        digest_and_check(path)
    assert len(str(caught.value)) < 400
    with pytest.raises(CheckpointError, match="has a name"):
        write(tmp_path / "y", Checkpoint({"n" * length: np.ones(1, np.float32)}), Format.SAFETENSORS)


def test_many_entries_of_a_zip_are_one_bomb(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    array = np.zeros(15 * 2**20 // 4, np.float32)
    np.savez_compressed(path, **{f"w{number}": array for number in range(4)})
    assert len(read(path).tensors) == 4, "each is small, and together they are"
    np.savez_compressed(path, **{f"w{number}": array for number in range(12)})
    with pytest.raises(CheckpointError, match="it claims"):
        read(path)


def test_entries_over_the_same_bytes_are_one_bomb(tmp_path: Path) -> None:
    """Stored entries whose directory points to one place; the zip itself is small."""
    file = io.BytesIO()
    head = io.BytesIO()
    np.lib.format.write_array(head, np.zeros(2**18, np.float32))
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("w.npy", head.getvalue())
        first = archive.infolist()[0]
        for number in range(150):
            copy = zipfile.ZipInfo(f"w{number}.npy")
            for name in ("header_offset", "file_size", "compress_size", "CRC", "compress_type"):
                setattr(copy, name, getattr(first, name))
            archive.filelist.append(copy)
        archive._didModify = True
    path = tmp_path / "x.npz"
    path.write_bytes(file.getvalue())
    with pytest.raises(CheckpointError, match="contiguous"):
        read(path)


def test_tensors_over_one_storage_are_one_bomb(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.ckpt"
    base = torch.zeros(1)
    torch.save({"state_dict": {"w": base, "tied": base}}, path)
    assert set(read(path).tensors) == {"w", "tied"}
    torch.save({"state_dict": {str(number): base.expand(2**22) for number in range(8)}}, path)
    with pytest.raises(CheckpointError, match="contiguous"):
        read(path)


def test_a_pickle_cannot_copy_one_text_again_and_again(tmp_path: Path) -> None:
    text = b"x" * 2**20
    put = b"X" + struct.pack("<I", len(text)) + text + b"q\x000"
    call = b"c_codecs\nencode\nh\x00X\x06\0\0\0latin1\x86R0"
    path = tmp_path / "x"
    path.write_bytes(b"\x80\x02" + put + call * 10 + b"N.")
    with pytest.raises(CheckpointError, match="not a dict"):
        read(path, Format.PICKLE)
    path.write_bytes(b"\x80\x02" + put + call.replace(b"R0", b"R") * 1000 + b"N.")
    with pytest.raises(CheckpointError, match="unfolds to far more"):
        read(path, Format.PICKLE)


def test_what_a_file_says_of_itself_may_not_be_anything(tmp_path: Path) -> None:
    path = tmp_path / "x"

    def check(**metadata: str) -> None:
        path.write_bytes(safetensors(json.dumps({"__metadata__": metadata, **tensor()}).encode(), bytes(4)))
        check_metadata(path)

    check()
    check(format="pt")
    check(**{"flavor.structure": '{"root":{"d":[["a",{"l":[{"t":"w"}]}]]}}'})
    for bad in (
        {"owner": "me"},
        {"flavor.other": "x"},
        {"format": "x" * 5000},
        {"flavor.structure": "{"},
        {"flavor.structure": '{"root":{"d":[["a",{"t":"other"}]]}}'},
    ):
        with pytest.raises(CheckpointError):
            check(**bad)


def test_ordinary_files_pass(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(pickle.dumps({"state_dict": {str(n): np.ones(100, np.float32) for n in range(1000)}}))
    assert len(read(path).tensors) == 1000
