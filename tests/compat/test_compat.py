"""Runs that an earlier release began, from their Redis and their store as they were: this release finishes them."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from flavor.bus.embedded import embedded_server
from flavor.view.history import History, Source
from tests.conftest import TRAINER

RECORDED = sorted(Path(__file__).parent.glob("*.tar.xz"))
"""Each written by `record.py` of the release of that day; 2026-12-01 is 0.1.0."""


@pytest.mark.parametrize("archive", RECORDED, ids=lambda path: path.name.split(".")[0])
def test_a_run_of_an_earlier_release_goes_on_and_ends_as_that_release_would_end_it(archive, tmp_path, bench_at, s3):
    """The last model is the same bit for bit, no site trains a round again that counted, and every record stands."""
    with tarfile.open(archive) as parts:
        parts.extractall(tmp_path / "bench", filter="data")
    facts = json.loads((tmp_path / "bench" / "facts.json").read_text(encoding="utf-8"))
    s3.bucket("recorded")
    objects = tmp_path / "bench" / "bucket"
    for file in sorted(objects.rglob("*")):
        if file.is_file():
            s3.overwrite("recorded", str(file.relative_to(objects)), file.read_bytes())
    env = {**s3.environment(), "FLAVOR_STORE_CACHE": str(tmp_path / "cache")}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with embedded_server(folder=tmp_path / "bench" / "redis") as url:
        bench = bench_at(url, "recorded")
        shutil.copy(TRAINER, bench.work)
        bench.store = "s3://recorded/flavor"
        before = bench.log()
        assert before == facts["log"]
        assert (bench.runs.read().run_id, bench.runs.read().round) == (facts["run_id"], 3)
        coordinator = bench.serve(*facts["options"], rounds=facts["rounds"], env=env)
        bench.aggregator(env=env)
        parts = [coordinator, *(bench.edge(client, f"python {TRAINER.name}", env=env) for client in ("c1", "c2"))]
        assert [part.wait() for part in parts] == [0, 0, 0], [part.stderr for part in parts]
        view, log = bench.runs.read(), bench.log()
        assert (view.state, view.round, view.global_model.model.digest) == ("finished", 4, facts["model_digest"])
        assert log[: len(before)] == before
        accepted = [(entry["round"], entry["client"]) for entry in log if entry["event"] == "update.accepted"]
        assert sorted(accepted) == [(str(round_), client) for round_ in range(1, 5) for client in ("c1", "c2")]
        history = History(bench.runs, None)
        has_summaries = not archive.name.startswith("2026-11-29")
        sources = [Source.SUMMARY if has_summaries else Source.ROUND] * 2 + [Source.SUMMARY, Source.SUMMARY]
        assert [(row.source, row.contributors) for row in history.strip()] == [(source, 2) for source in sources]
        half = {each.client: bool(each.phases) for each in history.timeline(3).clients}
        assert half == {"c1": has_summaries, "c2": True}, "that release has accepted c1"
        verified = bench.done("flavor", "verify", bench.run, "--store", bench.store, env=env)
        assert verified.wait() == 0, verified.stdout + verified.stderr
        assert "4 rounds" in verified.stdout
