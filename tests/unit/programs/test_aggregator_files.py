"""The files of a round of a user's aggregator, laid out by flavor-agg and by check-agg, and how it is told of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flavor.check.round_files import CLIENTS, CheckedFiles
from flavor.errors import AggregatorFailed
from flavor.programs.aggregator_files import RoundFiles
from flavor.programs.aggregator_paths import read_paths

INFO = {"metadata": {"epoch": 1, "datasetSize": 5, "importance": 1.0}, "metrics": {"basic/confusion_tp": 1}}


def test_an_info_lies_beside_each_model(tmp_path: Path) -> None:
    files = RoundFiles.below(tmp_path, ["b", "a"], extension=".npz")
    files.write_local_info(0, INFO)
    files.write_global_info({"metadata": {}, "metrics": {"m": 1}})
    assert files.local_models == (tmp_path / "clients/b/model.npz", tmp_path / "clients/a/model.npz")
    assert json.loads((tmp_path / "clients/b/info.json").read_text()) == INFO
    assert not (tmp_path / "clients/a").exists()
    assert json.loads((tmp_path / "global/info.json").read_text())["metrics"] == {"m": 1}
    assert not files.global_model.exists()


def test_the_aggregator_is_told_of_each_file(tmp_path: Path) -> None:
    files = RoundFiles.below(tmp_path / "round", ["b", "a"], extension=".ckpt")
    files.announce(tmp_path / "output")
    told = {kind: read_paths(tmp_path / "output", kind) for kind in ("localModels", "localInfos", "globalModel")}
    assert told == {
        "localModels": [str(path) for path in files.local_models],
        "localInfos": [str(path) for path in files.local_infos],
        "globalModel": [str(files.global_model)],
    }
    assert (tmp_path / "output/globalInfo").read_text() == f"{files.global_info}\n"


def test_a_link_that_the_aggregator_left_is_replaced_and_a_folder_refused(tmp_path: Path) -> None:
    files = RoundFiles.below(tmp_path / "round", ["a"], extension=".ckpt")
    output, other = tmp_path / "output", tmp_path / "other"
    output.mkdir()
    other.write_text("ours")
    (output / "localModels").symlink_to(other)
    files.announce(output)
    assert other.read_text() == "ours"
    assert not (output / "localModels").is_symlink()
    (output / "globalModel").unlink()
    (output / "globalModel").mkdir()
    with pytest.raises(AggregatorFailed, match=r"left a folder at .*globalModel"):
        files.announce(output)


def test_a_check_lays_the_same_files_out_again_with_one_model_changed(tmp_path: Path) -> None:
    def writer(text: str):
        return lambda path: path.write_text(text)

    first = CheckedFiles.lay_out(tmp_path / "1", [writer(name) for name in CLIENTS], INFO, extension=".ckpt")
    again = first.again(tmp_path / "2", {1: writer("changed")}, [1, 2, 3])
    assert [path.read_text() for path in again.local_models] == [CLIENTS[0], "changed", CLIENTS[2]]
    assert again.local_models[0] == first.local_models[0]
    assert json.loads(again.local_infos[1].read_text())["metadata"]["datasetSize"] == 2
    assert again.global_model == tmp_path / "2/global/model.ckpt"
    (tmp_path / "1").rename(tmp_path / "finished")
    moved = first.moved(tmp_path / "1", tmp_path / "finished")
    assert [path.read_text() for path in moved.local_models] == list(CLIENTS)
