"""No text of a site leaves it in a checkpoint: what crosses the wire are tensors, their names, and how they nest."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from flavor.checkpoints import (
    Checkpoint,
    Encoding,
    Format,
    Structure,
    TensorFile,
    check_metadata,
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

MARK = "MEIER_Anna_1951"
W = np.arange(6, dtype=np.float32)


class MEIER_Anna_1951:
    """What a script may leave beside its state_dict."""


def texts(mark: str) -> dict[str, Any]:
    """A state_dict with texts wherever one can stand."""
    return {
        "w": W,
        "trained_on": mark,
        "columns": ["age", mark],
        "pair": (mark, None),
        "labels": {mark: None, "C50.9": mark},
        "codes": {19510302: None},
        "deep": [{"names": [mark, {"of": {mark: mark}}]}, {"v": W, "unit": mark}],
        "scale": 0.5,
        "mean": None,
    }


def saved(path: Path, how: str, state: dict[str, Any], mark: str = MARK) -> Path:
    beside = {"state_dict": state, "note": mark, mark: [mark, b"MEIER_Anna_1951"], "what": MEIER_Anna_1951()}
    if how == "pickle":
        path.write_bytes(pickle.dumps(beside))
    else:
        kept = {key: torch.from_numpy(item) if isinstance(item, np.ndarray) else item for key, item in state.items()}
        torch.save({**beside, "state_dict": kept}, path, _use_new_zipfile_serialization=how == "zip")
    if how == "zip":
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = mark.encode()
    return path


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_texts_stay_at_their_site_and_come_back_to_it(tmp_path: Path, how: str) -> None:
    state = texts(MARK)
    wire, back = tmp_path / "wire", tmp_path / "back"
    info = to_safetensors(saved(tmp_path / "own", how, state), wire)
    assert b"MEIER" not in wire.read_bytes()
    check_metadata(wire)
    from_safetensors(wire, back, info.format, info.structure)
    mine = (pickle.loads(back.read_bytes()) if how == "pickle" else torch.load(back, weights_only=False))["state_dict"]
    assert list(mine) == list(state)
    for key in ("trained_on", "columns", "pair", "labels", "codes", "scale", "mean"):
        assert mine[key] == state[key], key
    assert mine["deep"][0] == state["deep"][0]
    assert mine["deep"][1]["unit"] == MARK


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_nor_do_they_leave_in_a_compressed_update(tmp_path: Path, kind: Any) -> None:
    own = saved(tmp_path / "own", "pickle", texts(MARK))
    write(tmp_path / "base", Checkpoint(dict(read(own).tensors)), Format.SAFETENSORS)
    info = encode(own, tmp_path / "wire", TensorFile.open(tmp_path / "base"), Encoding(kind, "0" * 64))
    assert b"MEIER" not in (tmp_path / "wire").read_bytes()
    check_metadata(tmp_path / "wire")
    assert info.structure is not None
    assert MARK in info.structure.to_json(), "the edge has it"


def test_nothing_tells_two_sites_texts_from_each_other(tmp_path: Path) -> None:
    """Nor how many there are: a list of names has the length of the list of patients."""
    for name, mark, more in (("a", "x", []), ("b", "MEIER", ["HUBER", "GRUBER"])):
        state = texts(mark)
        state["columns"] += more
        state["labels"].update(dict.fromkeys(more))
        to_safetensors(saved(tmp_path / "own", "pickle", state), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_site_without_texts_of_its_own_finds_empty_ones(tmp_path: Path) -> None:
    to_safetensors(saved(tmp_path / "own", "pickle", texts(MARK)), tmp_path / "wire")
    given = from_safetensors(tmp_path / "wire", tmp_path / "back", Format.PICKLE).structure
    assert given is not None
    assert given.texts == ("trained_on", "columns", "pair", "labels", "codes", "deep/0", "deep/1/unit")
    back = pickle.loads((tmp_path / "back").read_bytes())["state_dict"]
    assert (back["trained_on"], back["columns"], back["mean"]) == ("", "", None)
    assert float(back["scale"]) == 0.5
    assert b"MEIER" not in (tmp_path / "back").read_bytes()


@pytest.mark.parametrize(
    "metadata",
    [
        {"patient": MARK},
        {"format": MARK},
        {"flavor.note": MARK},
        {"flavor.structure": json.dumps({"root": {"d": [["w", {"t": "w"}], ["who", {"c": MARK}]]}})},
        {"flavor.structure": json.dumps({"root": {"d": [["w", {"t": "w"}]]}, "note": MARK})},
        {"flavor.structure": json.dumps({"root": {"d": [["w", {"t": "w"}], ["who", {"c": None, "note": MARK}]]}})},
        {"flavor.structure": json.dumps({"root": {"d": [["w", {"t": "w"}], ["who", {"d": [[MARK, {"c": None}]]}]]}})},
        {"flavor.structure": json.dumps({"root": {"d": [["w", {"t": "w", "as": "torch"}]], "note": MARK}})},
    ],
)
def test_what_a_safetensors_file_says_of_itself_stays_and_is_refused_from_the_wire(
    tmp_path: Path, metadata: dict[str, str]
) -> None:
    """Whatever its trainer, an older edge or a forged one has written there."""
    path = tmp_path / "own"
    save_file({"w": W}, path, metadata=metadata)
    assert MARK.encode() in path.read_bytes()
    assert take_safetensors(path) is None, "it cannot be linked into the store as it is"
    to_safetensors(path, tmp_path / "wire")
    assert b"MEIER" not in (tmp_path / "wire").read_bytes()
    check_metadata(tmp_path / "wire")
    with pytest.raises(CheckpointError, match=r"may not cross the wire|holds text|is none of"):
        check_metadata(path)


def test_a_file_without_any_is_sent_as_it_is(tmp_path: Path) -> None:
    for metadata in ({"format": "pt"}, None, {"flavor.structure": Structure().to_json()}):
        save_file({"w": W}, tmp_path / "own", metadata=metadata)
        assert take_safetensors(tmp_path / "own") is not None


def test_comments_of_a_zip_stay(tmp_path: Path) -> None:
    held = io.BytesIO()
    np.savez(held, w=W)
    with zipfile.ZipFile(held, "a") as archive:
        archive.comment = MARK.encode()
        archive.infolist()[0].comment = MARK.encode()
    (tmp_path / "own").write_bytes(held.getvalue())
    assert MARK.encode() in held.getvalue()
    to_safetensors(tmp_path / "own", tmp_path / "wire")
    assert b"MEIER" not in (tmp_path / "wire").read_bytes()


def test_a_trainer_s_notes_stay_at_the_site_where_prefixes_are_removed(tmp_path: Path) -> None:
    save_file({"module.w": W}, tmp_path / "local", metadata={"note": MARK, "format": "np"})
    to_safetensors(tmp_path / "local", tmp_path / "wire", bare=True)
    assert TensorFile.open(tmp_path / "wire").metadata == {"format": "np"}
    check_metadata(tmp_path / "wire")
