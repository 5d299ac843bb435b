"""A site that shares a part of its model: what is sent, what it keeps, and the whole file that its trainer is given."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flavor.checkpoints import Format, TensorFile, read, to_safetensors, write
from flavor.checkpoints.checkpoint import Checkpoint
from flavor.checkpoints.kinds import TENSORS
from flavor.checkpoints.own_tensors import OwnTensors
from flavor.checkpoints.part_files import complete, write_shared
from flavor.checkpoints.part_site import PartSite
from flavor.checkpoints.site import Given, OwnFiles, SiteOptions
from flavor.errors import CheckpointError, NotDivided
from flavor.parts import Parts
from flavor.records.remarks import Remark
from tests.lazy import Lazy

torch = Lazy("torch")

BN = Parts(local=["*bn*"])
OWN = np.float32(12345.678)
"""A value that is easily found in a file."""


def model(own: float = OWN, **changes: Any) -> dict[str, Any]:
    made = {
        "conv.weight": np.ones((300, 4), np.float32),
        "bn.weight": np.full(3, own, np.float32),
        "bn.count": np.array([7], np.int64),
        "head.bias": np.arange(5, dtype=np.float32),
    }
    return {**made, **changes}


class Place:
    """One site with its files; `trained` and `given` are one round of it."""

    def __init__(self, folder: Path, parts: Parts = BN, initial: Path | None = None, **options: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.files = OwnFiles(folder / "parts", "1" * 32, None if initial is None else lambda: initial)
        self.told: list[str] = []
        self.remarks: list[Remark] = []
        self.options = SiteOptions(
            beside=folder / "beside",
            parts=parts,
            own=self.files,
            tell=self.told.append,
            remark=self.remarks.append,
            **options,
        )
        self.site = self.started()

    def started(self) -> PartSite:
        """The site as it is after a start of its edge."""
        site = TENSORS.site(self.options)
        assert isinstance(site, PartSite)
        return site

    def trained(self, tensors: dict[str, Any], round_: int, format_: Format = Format.NPZ, given: Any = None) -> Path:
        source, target = self.folder / "local", self.folder / f"sent-{round_}.safetensors"
        write(source, Checkpoint(tensors), format_)
        self.files.round = round_
        self.site.to_wire(source, target, given)
        return target

    def given(self, wire: Path, round_: int | None) -> dict[str, np.ndarray]:
        self.files.round = round_
        self.site.check(wire)
        self.site.from_wire(wire, self.folder / "global", "npz")
        return read(self.folder / "global").tensors


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "site")


@pytest.mark.parametrize("format_", list(Format))
def test_only_shared_tensors_are_sent_and_the_trainer_gets_a_whole_file_in_its_format(place, format_, tmp_path):
    wire = place.trained(model(), 1, format_)
    assert list(load_file(wire)) == ["conv.weight", "head.bias"]
    assert OWN.tobytes() not in wire.read_bytes()
    assert b"bn" not in wire.read_bytes(), "nor are the names of the others sent"
    made = tmp_path / "made.safetensors"
    save_file({name: array + 1 for name, array in load_file(wire).items()}, made)
    to_safetensors(made, tmp_path / "global.safetensors")
    whole = place.given(tmp_path / "global.safetensors", 2)
    assert list(whole) == list(model())
    for name, array in model().items():
        np.testing.assert_array_equal(whole[name], array if "bn" in name else array + 1)
        assert whole[name].dtype == array.dtype
    place.site = place.started()
    again = place.given(tmp_path / "global.safetensors", 2)
    assert all(np.array_equal(again[name], whole[name]) for name in whole), "also after a start of the edge"


def test_torch_loads_a_nested_file_with_what_stands_beside_it(place, tmp_path):
    state = {"net": {"conv": torch.ones(2), "bn": torch.full((2,), float(OWN))}, "note": "a text of the site"}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "local.ckpt")
    wire = tmp_path / "wire.safetensors"
    place.site.to_wire(tmp_path / "local.ckpt", wire, None)
    assert TensorFile.open(wire).names == ("net/conv",)
    assert "flavor.structure" not in TensorFile.open(wire).metadata, "its keys name the tensors that are not shared"
    place.site.from_wire(wire, tmp_path / "global.ckpt", "torch")
    loaded = torch.load(tmp_path / "global.ckpt", weights_only=True)
    assert loaded["epoch"] == 3
    assert loaded["state_dict"]["note"] == "a text of the site"
    assert torch.equal(loaded["state_dict"]["net"]["bn"], state["net"]["bn"])


@pytest.mark.parametrize("kind", ["int8", "bf16"])
def test_a_part_is_compressed(tmp_path, kind):
    place = Place(tmp_path / "site", compress=kind)
    base = place.trained(model(), 1)
    changed = model(own=2, **{"conv.weight": np.full((300, 4), 1.5, np.float32)})
    wire = place.trained(changed, 2, given=Given(base, "a" * 64))
    file = TensorFile.open(wire)
    assert {"conv.weight", "head.bias"} == {name for name in file.names if "/" not in name}
    assert file.dtype("conv.weight") != np.float32
    np.testing.assert_array_equal(place.given(base, None)["bn.weight"], changed["bn.weight"])


def test_prefixes_of_wrappers_are_put_back_on_all_tensors(tmp_path):
    place = Place(tmp_path / "site", bare=True)
    mine = {f"module.{name}": array for name, array in model().items()}
    wire = place.trained(mine, 1)
    assert list(load_file(wire)) == ["conv.weight", "head.bias"]
    assert list(place.given(wire, 2)) == list(mine)
    place.options = replace(place.options, habits=place.site.habits)
    place.site = place.started()
    assert list(place.given(wire, 2)) == list(mine)


def test_the_control_variates_that_are_not_shared_are_named_as_the_script_does(tmp_path):
    place = Place(tmp_path / "site", bare=True)
    assert place.site.own_variates() == []
    names = [*model(), "scaffold_c__bn__weight", "scaffold_c__head__bias"]
    place.trained({f"module.{name}": np.ones(5, np.float32) for name in names}, 1)
    assert place.site.own_variates() == ["module.scaffold_c__bn__weight"]


class TestWhoseTensors:
    """Of which round are a site's own tensors, and what does it get where it has none?"""

    def test_a_round_that_is_trained_again_begins_as_it_did(self, place):
        place.trained(model(own=1), 1)
        wire = place.trained(model(own=2), 2)
        assert place.given(wire, 3)["bn.weight"][0] == 2
        assert place.given(wire, 2)["bn.weight"][0] == 1
        place.trained(model(own=22), 2)
        assert place.given(wire, 2)["bn.weight"][0] == 1
        assert place.given(wire, 3)["bn.weight"][0] == 22
        assert place.given(wire, None)["bn.weight"][0] == 22

    def test_a_site_without_own_tensors_is_told_what_to_do(self, place, tmp_path):
        wire = Place(tmp_path / "other").trained(model(), 1)
        with pytest.raises(NotDivided, match=r"this site has none of the other tensors: have the script save") as error:
            place.given(wire, 2)
        assert "--init-model" in error.value.told
        write(place.folder / "early", Checkpoint(model(own=3)), Format.PICKLE)
        place.files.round = None
        place.site.learn(place.folder / "early")
        assert place.given(wire, 2)["bn.weight"][0] == 3
        assert pickle.loads((place.folder / "global").read_bytes())["state_dict"], "in the format of the script"
        write(place.folder / "early", Checkpoint(model(own=4)), Format.PICKLE)
        place.site.learn(place.folder / "early")
        assert place.given(wire, 2)["bn.weight"][0] == 3, "it has its own by now"

    def test_a_site_begins_with_the_initial_model_and_goes_on_with_its_own(self, tmp_path):
        write(tmp_path / "init.npz", Checkpoint(model(own=9)), Format.NPZ)
        initial, shared = tmp_path / "whole.safetensors", tmp_path / "shared.safetensors"
        to_safetensors(tmp_path / "init.npz", initial)
        write_shared(tmp_path / "init.npz", shared, BN)
        place = Place(tmp_path / "site", initial=initial)
        assert place.given(shared, 1)["bn.weight"][0] == 9
        place.trained(model(own=8), 1)
        kept = read(place.folder / "parts" / f"{'1' * 32}.safetensors").tensors
        assert list(kept) == ["bn.weight"], "bn.count is the initial model's still, and lies there alone"
        assert place.given(shared, 2)["bn.weight"][0] == 8
        assert place.given(shared, 2)["bn.count"][0] == 7
        assert place.given(shared, 1)["bn.weight"][0] == 9, "its first round is trained again"

    def test_a_frozen_base_is_kept_once(self, tmp_path):
        write(tmp_path / "init.npz", Checkpoint(model()), Format.NPZ)
        to_safetensors(tmp_path / "init.npz", tmp_path / "whole.safetensors")
        place = Place(tmp_path / "site", Parts(share=["head.*"]), initial=tmp_path / "whole.safetensors")
        place.trained(model(**{"head.bias": np.zeros(5, np.float32)}), 1)
        assert not (place.folder / "parts").exists()
        without = Place(tmp_path / "other", Parts(share=["head.*"]))
        for round_ in (1, 2, 3):
            without.trained(model(**{"head.bias": np.full(5, round_, np.float32)}), round_)
        assert len(list((without.folder / "parts").iterdir())) == 1, "what does not change is not written again"

    def test_each_file_is_opened_once_to_keep_the_tensors(self, tmp_path, monkeypatch):
        """The initial model may be a frozen base of many thousand tensors, whose header is parsed each time."""
        write(tmp_path / "init.npz", Checkpoint(model()), Format.NPZ)
        to_safetensors(tmp_path / "init.npz", tmp_path / "whole.safetensors")
        place = Place(tmp_path / "site", initial=tmp_path / "whole.safetensors")
        for round_ in (1, 2):
            place.trained(model(own=round_), round_)
        opened: list[Path] = []
        reading = TensorFile.open
        monkeypatch.setattr(TensorFile, "open", lambda path: opened.append(Path(path)) or reading(path))
        own = OwnTensors(place.files, BN)
        place.files.round = 3
        own.keep(list(model()), {name: model(own=3)[name] for name in ("bn.weight", "bn.count")})
        names = ["whole.safetensors", f"{'1' * 32}.safetensors", f"{'1' * 32}-before.safetensors"]
        assert [path.name for path in opened] == names

    def test_files_of_another_run_are_not_used(self, place):
        wire = place.trained(model(), 1)
        place.files.run_id = "2" * 32
        place.site = place.started()
        with pytest.raises(NotDivided):
            place.given(wire, 2)


class TestRefused:
    """What one site cannot hand in, with the reason; its own tensors stay as they were."""

    @pytest.mark.parametrize(
        ("tensors", "reason"),
        [
            (
                model(**{"bn.weight": np.ones(4, np.float32)}),
                r"'bn.weight' has shape \(4,\); what this site had",
            ),
            ({name: each for name, each in model().items() if name != "bn.count"}, "'bn.count' is missing"),
            (model(**{"bn.more": np.ones(1, np.float32)}), "'bn.more' is not in what this site had before"),
            (model(own=np.nan), "'bn.weight', which stays at this site, has NaN"),
            (
                {"conv.weight": np.ones(2, np.float32)},
                r"--local '\*bn\*' matches none of 1 tensor: the nearest is c",
            ),
            ({"bn.weight": np.ones(2, np.float32)}, "shares none of 1 tensor"),
        ],
    )
    def test_a_model_that_has_changed(self, place, tensors, reason):
        wire = place.trained(model(), 1)
        with pytest.raises(NotDivided, match=reason) as error:
            place.trained(tensors, 2)
        assert "bn." not in error.value.told
        assert place.given(wire, None)["bn.weight"][0] == OWN

    def test_tied_weights(self, place, tmp_path):
        weight = torch.ones(4, 4)
        torch.save({"state_dict": {"embed.weight": weight, "bn_tied.weight": weight}}, tmp_path / "local.ckpt")
        with pytest.raises(NotDivided, match=r"'embed.weight' is shared and 'bn_tied.weight' is not, and both are one"):
            place.site.to_wire(tmp_path / "local.ckpt", tmp_path / "wire", None)

    @pytest.mark.parametrize("format_", list(Format))
    def test_tied_weights_that_the_file_stores_twice(self, place, format_):
        """As all formats but torch do, and torch after `.cpu()`, and as a script does that copies a network on purpose.

        They are the same in each round, and move. Whether they are one tensor of the model is not seen: the run goes
        on, and the site is told once, whatever it was told of in round 1.
        """
        for round_ in (1, 2, 3):
            weight = np.linspace(round_, 9, 12, dtype=np.float32)
            tied = {"embed.weight": weight, "bn_tied.weight": weight.copy()}
            tied |= {"bn.running_mean": np.ones(3), "down.running_mean": np.zeros(3)}
            wire = place.trained(tied, round_, format_)
            assert len(place.told) == min(round_, 2), "the forgotten statistics in round 1"
        assert place.told[1].startswith(
            "warning: after the training, 'bn_tied.weight', which stays at the site, is equal to 'embed.weight', which "
            "is shared: if both are one tensor of the model (tied weights), what the sites average of it is lost"
        )
        assert place.told[1].endswith("on purpose (a target network, an average of the weights), this is right")
        assert place.remarks == [Remark.FORGOTTEN, Remark.TIED], "for the operator, without a name"
        assert place.given(wire, None)["bn_tied.weight"][0] == 3

    def test_statistics_that_an_average_of_the_weights_copies_are_not_told(self, place):
        """As torch's `AveragedModel` does with buffers."""
        for round_ in (1, 2):
            mean = np.linspace(round_, 9, 16, dtype=np.float32)
            place.trained({"net.running_mean": mean, "ema.bn.running_mean": mean.copy(), "w": mean}, round_)
        assert [line for line in place.told if "equal" in line] == []

    def test_what_is_equal_by_chance_is_not_tied(self, place):
        """Fresh biases, counters, buffers that no training moves; tensors of the same beginning, or another shape."""
        codes = np.linspace(0, 1, 32, dtype=np.float32)
        for round_ in (1, 2, 3):
            alike = {f"{layer}.fresh": np.full(32, round_, np.float32) for layer in ("conv", "bn")}
            alike |= {f"{layer}.count": np.arange(12) * round_ for layer in ("conv", "bn")}
            alike |= {f"{layer}.codes": codes for layer in ("conv", "bn")}
            grown = np.arange(300, dtype=np.float32) * round_
            other = grown.copy()
            other[-1] += 1
            alike |= {"conv.grown": grown, "bn.grown": other, "bn.turned": grown.reshape(3, 100)}
            place.trained({name: array.copy() for name, array in alike.items()}, round_)
        assert place.told == []

    @pytest.mark.parametrize(
        ("sent", "reason"),
        [
            ({"conv.weight": np.ones(2, np.float32)}, "lacks the tensor 'head.bias'"),
            (model(own=1), "has the tensor 'bn.weight', which this site does not share"),
            ({**model(), "new": np.ones(2, np.float32)}, "has the tensor 'bn.weight'"),
        ],
    )
    def test_a_global_model_with_other_tensors_replaces_nothing(self, place, tmp_path, sent, reason):
        wire = place.trained(model(), 1)
        place.given(wire, 2)
        write(tmp_path / "sent.npz", Checkpoint(sent), Format.NPZ)
        to_safetensors(tmp_path / "sent.npz", tmp_path / "sent.safetensors")
        with pytest.raises(NotDivided, match=reason):
            place.given(tmp_path / "sent.safetensors", 2)
        assert read(place.folder / "global").tensors["bn.weight"][0] == OWN

    def test_a_damaged_file_is_named(self, place):
        wire = place.trained(model(), 1)
        kept = place.folder / "parts" / f"{'1' * 32}.safetensors"
        kept.write_bytes(kept.read_bytes()[:-1])
        with pytest.raises(CheckpointError, match=r"1\.safetensors: the tensors that only this site has"):
            place.given(wire, 2)

    def test_a_mask_may_hold_infinities_that_do_not_change(self, place):
        mask = {"bn.mask": np.array([0, -np.inf], np.float32)}
        place.trained(model(**mask), 1)
        place.trained(model(own=2, **mask), 2)
        with pytest.raises(NotDivided, match=r"bn\.mask"):
            place.trained(model(**{"bn.mask": np.array([-np.inf, 0], np.float32)}), 3)


@pytest.mark.parametrize(("pattern", "told"), [({"local": ["*bn*"]}, False), ({"share": ["head.*"]}, True)])
def test_a_base_that_the_script_trains_is_told_once(tmp_path, pattern, told):
    """`flavor get --whole` has the initial model's in its place."""
    write(tmp_path / "init.npz", Checkpoint(model(own=9)), Format.NPZ)
    to_safetensors(tmp_path / "init.npz", tmp_path / "whole")
    place = Place(tmp_path / "site", Parts(**pattern), initial=tmp_path / "whole")
    place.trained(model(own=9), 1)
    assert place.told == []
    for round_ in (2, 3):
        place.trained(model(own=round_), round_)
    expected = "warning: the script has trained 1 tensor that stays at this site (bn.weight): the run's operator has"
    assert [line[: len(expected)] for line in place.told] == [expected] * told


def test_normalisation_that_the_pattern_forgets_is_told_once(place):
    for round_ in (1, 2):
        place.trained({"bn.running_mean": np.ones(3), "down.1.running_mean": np.ones(3), "w": np.ones(3)}, round_)
    assert [line.rpartition("and ")[2] for line in place.told] == ["shares the statistics down.1.running_mean"]


def test_a_whole_model_is_the_initial_one_with_the_shared_tensors(tmp_path):
    for name, content in (
        ("init", model(own=9)),
        ("trained", model(own=1, **{"head.bias": np.full(5, 4.0, np.float32)})),
    ):
        write(tmp_path / name, Checkpoint(content), Format.NPZ)
    to_safetensors(tmp_path / "init", tmp_path / "whole")
    write_shared(tmp_path / "trained", tmp_path / "shared", BN)
    complete(tmp_path / "shared", tmp_path / "whole", tmp_path / "shared")
    made = load_file(tmp_path / "shared")
    assert TensorFile.open(tmp_path / "shared").names == tuple(model())
    assert (made["bn.weight"][0], made["head.bias"][0]) == (9, 4)
    write_shared(tmp_path / "trained", tmp_path / "head", Parts(share=["head.*"]))
    save_file({"other": np.ones(1, np.float32)}, tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"'head.bias' of the global model is not in the initial model"):
        complete(tmp_path / "head", tmp_path / "other", tmp_path / "made")
