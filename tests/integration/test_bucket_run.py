"""Whole runs whose checkpoints travel through a bucket."""

from __future__ import annotations

import contextlib
import json
import os
import sys

import numpy as np
import pytest
from buckets import ACCESS_KEY, SECRET_KEY, Fault, proxied

from flavor.store.paths import round_of
from tests.faults.servers import filled, tmpfs

MIXED_TRAINER = """
import os, pickle
import torch
from safetensors.torch import load_file, save_file
from flavor.cook.utils import SaveInfoJson, SetEvent, WaitEvent

me = int(os.environ["FLAVOR_CLIENT"][-1])
read, write = {
    1: (lambda path: torch.load(path)["state_dict"], lambda state, path: torch.save({"state_dict": state}, path)),
    2: (
        lambda path: {k: torch.from_numpy(v.copy()) for k, v in pickle.load(open(path, "rb"))["state_dict"].items()},
        lambda state, path: pickle.dump({"state_dict": {k: v.numpy() for k, v in state.items()}}, open(path, "wb")),
    ),
    3: (load_file, save_file),
}[me]
confusion = dict.fromkeys(("basic/confusion_tp", "basic/confusion_fp", "basic/confusion_fn", "basic/confusion_tn"), -1)
state = {"w": torch.zeros(2, 3), "steps": torch.zeros(1, dtype=torch.int64)}
SetEvent("TrainInitDone")
for epoch in range(int(os.environ["TOTAL_ROUNDS"])):
    WaitEvent("TrainStarted")
    if os.path.exists(os.environ["GLOBAL_MODEL_PATH"]):
        state = read(os.environ["GLOBAL_MODEL_PATH"])
    state = {"w": state["w"] + me, "steps": state["steps"] + 6}
    write(state, os.environ["LOCAL_MODEL_PATH"])
    SaveInfoJson({"metadata": {"epoch": epoch, "datasetSize": 1, "importance": 1.0}, "metrics": confusion})
    SetEvent("TrainFinished")
"""


def nothing_secret(bench, *texts: str) -> None:
    for path in bench.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert SECRET_KEY.encode() not in content, path
            assert ACCESS_KEY.encode() not in content, path
    for key in bench.redis.scan_iter(match=f"flavor:*{bench.run}*"):
        dumped = bench.redis.hgetall(key) if bench.redis.type(key) == "hash" else ""
        texts = (*texts, str(dumped))
    for text in texts:
        assert SECRET_KEY not in text
        assert ACCESS_KEY not in text


def test_flavor_run_in_a_bucket_with_trainers_of_three_formats(bench, s3):
    bucket = s3.bucket()
    trainer = bench.work / "train.py"
    trainer.write_text(MIXED_TRAINER)
    words = [
        "--run",
        bench.run,
        "--out",
        bench.folder / "out",
        "--edges",
        3,
        "--rounds",
        3,
        "--keep-rounds",
        1,
        "--json",
    ]
    words += ["--store", f"s3://{bucket}/fed", "--store-cache", bench.folder / "cache", "--server-step", "nesterov"]
    words += ["--signed-urls"]  # the next test has sites with credentials
    process = bench.done(
        *("flavor", "run", "-m", f"{sys.executable} {trainer}", *words),
        env=s3.environment(),
        timeout_s=110,
        libraries=["torch._dynamo"],
    )
    assert process.wait() == 0, process.stderr + process.stdout
    results = json.loads(process.stdout)
    assert results["state"] == "finished"
    assert [each["clients"] for each in results["rounds"]] == [["edge-1", "edge-2", "edge-3"]] * 3
    from safetensors.numpy import load_file

    final = load_file(bench.folder / "out" / "global" / "round-0003.safetensors")
    assert final["steps"].tolist() == [18]
    assert np.isfinite(final["w"]).all()
    keys = s3.keys(bucket)
    prefix = f"fed/runs/{bench.run}"
    of_clients = [key for key in keys if "/clients/" in key]
    infos = [key for key in of_clients if "-info-" in key]
    assert len(infos) == 9, "what the sites reported stays"
    assert len(of_clients) == 9 + 6, "updates of the last two rounds"
    assert {round_of(key.removeprefix("fed/")) for key in of_clients if key not in infos} == {2, 3}
    for number in (1, 2, 3):
        of_round = [key.rsplit("/", 1)[1] for key in keys if key.startswith(f"{prefix}/global/{number:04d}-")]
        assert sorted(name.split("-")[1] for name in of_round) == ["info", "model", *(["state"] if number > 1 else [])]
    assert not [key for key in keys if "/." in key], "no upload was left half done"
    nothing_secret(bench, process.stderr, process.stdout)
    for number in (1, 2, 3):
        assert "signs lead to http" in (bench.folder / "out" / "logs" / f"edge-{number}.log").read_text()


def test_machines_with_caches_of_their_own_and_a_service_in_trouble(bench, s3):
    """The disk of one site is full of objects of earlier runs, though its cache may become larger."""
    with proxied(s3) as proxy, contextlib.ExitStack() as stack:
        bucket, full = s3.bucket(), None
        if os.geteuid() == 0:
            old = stack.enter_context(tmpfs(bench.folder / "disk", "1m")) / "cache-c1" / "objects" / "ff"
            old.mkdir(parents=True)
            full = filled(old)
            os.utime(full, (1, 1))
        shared = dict(s3.environment(proxy.address)) | {"FLAVOR_STORE": f"s3://{bucket}"}

        def machine(name: str) -> dict[str, str]:
            folder = bench.folder / ("disk" if name == "c1" else ".")
            return shared | {"FLAVOR_STORE_CACHE": str(folder / f"cache-{name}")}

        serve = ["--run", bench.run, "--rounds", 3, "--min-clients", 2, "--queue", bench.run]
        coordinator = bench.start("flavor", "serve", *serve, env=machine("serve"))
        worker = bench.start("flavor-agg", "--queue", bench.run, env=machine("agg"))
        worker.until("listens")
        proxy.faults = [
            Fault("^PUT .*/clients/c1/0001-", "500", 2),
            Fault("^GET .*/clients/[^/]+/0001-", "cut", 2),
            Fault("^PUT .*/global/0001-", "lost", 1),
            Fault("^HEAD .*/clients/[^/]+/0002-", "500", 2),
            Fault("^GET .*/global/0002-", "drop", 2),
        ]
        edges = [
            bench.edge(f"c{i}", bench.trainer("--format", format_), env=machine(f"c{i}"))
            for i, format_ in ((1, "pickle"), (2, "safetensors"))
        ]
        assert coordinator.wait(60) == 0, coordinator.stderr
        for edge in edges:
            assert edge.wait() == 0, edge.stderr
        assert full is None or not full.exists()
        assert all(fault.seen == fault.times for fault in proxy.faults), "each was met"
    closed = [entry for entry in bench.log() if entry["event"] == "round.closed"]
    assert len(closed) == 3
    model = bench.runs.read().global_model
    assert model is not None
    path = bench.folder / "cache-agg" / "objects" / model.model.digest[:2] / model.model.digest
    from safetensors.numpy import load_file

    for array in load_file(path).values():
        np.testing.assert_allclose(array, 3 * (10 * 1 + 20 * 2) / 30, rtol=1e-6)
    nothing_secret(bench, coordinator.stderr, worker.stderr, *(edge.stderr + edge.stdout for edge in edges))


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "s3://"),
        ({}, "no such bucket"),
    ],
)
def test_a_bucket_that_is_not_there_is_one_line_at_the_start(bench, s3, env, said):
    words = ["--run", bench.run, "--rounds", 1, "--store", "s3://never-made/x"]
    process = bench.done(
        "flavor", "serve", *words, env={**s3.environment(), **env, "AWS_EC2_METADATA_DISABLED": "true"}
    )
    assert process.wait() in (1, 2)
    assert len(process.stderr.strip().splitlines()) == 1
    assert said in process.stderr
    nothing_secret(bench, process.stderr)
