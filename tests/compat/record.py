"""Record a run of this release half way: its Redis, its store and its sites, for later releases to finish.

    python tests/compat/record.py NAME

writes `tests/compat/NAME.tar.xz`. A release records itself once, before the next one changes anything; `test_compat.py`
then lets the newest code finish the run. Two sites have closed rounds 1 and 2 of 4, with a server step that remembers;
in round 3 the first has handed in and was accepted, the second still trains. All processes were killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from buckets import S3  # noqa: E402
from conftest import TRAINER, Bench  # noqa: E402

from flavor.bus.embedded import embedded_server  # noqa: E402

ROUNDS = 4
RUN = BUCKET = "recorded"
COMMAND = f"python {TRAINER.name}"
OPTIONS = ("--on-quorum-lost", "wait", "--server-step", "adam:lr=0.1", "--max-dataset-size", "100000")


def record(name: str) -> None:
    """Write the archive."""
    s3 = S3()
    with tempfile.TemporaryDirectory() as text, tarfile.open(HERE / f"{name}.tar.xz", "w:xz") as archive:
        folder = Path(text)
        (folder / "redis").mkdir()
        with embedded_server(folder=folder / "redis") as url:
            bench = in_bucket(Bench(url, folder, RUN), s3, BUCKET)
            try:
                at_half(bench)
                facts = {"run_id": bench.runs.read().run_id, "log": bench.log(), "options": OPTIONS, "rounds": ROUNDS}
                bench.redis.save()
            finally:
                bench.close()
        for key in s3.keys(BUCKET):
            file = folder / "bucket" / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(s3.read(BUCKET, key))
        facts["model_digest"] = expected(folder / "fresh", s3)
        (folder / "facts.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        for part in ("facts.json", "redis/dump.rdb", "bucket", "c1", "c2"):
            archive.add(folder / part, part, filter=anonymous)
    s3.close()


def in_bucket(bench: Bench, s3: S3, bucket: str) -> Bench:
    """The bench, with this bucket as its store."""
    os.environ |= s3.environment()
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shutil.copy(TRAINER, bench.work)
    bench.store = f"s3://{s3.bucket(bucket)}/flavor"  # type: ignore[assignment]
    return bench


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """The entry without who made it; no pipes and no sockets."""
    if not (entry.isfile() or entry.isdir()):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def at_half(bench: Bench) -> None:
    """Run two rounds, and half of the third; kill everything."""
    cache = {"FLAVOR_STORE_CACHE": str(bench.folder / "cache")}
    coordinator = bench.serve(*OPTIONS, rounds=ROUNDS, env=cache)
    aggregator = bench.aggregator(env=cache)
    edges = [bench.edge("c1", COMMAND, env=cache), bench.edge("c2", f"{COMMAND} --hold --at 3", env=cache)]
    bench.held("c2")
    bench.logged("update.accepted", client="c1", round=3)
    for process in (coordinator, aggregator, *edges):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pid in bench.survivors():
        os.kill(pid, signal.SIGKILL)


def expected(folder: Path, s3: S3) -> str:
    """What this release itself makes of the same run, uninterrupted: the digest of its last global model."""
    with embedded_server() as url:
        bench = in_bucket(Bench(url, folder), s3, "")
        try:
            cache = {"FLAVOR_STORE_CACHE": str(folder / "cache")}
            parts = [bench.serve(*OPTIONS, rounds=ROUNDS, env=cache)]
            parts += [bench.edge(client, COMMAND, env=cache) for client in ("c1", "c2")]
            bench.aggregator(env=cache)
            assert [part.wait() for part in parts] == [0, 0, 0], [part.stderr for part in parts]
            return bench.runs.read().global_model.model.digest
        finally:
            bench.close()


if __name__ == "__main__":
    record(sys.argv[1])
