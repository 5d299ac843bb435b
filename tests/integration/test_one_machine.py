"""Sites on one machine: no text of one reaches another, and no two share the files of a model."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Bench

SCRIPT = """
import collections, os, pickle, sys, zipfile
from pathlib import Path
import numpy as np
from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

MARK = f"MEIER-{os.environ['FLAVOR_CLIENT']}"


class Estimator:
    pass


Estimator.__qualname__ = Estimator.__name__ = MARK.replace("-", "_")
globals()[Estimator.__name__] = Estimator
output, local = Path(os.environ["OUTPUT_PATH"]), Path(os.environ["LOCAL_MODEL_PATH"])
got = open(output / "got", "wb")
print(MARK, flush=True)
print(MARK, file=sys.stderr, flush=True)
SetEvent("TrainInitDone")
for round_ in range(int(os.environ["TOTAL_ROUNDS"])):
    WaitEvent("TrainStarted")
    if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):
        pickle.dump(pickle.load(open(os.environ["GLOBAL_MODEL_PATH"], "rb")), got)
        got.flush()
    state = collections.OrderedDict(
        w=np.full(4, round_, np.float32),
        who=MARK,
        columns=["age", MARK],
        labels={MARK: None, "C50.9": (MARK, None)},
        deep=[{"v": np.ones(2, np.float32), "unit": MARK}],
    )
    state._metadata = {MARK: MARK}
    local.write_bytes(pickle.dumps({"state_dict": state, MARK: MARK, "note": [MARK], "est": Estimator()}))
    for folder in (local.parent, output):
        (folder / f"{MARK}.csv").write_text(MARK)
    SaveInfoJson({"metadata": {"epoch": round_, "datasetSize": 5, "importance": 1.0, "note": f"OF-{MARK}"},
                  "metrics": {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")}})
    SetEvent("TrainFinished")
"""
SITES = ("site-1", "site-2")


def holding(folder: Path, mark: str) -> list[str]:
    """The files in which it stands."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if mark.encode() in path.read_bytes() or mark in path.name]


def test_what_a_site_writes_beside_numbers_is_found_nowhere_else(bench: Bench) -> None:
    """Of what the script writes wherever it can, the names of tensors and its own info.json leave the site."""
    script = bench.folder / "main.py"
    script.write_text(SCRIPT)
    server = bench.serve(rounds=2)
    bench.aggregator()
    edges = {site: bench.edge(site, f"{sys.executable} {script}") for site in SITES}
    for edge in edges.values():
        assert edge.wait() == 0, edge.stderr
    assert server.wait() == 0, server.stderr
    stored = holding(Path(str(bench.store).removeprefix("file://")), "MEIER")
    assert stored
    for path in stored:
        assert "-info-" in path, "info.json, for the aggregators"
        assert "/global/" not in path
    for key in bench.redis.scan_iter(count=1000):
        assert b"MEIER" not in (bench.redis.dump(key) or b""), key
    for site, other in (SITES, SITES[::-1]):
        assert holding(bench.folder / site, f"MEIER-{site}")
        assert not holding(bench.folder / site, f"MEIER-{other}")
        with (bench.folder / site / "output" / "got").open("rb") as file:
            back = pickle.load(file)["state_dict"]
        mark = f"MEIER-{site}"
        assert (back["who"], back["columns"]) == (mark, ["age", mark])
        assert back["labels"] == {mark: None, "C50.9": (mark, None)}
        assert np.array_equal(back["deep"][0]["v"], np.ones(2))
    for format_ in ("pickle", "safetensors"):
        target = bench.folder / f"final.{format_}"
        got = bench.done("flavor", "get", bench.run, "--store", bench.store, "--format", format_, "-o", target)
        assert got.wait() == 0, got.stderr
        assert b"MEIER" not in target.read_bytes()


@pytest.fixture
def shared(bench: Bench) -> dict[str, str]:
    """Paths as a shell exports them to every edge that is started from it."""
    names = {"LOCAL_MODEL_PATH": "local.ckpt", "GLOBAL_MODEL_PATH": "global.ckpt", "OUTPUT_PATH": "out"}
    return {name: str(bench.folder / "x" / file) for name, file in names.items()}


def test_a_second_edge_with_the_same_paths_is_refused_until_the_first_is_gone(
    bench: Bench, shared: dict[str, str]
) -> None:
    bench.serve("--on-quorum-lost", "wait", rounds=2)
    bench.aggregator()
    first = bench.edge("site-1", bench.trainer("--hold", "--at", 0), env=shared)
    bench.held("site-1")
    said = next(line for line in first.stderr.splitlines() if "taken from the environment: " in line)
    for name, path in shared.items():
        assert f"{name}={path}" in said
    second = bench.edge("site-2", bench.trainer(), env=shared)
    assert second.wait() == 2, second.stderr
    refusal = second.stderr.splitlines()[-1]
    assert f"LOCAL_MODEL_PATH {shared['LOCAL_MODEL_PATH']}: " in refusal
    assert f"client 'site-1' of run '{bench.run}' has it (pid {first.pid})" in refusal
    assert "unset LOCAL_MODEL_PATH" in refusal
    third = bench.edge("site-2", bench.trainer(), "--workspace", bench.folder / "site-1")
    assert third.wait() == 2
    assert "name another --workspace" in third.stderr
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    bench.edge("site-2", bench.trainer("--hold", "--at", 0), env=shared)
    bench.held("site-2")


def test_of_two_runs_on_one_machine_the_second_is_refused_the_paths_of_the_first(
    bench: Bench, shared: dict[str, str]
) -> None:
    bench.serve("--on-quorum-lost", "wait", clients=1)
    bench.aggregator()
    first = bench.edge("site-1", bench.trainer("--hold", "--at", 1), env=shared)
    bench.held("site-1")
    other = ("--run", f"{bench.run}-2")
    bench.serve(*other, "--on-quorum-lost", "wait", clients=1)
    second = bench.edge("site-1", bench.trainer(), *other, env={**shared, "FLAVOR_WORKSPACE": ""})
    assert second.wait() == 2, second.stderr
    assert f"client 'site-1' of run '{bench.run}' has it (pid {first.pid})" in second.stderr
    bench.release("site-1")
    assert first.wait() == 0, first.stderr
