"""A run whose sites save folders of shards, each split in another way."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.conftest import Bench

SCRIPT = """
import json, os, sys
from pathlib import Path
import numpy as np
from safetensors.numpy import load_file, save_file
from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

number, *shards = json.loads(sys.argv[1])
INDEX = "model.safetensors.index.json"
COUNTS = dict.fromkeys((f"basic/confusion_{which}" for which in ("tp", "fp", "fn", "tn")), -1)
local, given = Path(os.environ["LOCAL_MODEL_PATH"]), Path(os.environ["GLOBAL_MODEL_PATH"])
SetEvent("TrainInitDone")
for _ in range(int(os.environ["TOTAL_ROUNDS"])):
    round_ = WaitEvent("TrainStarted")
    shard_of = json.loads((given / INDEX).read_text())["weight_map"]
    model = {name: load_file(given / shard)[name] + number for name, shard in shard_of.items()}
    if round_ > 1:
        assert (given / "config.json").read_text() == f"{number}", "its own file is beside the model"
        assert sorted(set(shard_of.values())) == [f"model-{n}.safetensors" for n in range(len(shards))], "its own split"
    local.mkdir(exist_ok=True)
    assert not list(local.glob("*.safetensors*")), "what was handed in is gone"
    shard_of = {}
    for at, names in enumerate(shards):
        save_file({name: model[name] for name in names}, local / f"model-{at}.safetensors", metadata={"format": "pt"})
        shard_of |= dict.fromkeys(names, f"model-{at}.safetensors")
    total = sum(each.nbytes for each in model.values())
    if number == 4:
        del shard_of["w"]
    (local / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": shard_of}))
    (local / "config.json").write_text(str(number))
    SaveInfoJson({"metadata": {"epoch": round_, "datasetSize": 10, "importance": 1.0}, "metrics": COUNTS})
    SetEvent("TrainFinished")
"""
SPLITS = {1: [["w"], ["b", "c"]], 2: [["c"], ["b"], ["w"]], 4: [["w", "b"], ["c"]]}


def test_sites_that_split_their_model_differently_train_one(bench: Bench, subtests) -> None:
    bench.folder.mkdir(parents=True, exist_ok=True)
    script = bench.folder / "script.py"
    script.write_text(SCRIPT)
    began = bench.folder / "began"
    began.mkdir()
    save_file({"w": np.zeros((3, 2), np.float32), "b": np.ones(4, np.float32)}, began / "model-0.safetensors")
    save_file({"c": np.full(2, 5, np.float16)}, began / "model-1.safetensors")
    shard_of = {"w": "model-0.safetensors", "b": "model-0.safetensors", "c": "model-1.safetensors"}
    (began / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shard_of}))

    serve = bench.serve("--init-model", began, "--quorum", 2, "--min-clients", 3, rounds=2, clients=3)
    bench.aggregator()
    edges = {
        number: bench.edge(
            f"c{number}",
            f"{sys.executable} {script} '{json.dumps([number, *split])}'",
            "--format",
            "sharded",
        )
        for number, split in SPLITS.items()
    }
    assert serve.wait() == 0, serve.stderr
    for number in (1, 2):
        assert edges[number].wait() == 0, edges[number].stderr
        with subtests.test("the folder at the end", client=number):
            given = bench.folder / f"c{number}" / "global" / "model"
            index = json.loads((given / "model.safetensors.index.json").read_text())["weight_map"]
            assert set(index.values()) == {f"model-{at}.safetensors" for at in range(len(SPLITS[number]))}
            model = {name: load_file(given / shard)[name] for name, shard in index.items()}
            assert model["w"].tolist() == np.full((3, 2), 3.0).tolist(), "two rounds of (1 + 2) / 2"
            assert model["b"].tolist() == [4.0] * 4
            assert model["c"].tolist() == [8.0] * 2
            assert model["c"].dtype == np.float16
    with subtests.test("an index that does not fit its shards"):
        edges[4].wait()
        said = "model.safetensors.index.json: tensor 'w' is in model-0.safetensors, and the index does not name it"
        assert said in edges[4].stderr
    with subtests.test("no file of a site's own is in the store"):
        names = [path.name for path in Path(bench.store).rglob("*") if path.is_file()]
        assert not any("config" in name or "index" in name for name in names)
