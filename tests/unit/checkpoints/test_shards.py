"""A model in a folder of shards with their index: read, sent and given as one model, and refused where it is none."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flavor.checkpoints import Format, TensorFile, detect, read
from flavor.checkpoints.kinds import TENSORS
from flavor.checkpoints.safetensors import layout as layouts
from flavor.checkpoints.safetensors.shard_index import parse_index
from flavor.checkpoints.site import SiteOptions
from flavor.checkpoints.state_dict.wrapper_prefix import bare_names
from flavor.errors import CheckpointError
from flavor.parts import Parts
from flavor.saved import is_saved, remove_saved, saved_bytes

INDEX = "model.safetensors.index.json"
MODEL = {
    "embed": np.arange(12, dtype=np.float32).reshape(3, 4),
    "layer.0": np.full(5, 2, np.float16),
    "layer.1": np.full(6, 3, np.float32),
    "step": np.array(7),
}
TOTAL = sum(array.nbytes for array in MODEL.values())


def save(folder: Path, *shards: tuple[str, ...], **model: np.ndarray) -> Path:
    """A folder as transformers' save_pretrained leaves it, with these tensors in each shard."""
    tensors = MODEL | model
    folder.mkdir(exist_ok=True)
    shard_of = {}
    for number, names in enumerate(shards, 1):
        shard = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: tensors[name] for name in names}, folder / shard, metadata={"format": "pt"})
        shard_of |= dict.fromkeys(names, shard)
    index = {"metadata": {"total_size": TOTAL}, "weight_map": shard_of}
    (folder / INDEX).write_text(json.dumps(index))
    (folder / "config.json").write_text('{"a text": "of the site"}')
    return folder


def loaded(folder: Path) -> dict[str, np.ndarray]:
    """The model as a script reads it: by the index alone."""
    index = json.loads((folder / INDEX).read_text())
    shards = {shard: load_file(folder / shard) for shard in set(index["weight_map"].values())}
    assert index["metadata"]["total_size"] == sum(each.nbytes for shard in shards.values() for each in shard.values())
    assert {name for shard in shards.values() for name in shard} == set(index["weight_map"])
    return {name: shards[shard][name] for name, shard in index["weight_map"].items()}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return save(tmp_path / "model", ("embed", "step"), ("layer.0", "layer.1"))


def site(tmp_path: Path, **options: object):
    return TENSORS.site(SiteOptions(beside=tmp_path / "beside", tell=lambda _: None, **options))  # type: ignore[arg-type]


def test_shards_are_one_model_however_they_are_split(place: Path, tmp_path: Path) -> None:
    other = save(tmp_path / "other", ("layer.1",), ("embed", "layer.0"), ("step",))
    assert detect(place) is Format.SAFETENSORS
    wires = [tmp_path / "a", tmp_path / "b"]
    digests = set()
    for source, wire in zip((place, other), wires, strict=True):
        done = site(tmp_path).to_wire(source, wire, None)
        digests.add(done.digest)
        assert done.format == "safetensors", "an edge of an earlier release reads it, too"
        for name, array in load_file(wire).items():
            np.testing.assert_array_equal(array, MODEL[name])
        assert TensorFile.open(wire).metadata == {"format": "pt"}
    assert TENSORS.compare(wires[0], wires[1], "the other") == ""


def test_the_trainer_is_given_a_folder_as_it_saves_one(place: Path, tmp_path: Path) -> None:
    mine = site(tmp_path)
    mine.to_wire(place, tmp_path / "wire", None)
    target = tmp_path / "global"
    target.mkdir()
    (target / "own.txt").write_text("mine")
    save_file({"old": np.zeros(1)}, target / "model.safetensors")
    assert not mine.is_placed_as_it_is("safetensors")
    mine.from_wire(tmp_path / "wire", target, "torch")
    for name, array in loaded(target).items():
        np.testing.assert_array_equal(array, MODEL[name])
        assert array.dtype == MODEL[name].dtype
    assert {file.name for file in target.iterdir()} == {*(file.name for file in place.iterdir()), "own.txt"}
    assert json.loads((target / INDEX).read_text()) == json.loads((place / INDEX).read_text())
    assert (target / "config.json").read_text() == '{"a text": "of the site"}'

    again = site(tmp_path, habits=mine.habits)
    (tmp_path / "file").write_bytes(b"what a script saved that saved files")
    again.from_wire(tmp_path / "wire", tmp_path / "file", "torch")
    assert loaded(tmp_path / "file").keys() == MODEL.keys(), "after a start of the edge"
    np.savez(tmp_path / "now.npz", **MODEL)
    again.to_wire(tmp_path / "now.npz", tmp_path / "wire", None)
    again.from_wire(tmp_path / "wire", tmp_path / "given", "torch")
    assert detect(tmp_path / "given") is Format.NPZ, "a script that saves files is given files"


def test_a_site_that_has_saved_nothing_asks_for_a_folder(place: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(layouts, "SHARD_BYTES", 48)
    wire = tmp_path / "wire"
    TENSORS.to_wire(place, wire)
    site(tmp_path / "fresh", format="sharded").from_wire(wire, tmp_path / "global", "torch")
    assert loaded(tmp_path / "global").keys() == MODEL.keys()
    assert len(list((tmp_path / "global").glob("model-0000?-of-00002.safetensors"))) == 2


def test_a_folder_with_one_file_needs_no_index(tmp_path: Path) -> None:
    source = tmp_path / "one"
    source.mkdir()
    save_file(MODEL, source / "adapter_model.safetensors")
    mine = site(tmp_path)
    mine.to_wire(source, tmp_path / "wire", None)
    mine.from_wire(tmp_path / "wire", tmp_path / "global", "")
    assert [file.name for file in (tmp_path / "global").iterdir()] == ["adapter_model.safetensors"]
    assert load_file(tmp_path / "global" / "adapter_model.safetensors").keys() == MODEL.keys()


def test_a_part_of_shards_is_shared_and_the_rest_put_back(place: Path, tmp_path: Path) -> None:
    from flavor.checkpoints.site import OwnFiles

    own = OwnFiles(tmp_path / "parts", "1" * 32)
    mine = site(tmp_path, parts=Parts(local=("layer.*",)), own=own)
    own.round = 1
    mine.to_wire(place, tmp_path / "wire", None)
    assert set(TensorFile.open(tmp_path / "wire").names) == {"embed", "step"}
    own.round = 2
    mine.from_wire(tmp_path / "wire", tmp_path / "global", "")
    assert {name: array.tolist() for name, array in loaded(tmp_path / "global").items()} == {
        name: array.tolist() for name, array in MODEL.items()
    }


def test_only_weights_are_removed_from_a_folder(place: Path) -> None:
    assert is_saved(place)
    assert saved_bytes(place) > TOTAL
    remove_saved(place)
    assert [file.name for file in place.iterdir()] == ["config.json"]
    assert not is_saved(place)


def edited(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def act(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        change(index)
        (folder / INDEX).write_text(json.dumps(index))

    return act


FIRST, SECOND = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a shard is missing": (lambda folder: (folder / SECOND).unlink(), rf"the shard {SECOND} is not there"),
    "a tensor is in two shards": (
        lambda folder: save_file({name: MODEL[name] for name in ("embed", "layer.0", "layer.1")}, folder / SECOND),
        rf"tensor 'embed' is in two shards, one of them {SECOND}",
    ),
    "a tensor is missing": (
        lambda folder: save_file({"layer.0": MODEL["layer.0"]}, folder / SECOND),
        rf"tensor 'layer.1' is not in {SECOND}",
    ),
    "a tensor is not in the index": (
        edited(lambda index: index["weight_map"].pop("step")),
        rf"tensor 'step' is in {FIRST}, and the index does not name it",
    ),
    "a tensor is in another shard": (
        edited(lambda index: index["weight_map"].update(step=SECOND)),
        rf"tensor 'step' is in {FIRST}, and the index names {SECOND}",
    ),
    "a path": (
        edited(lambda index: index["weight_map"].update(step="../other/model.safetensors")),
        r"tensor 'step' is said to be in '\.\./other/model\.safetensors', which is not the name of",
    ),
    "an absolute path": (
        edited(lambda index: index["weight_map"].update(step="/etc/model.safetensors")),
        "which is not the name of a safetensors file beside the index",
    ),
    "an index of many gigabytes": (
        lambda folder: os.truncate(folder / INDEX, 2**40),
        "an index of over 100000000 bytes",
    ),
    "no JSON": (lambda folder: (folder / INDEX).write_text("{"), "a damaged index of shards"),
    "a list": (lambda folder: (folder / INDEX).write_text("[]"), "it is no JSON object"),
    "a name twice": (
        lambda folder: (folder / INDEX).write_text('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}'),
        "'a' appears twice",
    ),
    "no tensors": (edited(lambda index: index["weight_map"].clear()), "no weight_map that names a tensor"),
    "a foreign file": (
        lambda folder: save_file(MODEL, folder / "model.safetensors"),
        r"model\.safetensors lies beside the index, which does not name it",
    ),
    "two indexes": (
        lambda folder: (folder / f"b{INDEX}").write_text("{}"),
        "save one model into it, as one safetensors file or as shards",
    ),
    "two files": (lambda folder: (folder / INDEX).unlink(), "save one model into it"),
    "torch's shards": (
        lambda folder: [remove_saved(folder), (folder / "pytorch_model.bin.index.json").write_text("{}")],
        r"pytorch_model\.bin\.index\.json is the index of torch's own shards, which are not read: save safetensors",
    ),
    "a shard that is cut off": (
        lambda folder: (folder / SECOND).write_bytes((folder / SECOND).read_bytes()[:-1]),
        rf"{SECOND}: cut short",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_together_is_refused_in_one_line(place: Path, tmp_path: Path, case: str) -> None:
    act, said = BAD[case]
    act(place)
    with pytest.raises(CheckpointError, match=said) as told:
        site(tmp_path).to_wire(place, tmp_path / "wire", None)
    assert "\n" not in str(told.value)
    assert str(told.value).startswith(str(place))
    assert not (tmp_path / "wire").exists()


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: (folder / "pytorch_model.bin.index.json").write_text("{}"),
        edited(lambda index: index["metadata"].update(total_size=TOTAL + 1)),
        edited(lambda index: index["metadata"].update(total_size="of another tool")),
    ],
    ids=["torch's shards beside them", "a stale size", "a size that is none"],
)
def test_what_says_nothing_of_the_model_is_not_read(place: Path, tmp_path: Path, act: Callable[[Path], object]) -> None:
    act(place)
    site(tmp_path).to_wire(place, tmp_path / "wire", None)
    assert set(TensorFile.open(tmp_path / "wire").names) == set(MODEL)


def test_a_name_that_appears_twice_is_found_among_many() -> None:
    """In a time that grows with the names, and not with their square: a minute here."""
    names = [f'"{name}": "x.safetensors"' for name in [*range(60_000), 59_999]]
    with pytest.raises(CheckpointError, match="'59999' appears twice"):
        parse_index(f'{{"weight_map": {{{", ".join(names)}}}}}'.encode(), "x")
    with pytest.raises(CheckpointError, match="over 400000 texts"):
        parse_index(f'{{"weight_map": {{{", ".join(names * 7)}}}}}'.encode(), "x")
    with pytest.raises(CheckpointError, match="--strip-prefix makes two tensors 'w59999'"):
        bare_names([*(f"w{name}" for name in range(60_000)), "_orig_mod.w59999"])


@pytest.mark.parametrize("name", ["a\n.safetensors", "a\\b.safetensors", ".safetensors", "x" * 300 + ".safetensors", 5])
def test_a_name_of_a_shard_that_no_folder_has_is_refused(name: object) -> None:
    with pytest.raises(CheckpointError):
        parse_index(json.dumps({"weight_map": {"w": name}}).encode(), "x")


def test_an_index_without_its_folder_is_refused_with_what_to_do(place: Path) -> None:
    with pytest.raises(CheckpointError, match="of shards, hand in the folder that has the index and all of them"):
        read(place / INDEX)
