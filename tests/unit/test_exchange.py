"""What an edge puts before its trainer is what was recorded, or nothing new."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flavor.bus.state import GlobalModel
from flavor.edge.exchange import Exchange
from flavor.edge.workspace import Workspace
from flavor.errors import DigestMismatch
from flavor.store.objects import ObjectStore, open_store

BASIC = [f"basic/confusion_{kind}" for kind in ("tp", "fp", "fn", "tn")]


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
        store.put(path, staged, digest=digest)
    return path, digest


def global_model(store: ObjectStore, weights: bytes, info: bytes, round_: int) -> GlobalModel:
    path, digest = put(store, f"runs/r/rounds/{round_}/global/model.bin", weights)
    info_path, info_digest = put(store, f"runs/r/rounds/{round_}/global/info.json", info)
    return GlobalModel(path, digest, len(weights), info_path, "opaque", info_digest=info_digest)


def test_merged_information_that_was_changed_is_refused_and_nothing_replaced(
    store: ObjectStore, workspace: Workspace
) -> None:
    exchange = Exchange(store, workspace, opaque=True)
    exchange.place_global(global_model(store, b"first", b"{}", 1))
    second = global_model(store, b"second", b'{"metadata": {}}', 2)
    changed = store.local(second.info_path)
    changed.chmod(0o644)
    changed.write_bytes(b'{"metadata": []}')
    with pytest.raises(DigestMismatch, match=second.info_path):
        exchange.place_global(second)
    assert workspace.global_model.read_bytes() == b"first"
    assert workspace.global_info.read_bytes() == b"{}"
    exchange.place_global(replace(second, info_digest=""))  # of a run that an older release has begun
    assert workspace.global_model.read_bytes() == b"second"
    assert workspace.global_info.read_bytes() == b'{"metadata": []}'


def test_what_a_script_saved_beside_its_state_dict_stands_beside_the_global_model(
    store: ObjectStore, workspace: Workspace
) -> None:
    """Also for an edge that was started again in between; and no longer once the script saves no such thing."""
    said: list[str] = []
    info = {"metadata": {"epoch": 1, "datasetSize": 3, "importance": 1.0}, "metrics": dict.fromkeys(BASIC, -1)}
    model = None
    for round_, beside in enumerate(({"epoch": 7, "model": argparse.Namespace()}, {"epoch": 8}, {}), 1):
        exchange = Exchange(store, workspace, tell=said.append)
        exchange.place_global(model)
        if round_ > 1:
            loaded = torch.load(workspace.global_model, weights_only=True)
            assert {key: loaded[key] for key in set(loaded) - {"state_dict"}} == {"epoch": 5 + round_}
            assert loaded["state_dict"]["w"].tolist() == [round_ - 1.0]
        torch.save({"state_dict": {"w": torch.tensor([float(round_)])}, **beside}, workspace.local_model)
        workspace.local_info.write_text(json.dumps(info))
        done = exchange.collect("r", round_, "c")
        exchange.release_local()
        model = GlobalModel(done.path, done.digest, done.size_bytes, format=done.format)
    Exchange(store, workspace).place_global(model)
    assert list(torch.load(workspace.global_model, weights_only=True)) == ["state_dict"]
    assert [line.split(" will")[0] for line in said] == ["the checkpoint's model"]
