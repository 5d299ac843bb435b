"""The initial model of a run that shares a part of it: its shared tensors, and the whole file beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flavor.checkpoints import TensorFile
from flavor.checkpoints.kinds import TENSORS
from flavor.config import RunConfig
from flavor.coordinator.initial_model import check_beginning, store_for_sites, store_initial
from flavor.edge.trust import ModelTrust
from flavor.edge.whole_model import WholeModel
from flavor.errors import InvalidSetting, RunExists, UntrustedModel
from flavor.ledger.archive import Archive
from flavor.ledger.keys import SigningKey
from flavor.ledger.manifest import Model, RunRecord
from flavor.parts import Parts
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.results.whole_model import make_whole, why_not_whole
from flavor.store.digests import copy_of
from flavor.store.local import LocalStore

BN = Parts(local=["*bn*"])
TENSORS_OF = {"w": np.arange(5, dtype=np.float32), "bn.w": np.ones(3, np.float32), "b": np.zeros(1, np.float32)}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", create=True)


@pytest.fixture
def init(tmp_path: Path) -> Path:
    np.savez(tmp_path / "init.npz", **TENSORS_OF)
    return tmp_path / "init.npz"


def view(parts: Parts = BN, **fields: object) -> RunView:
    config = {"rounds": 1, "store": "-", "share": list(parts.share), "local": list(parts.local)}
    return RunView("r", RunState.RUNNING, 0, 1, config, "", None, 0, None, run_id="1" * 32, **fields)


def names(store: LocalStore, ref) -> tuple[str, ...]:
    return TensorFile.open(store.open(ref)).names


def test_the_shared_tensors_and_the_whole_file(store: LocalStore, init: Path) -> None:
    told: list[str] = []
    model = store_initial(store, "r", init, TENSORS, parts=BN, tell=told.append)
    assert names(store, model.model) == ("w", "b")
    assert model.whole is not None
    assert names(store, model.whole) == tuple(TENSORS_OF)
    assert (model.tensors, model.format) == (2, "npz")
    assert told[0].startswith(f"2 of 3 tensors of --init-model {init} are shared, ")
    assert store_initial(store, "r", init, TENSORS).whole is None


@pytest.mark.parametrize("parts", [Parts(local=["bm*"]), Parts(share=["*"]), Parts(local=["*"])])
def test_patterns_that_do_not_divide_it(store: LocalStore, init: Path, parts: Parts) -> None:
    with pytest.raises(InvalidSetting, match=r"--init-model .*init\.npz: --(share|local) '.*' (matches|shares) "):
        store_initial(store, "r", init, TENSORS, parts=parts)
    assert not store.list("runs/r/global/")


def test_a_run_that_began_from_other_own_tensors_began_from_another_model(store, init, tmp_path) -> None:
    model = store_initial(store, "r", init, TENSORS, parts=BN)
    archive = Archive(store, "r")
    config = RunConfig(rounds=1, store="-").to_mapping()
    record = RunRecord(run="r", run_id="1" * 32, rounds=1, config=config, initial=Model.of(model))
    assert RunRecord.parse(record.to_bytes(), "x") == record
    archive.begin(record)
    check_beginning(archive, model)
    np.savez(tmp_path / "other.npz", **{**TENSORS_OF, "bn.w": np.zeros(3, np.float32)})
    with pytest.raises(RunExists, match="from another model"):
        check_beginning(archive, store_initial(store, "r", tmp_path / "other.npz", TENSORS, parts=BN))


class TestOutsideOfTheSites:
    """A model that sites are to judge, and a whole model for the operator."""

    def test_of_a_model_to_be_judged_the_shared_tensors_are_sent(self, store, init, tmp_path) -> None:
        run = view()
        record = RunRecord(run="r", run_id=run.run_id, rounds=1, config=dict(run.config))
        Archive(store, "r").begin(record)
        assert names(store, store_for_sites(store, run, init, TENSORS, what="--model").model) == ("w", "b")
        part = {name: array for name, array in TENSORS_OF.items() if "bn" not in name}
        np.savez(tmp_path / "part.npz", **part)
        assert names(store, store_for_sites(store, run, tmp_path / "part.npz", TENSORS, what="--model").model) == tuple(
            part
        )
        np.savez(tmp_path / "none.npz", **{"bn.w": np.ones(3)})
        with pytest.raises(InvalidSetting, match=r"--model .*none\.npz: --local '\*bn\*' shares none of 1 tensor"):
            store_for_sites(store, run, tmp_path / "none.npz", TENSORS, what="--model")

    def test_a_whole_model_needs_the_initial_one(self, store, init, tmp_path) -> None:
        model = store_initial(store, "r", init, TENSORS, parts=BN)
        path = tmp_path / "model.safetensors"
        for run, expected in ((view(whole=model.whole), tuple(TENSORS_OF)), (view(Parts()), ("w", "b"))):
            copy_of(store, model.model, path)
            assert not why_not_whole(run)
            make_whole(run, store, path)
            assert TensorFile.open(path).names == expected
            path.unlink()
        assert "began without --init-model, so that only its sites have the other tensors" in why_not_whole(view())


class TestAtTheSite:
    """The whole file is fetched once, by its digest, if the site trusts it."""

    def test_it_is_fetched_once_and_again_only_if_it_was_damaged(self, store, init, tmp_path) -> None:
        ref = store_initial(store, "r", init, TENSORS, parts=BN).whole
        assert ref is not None
        fetched: list[int] = []

        def file() -> Path:
            return WholeModel(store, ref, "r", tmp_path / "parts", fetched.append)()

        first = file()
        assert TensorFile.open(first).names == tuple(TENSORS_OF)
        assert file() == first
        assert fetched == [ref.size_bytes]
        first.write_bytes(first.read_bytes()[:-1] + b"x")
        assert file().read_bytes() == store.open(ref).read_bytes()
        assert fetched == [ref.size_bytes] * 2
        assert [path.name for path in (tmp_path / "parts").iterdir()] == [first.name], "no other file is left"

    def test_a_site_that_trusts_keys_names_it(self, store, init) -> None:
        ref = store_initial(store, "r", init, TENSORS, parts=BN).whole
        assert ref is not None
        key = str(SigningKey.generate().public)
        ModelTrust().check_whole(ref)
        ModelTrust.parse([key, f"sha256:{ref.digest}"]).check_whole(ref)
        with pytest.raises(UntrustedModel, match=f"start the site with --trust sha256:{ref.digest} as well"):
            ModelTrust.parse([key, f"sha256:{'0' * 64}"]).check_whole(ref)


def test_a_kind_that_is_not_divided_is_refused_by_the_options() -> None:
    with pytest.raises(InvalidSetting, match=r"--share 'a' --local 'b' names tensors, and opaque checkpoints are not"):
        RunConfig.parse({"rounds": 1, "store": "-", "checkpoint": "opaque", "share": ["a"], "local": ["b"]})
    with pytest.raises(InvalidSetting, match="an empty pattern matches no tensor"):
        RunConfig.parse({"rounds": 1, "store": "-", "share": [" "]})
    assert not RunConfig.parse({"rounds": 1, "store": "-"}).parts
