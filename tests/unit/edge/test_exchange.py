"""What an edge puts before its trainer is what was recorded, or nothing new."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import queue
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flavor.atomic import replacing
from flavor.checkpoints import TensorFileWriter, TensorSpec, to_safetensors
from flavor.checkpoints.kinds import OPAQUE, TENSORS
from flavor.checkpoints.safetensors.header import plan
from flavor.checkpoints.site import OwnFiles
from flavor.edge.belongings import Habits
from flavor.edge.exchange import Exchange
from flavor.edge.transfers import Transfers
from flavor.edge.trust import ModelTrust
from flavor.edge.workspace import Workspace
from flavor.errors import BadObjectPath, CheckpointError, DigestMismatch, TransferStopped
from flavor.parts import Parts
from flavor.programs.finished_mark import mark_path, write_mark
from flavor.programs.own_variates import read_own_variates
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.store import digests
from flavor.store.open import open_store
from flavor.store.protocol import ObjectStore
from flavor.view.observer import Lines
from tests.lazy import Lazy
from tests.recorded import changed
from tests.recorded import global_model as model_at

torch = Lazy("torch")

BASIC = [f"basic/confusion_{kind}" for kind in ("tp", "fp", "fn", "tn")]


INFO = {
    "metadata": {"epoch": 1, "datasetSize": 5, "importance": 1.0},
    "metrics": {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")},
}


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.prepare(tmp_path / "edge", environment={}, input_path=tmp_path)


def put(store: ObjectStore, path: str, content: bytes) -> tuple[str, str]:
    digest = hashlib.sha256(content).hexdigest()
    with store.stage() as staged:
        staged.write_bytes(content)
        store.put(ObjectRef(path, digest), staged)
    return path, digest


def global_model(store: ObjectStore, weights: bytes, info: bytes, round_: int) -> GlobalModel:
    path, digest = put(store, f"runs/r/global/000{round_}-model.bin", weights)
    info_path, info_digest = put(store, f"runs/r/global/000{round_}-info.json", info)
    return model_at(path, digest, len(weights), info=(info_path, info_digest), format="opaque")


def test_merged_information_that_was_changed_is_refused_and_nothing_replaced(
    store: ObjectStore, workspace: Workspace
) -> None:
    exchange = Exchange(store, workspace, run="r", kind=OPAQUE)
    exchange.place_global(global_model(store, b"first", b"{}", 1))
    second = global_model(store, b"second", b'{"metadata": {}}', 2)
    other = store.local(second.info.path)
    other.chmod(0o644)
    other.write_bytes(b'{"metadata": []}')
    with pytest.raises(DigestMismatch, match=second.info.path):
        exchange.place_global(second)
    assert workspace.global_model.read_bytes() == b"first"
    assert all(path.read_bytes() == b"{}" for path in workspace.merged_infos)


def test_a_script_is_told_which_control_variates_its_site_keeps(
    store: ObjectStore, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each model replaces what was told with the one before, also one of a run that shares all."""
    monkeypatch.setenv("GLOBAL_MODEL_PATH", str(workspace.global_model))
    own = OwnFiles(tmp_path / "own", "1" * 32)
    exchange = Exchange(store, workspace, run="r", parts=Parts(share=["w"]), own=own)
    whole = {"w": np.ones(3), "u": np.ones(3), "scaffold_c__w": np.ones(3), "scaffold_c__u": np.ones(3)}
    np.savez(workspace.local_model.with_name("early.npz"), **whole)
    os.replace(workspace.local_model.with_name("early.npz"), workspace.local_model)
    exchange.learn_own()
    save_file({name: whole[name] for name in ("w", "scaffold_c__w")}, tmp_path / "w")
    to_safetensors(tmp_path / "w", tmp_path / "wire")
    content = (tmp_path / "wire").read_bytes()
    placed = put(store, "runs/r/global/0002-model.safetensors", content)
    exchange.place_global(model_at(*placed, len(content), format="npz"), round_=2)
    assert read_own_variates() == ["scaffold_c__u"]
    Exchange(store, workspace, run="r", kind=OPAQUE).place_global(global_model(store, b"first", b"{}", 1))
    assert read_own_variates() == []


@pytest.mark.parametrize(
    "odd",
    [
        {"digest": ""},
        {"info_digest": ""},
        {"path": "runs/s/global/0001-model.bin"},
        {"path": "runs/r/clients/a/0001-update.bin"},
        {"path": "runs/r/accepted/0001-a-update.bin"},
        {"path": "runs/r/global/a/model.bin"},
        {"info_path": "etc/private.json"},
    ],
)
def test_what_is_no_object_of_the_run_or_has_no_digest_is_not_read(
    store: ObjectStore, workspace: Workspace, odd: dict[str, str]
) -> None:
    if len(path := odd.get("path", "")):
        put(store, path, b"first")
    put(store, "etc/private.json", b"{}")
    with pytest.raises(BadObjectPath, match="is not read"):
        Exchange(store, workspace, run="r", kind=OPAQUE).place_global(
            changed(global_model(store, b"first", b"{}", 1), **odd)
        )
    assert not workspace.global_model.exists()


@pytest.mark.parametrize("format_", ["opaque", "npz", "safetensors"])
def test_a_seal_is_not_believed_where_aggregators_keys_are_named(
    store: ObjectStore, workspace: Workspace, tmp_path: Path, format_: str
) -> None:
    """Redis names a file of another's with its seal, and the digest of the model that an aggregator has signed."""
    honest, other = tmp_path / "honest", tmp_path / "other"
    for file, value in ((honest, 1), (other, 666)):
        with TensorFileWriter(file, [TensorSpec("w", np.dtype(np.float32), (3,))]) as writer:
            writer.write("w", np.full(3, value, np.float32))
    _, digest = put(store, "runs/r/global/0001-model.safetensors", honest.read_bytes())
    path, _ = put(store, "runs/r/global/0001-made-up.safetensors", other.read_bytes())
    model = model_at(path, digest, honest.stat().st_size, format=format_, seal=store.seal(path))
    trust = ModelTrust(frozenset({"ed25519:" + "0" * 64}))
    exchange = Exchange(store, workspace, run="r", kind=OPAQUE if format_ == "opaque" else TENSORS)
    with pytest.raises(DigestMismatch, match="made-up"):
        exchange.place_global(trust.named(model))
    assert not workspace.global_model.exists()
    assert [each.name for each in workspace.global_model.parent.iterdir() if "given" in each.name] == []
    named = trust.named(changed(model, path="runs/r/global/0001-model.safetensors"))
    exchange.place_global(named)
    assert workspace.global_model.exists()
    assert ModelTrust().named(model) == model


def test_what_is_renamed_over_a_model_while_it_is_hashed_reaches_no_trainer(
    store: ObjectStore, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that are hashed are those that are placed, whatever has the object's name by then."""
    model = global_model(store, b"first", b"{}", 1)
    place = store.local(model.model.path)
    other = store.local(put(store, "runs/r/clients/a/0001-update-x.bin", b"other")[0])
    hashed = digests.sha256_file

    def then_renamed(*words: object, **options: object) -> tuple[str, int]:
        found = hashed(*words, **options)  # type: ignore[arg-type]
        if other.exists():
            other.rename(place)
        return found

    monkeypatch.setattr(digests, "sha256_file", then_renamed)
    Exchange(store, workspace, run="r", kind=OPAQUE).place_global(model)
    assert place.read_bytes() == b"other"
    assert workspace.global_model.read_bytes() == b"first"


def as_global(store: ObjectStore, path: str) -> str:
    """The same bytes where rounds leave their models."""
    return put(store, f"runs/r/global/{path.rpartition('/')[2]}", store.local(path).read_bytes())[0]


def trained(workspace: Workspace, name: str = "w", write: bool = True) -> None:
    (workspace.local_info).write_text(json.dumps(INFO))
    if write:
        save_file({name: np.ones(3, np.float32)}, workspace.local_model)


def test_a_symbolic_link_is_followed_and_what_it_leads_to_is_left_alone(
    store: ObjectStore, workspace: Workspace, tmp_path: Path
) -> None:
    own = tmp_path / "best.safetensors"
    save_file({"w": np.ones(3, np.float32)}, own)
    own.chmod(0o640)
    before, content = own.stat(), own.read_bytes()
    workspace.local_model.symlink_to(own)
    trained(workspace, write=False)
    exchange = Exchange(store, workspace, run="r")
    done = exchange.collect("r", 1, "c")
    exchange.release_local()
    stored = store.local(done.object.path)
    assert not stored.is_symlink()
    assert stored.read_bytes() == content == own.read_bytes()
    assert (own.stat().st_mode, own.stat().st_nlink) == (before.st_mode, 1)


@pytest.mark.parametrize("opaque", [False, True])
def test_a_file_that_has_another_name_is_copied_and_keeps_its_mode(
    store: ObjectStore, workspace: Workspace, tmp_path: Path, opaque: bool
) -> None:
    own = tmp_path / "best.safetensors"
    save_file({"w": np.ones(3, np.float32)}, own)
    own.chmod(0o640)
    workspace.local_model.hardlink_to(own)
    trained(workspace, write=False)
    exchange = Exchange(store, workspace, run="r", kind=OPAQUE if opaque else TENSORS)
    done = exchange.collect("r", 1, "c")
    exchange.release_local()
    assert own.stat().st_mode & 0o777 == 0o640
    own.write_bytes(b"the next round's")
    assert store.local(done.object.path).read_bytes() != b"the next round's"


def test_the_edges_own_file_is_linked_and_not_copied(store: ObjectStore, workspace: Workspace) -> None:
    trained(workspace)
    inode = workspace.local_model.stat().st_ino
    done = Exchange(store, workspace, run="r").collect("r", 1, "c")
    assert store.local(done.object.path).stat().st_ino == inode


@pytest.mark.parametrize("compress", ["none", "bf16"])
def test_prefixes_are_taken_off_and_put_back_also_by_an_edge_that_is_started_again(
    store: ObjectStore, workspace: Workspace, compress: str
) -> None:
    habits: list[Habits] = []
    exchange = Exchange(store, workspace, run="r", bare=True, compress=compress, learned=habits.append)
    trained(workspace, "module._orig_mod.w")
    done = exchange.collect("r", 1, "c")
    assert list(load_file(store.local(done.object.path))) == ["w"]
    info_path, info_digest = put(store, "runs/r/global/0001-info.json", b"{}")
    path = as_global(store, done.object.path)
    model = model_at(path, done.object.digest, done.size_bytes, info=(info_path, info_digest), format="safetensors")
    again = Exchange(store, workspace, run="r", bare=True, compress=compress, habits=habits[-1])
    for each in (exchange, again):
        each.place_global(model)
        assert list(load_file(workspace.global_model)) == ["module._orig_mod.w"]
        trained(workspace, "module._orig_mod.w")
        assert each.collect("r", 2, "c").object.path
    assert len(habits) == 1


def test_a_site_keeps_its_own_format_and_nesting_whatever_the_run_declares(
    store: ObjectStore, workspace: Workspace, tmp_path: Path
) -> None:
    habits: list[Habits] = []
    trained(workspace, write=False)
    with workspace.local_model.open("wb") as file:
        np.savez(file, w=np.ones(3, np.float32))
    Exchange(store, workspace, run="r", learned=habits.append).collect("r", 1, "c")
    other = tmp_path / "other.safetensors"
    nesting = {"flavor.structure": '{"root":{"d":[["w",{"t":"w","as":"torch"}]]}}'}
    with TensorFileWriter(other, [TensorSpec("w", np.dtype(np.float32), (3,))], metadata=nesting) as file:
        file.write("w", np.ones(3, np.float32))
    path, digest = put(store, "runs/r/global/0001-model.safetensors", other.read_bytes())
    model = model_at(path, digest, other.stat().st_size, format="torch")
    Exchange(store, workspace, run="r", habits=habits[-1]).place_global(model)
    with np.load(workspace.global_model) as file:
        assert list(file) == ["w"]


def test_with_both_models_in_one_folder_the_merged_information_has_a_name_of_its_own(
    store: ObjectStore, tmp_path: Path
) -> None:
    paths = {"LOCAL_MODEL_PATH": str(tmp_path / "local.ckpt"), "GLOBAL_MODEL_PATH": str(tmp_path / "global.ckpt")}
    workspace = Workspace.prepare(tmp_path / "edge", environment=paths, input_path=tmp_path)
    trained(workspace)
    Exchange(store, workspace, run="r", kind=OPAQUE).place_global(global_model(store, b"g", b"{}", 1))
    assert (tmp_path / "merged-info.json").read_bytes() == b"{}"
    assert json.loads(workspace.local_info.read_text()) == INFO


def test_what_a_script_saved_beside_its_state_dict_stands_beside_the_global_model(
    store: ObjectStore, workspace: Workspace
) -> None:
    """Also for an edge that was started again in between; and no longer once the script saves no such thing."""
    said: list[str] = []
    info = {"metadata": {"epoch": 1, "datasetSize": 3, "importance": 1.0}, "metrics": dict.fromkeys(BASIC, -1)}
    model = None
    for round_, beside in enumerate(({"epoch": 7, "model": argparse.Namespace()}, {"epoch": 8}, {}), 1):
        exchange = Exchange(store, workspace, run="r", tell=said.append)
        exchange.place_global(model)
        if round_ > 1:
            loaded = torch.load(workspace.global_model, weights_only=True)
            assert {key: loaded[key] for key in set(loaded) - {"state_dict"}} == {"epoch": 5 + round_}
            assert loaded["state_dict"]["w"].tolist() == [round_ - 1.0]
        torch.save({"state_dict": {"w": torch.tensor([float(round_)])}, **beside}, workspace.local_model)
        workspace.local_info.write_text(json.dumps(info))
        done = exchange.collect("r", round_, "c")
        exchange.release_local()
        model = model_at(as_global(store, done.object.path), done.object.digest, done.size_bytes, format=done.format)
    Exchange(store, workspace, run="r").place_global(model)
    assert list(torch.load(workspace.global_model, weights_only=True)) == ["state_dict"]
    assert [line.split(" will")[0] for line in said] == ["the checkpoint's model"]


@pytest.mark.parametrize("format_", ["safetensors", "pickle", "made-up", ""])
def test_what_is_no_model_of_an_aggregators_reaches_no_trainer(
    store: ObjectStore, workspace: Workspace, format_: str
) -> None:
    """Whatever Redis says that it is: the trainer may open it with pickle.load, which runs what stands in it."""
    data = pickle.dumps({"state_dict": {}})
    path, digest = put(store, "runs/r/global/0001-model.safetensors", data)
    model = model_at(path, digest, len(data), format=format_)
    with pytest.raises(CheckpointError):
        Exchange(store, workspace, run="r").place_global(model)
    assert not workspace.global_model.exists()


def test_a_file_that_could_be_something_else_as_well_reaches_no_trainer(
    store: ObjectStore, workspace: Workspace, tmp_path: Path
) -> None:
    """A safetensors file whose length of the header is the beginning of a pickle's text."""
    text = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    text += b" " * (ord("X") - len(text))
    data = len(text).to_bytes(8, "little") + text + bytes(4)
    path, digest = put(store, "runs/r/global/0001-model.safetensors", data)
    assert load_file(store.local(path)).keys() == {"w"}
    model = model_at(path, digest, len(data), format="safetensors")
    with pytest.raises(CheckpointError, match="no file that an aggregator wrote"):
        Exchange(store, workspace, run="r").place_global(model)


def test_no_model_of_an_aggregators_begins_as_a_pickle_does() -> None:
    opcodes = {value[0] for value in vars(pickle).values() if isinstance(value, bytes) and len(value) == 1}
    for names in (1, 2, 3, 5, 9, 17, 40, 100, 1000):
        prefix, _ = plan([TensorSpec(f"t{i}", np.dtype(np.float32), (1,)) for i in range(names)], {}, "x")
        assert prefix[0] not in opcodes


def test_a_transfer_that_was_given_up_replaces_no_newer_model(store: ObjectStore, workspace: Workspace) -> None:
    """It hangs in the middle of round 1's model, the run goes on to round 2, and then it comes to its end."""
    inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
    transfers = Transfers(inbox, broken=lambda _: False, report=lambda *_: None, observer=Lines(print))
    go_on, at_it = threading.Event(), threading.Event()

    def place(mark: bytes, *, hang: bool = False) -> None:
        if hang:
            at_it.set()
            go_on.wait(60)
        with replacing(workspace.global_model) as file:
            file.write(mark)

    threading.Thread(target=lambda: at_it.wait(60) and inbox.put("round 2 is open")).start()
    with pytest.raises(TransferStopped):
        transfers.carry(lambda: place(b"old", hang=True), over=lambda _: True)
    threading.Timer(0.3, go_on.set).start()
    transfers.carry(lambda: place(b"new"), quick=True)
    assert go_on.is_set(), "the next one does not begin before it has ended"
    assert workspace.global_model.read_bytes() == b"new"


def test_a_site_that_has_saved_no_text_yet_finds_an_empty_one_and_is_told_once(
    store: ObjectStore, workspace: Workspace, tmp_path: Path
) -> None:
    """The text of the site that the model came from has not left it; its own comes back once it has saved it."""
    theirs = tmp_path / "theirs"
    theirs.write_bytes(pickle.dumps({"state_dict": {"w": np.ones(3, np.float32), "who": "MEIER", "all": ["MEIER"]}}))
    wire = to_safetensors(theirs, tmp_path / "wire")
    path, digest = put(store, "runs/r/global/0001-model.safetensors", (tmp_path / "wire").read_bytes())
    model = model_at(path, digest, wire.size_bytes, format="pickle", seal=store.seal(path))
    told: list[str] = []
    exchange = Exchange(store, workspace, run="r", tell=told.append)
    for _ in range(2):
        exchange.place_global(model)
        given = pickle.loads(workspace.global_model.read_bytes())["state_dict"]
        assert (given["who"], given["all"]) == ("", "")
    assert len(told) == 1
    assert "the model has a text at who, all:" in told[0]
    workspace.local_model.write_bytes(
        pickle.dumps({"state_dict": {"w": np.ones(3, np.float32), "who": "HUBER", "all": ["HUBER"]}})
    )
    workspace.local_info.write_text(json.dumps(INFO))
    sent = exchange.collect("r", 1, "a")
    assert b"HUBER" not in store.local(sent.object.path).read_bytes()
    exchange.place_global(model)
    given = pickle.loads(workspace.global_model.read_bytes())["state_dict"]
    assert (given["who"], given["all"]) == ("HUBER", ["HUBER"])
    assert len(told) == 1


def finished(workspace: Workspace, round_: int = 1) -> bool:
    return write_mark(workspace.local_model, workspace.global_model, round_)


@pytest.mark.parametrize("name", ["local_model", "local_info"])
@pytest.mark.parametrize("how", ["same size, same tick", "another file"])
def test_a_file_that_the_script_writes_after_it_set_the_event_is_refused(
    store: ObjectStore, workspace: Workspace, name: str, how: str
) -> None:
    trained(workspace)
    path: Path = getattr(workspace, name)
    ticked_ns = path.stat().st_mtime_ns
    assert finished(workspace)
    assert not finished(workspace)  # setting it twice is harmless: the first one counts
    content = path.read_bytes()
    if how == "another file":
        with replacing(path) as file:
            file.write(content)
    else:
        path.write_bytes(content)
        os.utime(path, ns=(ticked_ns, ticked_ns))
    with pytest.raises(CheckpointError, match=rf"the script wrote to \S+{path.name} after SetEvent\('TrainFinished'\)"):
        Exchange(store, workspace, run="r").collect("r", 1, "c")


@pytest.mark.parametrize("torn", [False, True])
def test_a_file_that_the_script_writes_while_it_is_read_is_refused(
    store: ObjectStore, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, torn: bool
) -> None:
    trained(workspace)
    finished(workspace)
    exchange = Exchange(store, workspace, run="r")
    reading = exchange._put

    def written(source: Path, prefix: str) -> tuple[ObjectRef, str]:
        if torn:
            source.write_bytes(source.read_bytes()[:20])
        put = reading(source, prefix)
        workspace.local_info.write_text(json.dumps(INFO))
        return put

    monkeypatch.setattr(exchange, "_put", written)
    with pytest.raises(CheckpointError, match=r"the script wrote to \S+ after SetEvent"):
        exchange.collect("r", 1, "c")


def test_only_a_mark_of_this_round_and_of_a_file_that_was_there_counts(
    store: ObjectStore, workspace: Workspace
) -> None:
    exchange = Exchange(store, workspace, run="r")
    assert finished(workspace)  # nothing is saved yet
    trained(workspace)
    exchange.collect("r", 1, "c")
    workspace.clear_local()
    trained(workspace)
    assert finished(workspace, 2)
    trained(workspace)
    exchange.collect("r", 3, "c")  # by a script with an older flavor.cook
    mark_path(workspace.local_model).write_text('{"round": 3, "model": 5}')
    exchange.collect("r", 3, "c")
    exchange.release_local()
    assert [path.name for path in workspace.local_model.parent.iterdir()] == ["info.json"]
