"""Rows 46 and 47: slow links, uploads that are cut, and who hears what meanwhile."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import networks
import pytest
from buckets import ACCESS_KEY, SECRET_KEY, Fault, proxied

from tests.faults.federation import MISSED
from tests.faults.servers import Server, free_port

LARGE = ("--elements", 5_000_000)
"""Four parts."""
HEARD_S = 10.0
"""Two seconds, on a machine that has other things to do: the edge ends what moves, and waits for nothing."""
SOON_S = 25.0
"""Far less than a store is waited for, on a machine that has other things to do."""
BYTES_S = int(os.environ.get("FLAVOR_TEST_LINK_BYTES_S", "80000"))
ELEMENTS = int(os.environ.get("FLAVOR_TEST_LINK_ELEMENTS", "400000"))
"""Numbers of four bytes; 6291456 make the 24 MiB of the table."""
STORE = """
import sys
from moto.s3.models import s3_backends
from moto.server import main
s3_backends["123456789012"]["aws"].create_bucket("bucket", "us-east-1")
main(["-H", "0.0.0.0", "-p", sys.argv[1]])
"""
"""An S3 service with one bucket."""
TIMEOUT_S = 90 + 6 * ELEMENTS / BYTES_S


@pytest.fixture
def network():
    if why := networks.why_not():
        pytest.skip(why)
    if shutil.which("tc") is None:
        pytest.skip("no tc here: install iproute2")
    made = networks.Network()
    yield made
    made.close()


@pytest.fixture
def upload(bench, s3):
    """A run of one site whose upload hangs at its third part; what there is to start and to ask."""
    with proxied(s3) as proxy:
        yield Upload(bench, s3, proxy)


class Upload:
    def __init__(self, bench, s3, proxy) -> None:
        self.bench, self.proxy, self.bucket = bench, proxy, s3.bucket()
        self.env = dict(s3.environment(proxy.address)) | {"FLAVOR_STORE": f"s3://{self.bucket}/f"}
        self.hang = Fault(self.part(3), "hang")
        proxy.faults = [self.hang]
        words = ["--run", bench.run, "--rounds", 1, "--min-clients", 1, "--queue", bench.run]
        self.coordinator = bench.start("flavor", "serve", *words, *MISSED, env=self.env)
        bench.start("flavor-agg", "--queue", bench.run, env=self.env).until("listens")

    def edge(self):
        return self.bench.edge("c1", self.bench.trainer(*LARGE), env=self.env)

    def hangs(self) -> None:
        """Wait until the store knows all parts but that one, and this site's process that it does."""
        self.bench.eventually("the third part hangs", lambda: self.hang.seen)
        self.bench.eventually("the others are there", lambda: all(self.sent(number) for number in (1, 2, 4)))
        notes = self.bench.folder / "c1" / "uploads"
        self.bench.eventually("two are noted", lambda: any('"2"' in each.read_text() for each in notes.glob("[!.]*")))

    def sent(self, number: int) -> int:
        return sum(bool(re.search(self.part(number), first)) for first in self.proxy.requests)

    def part(self, number: int | str = r"\d+") -> str:
        """What asks to take this part of the site's update, or any, under the name that it has on its way."""
        return rf"^PUT .*/clients/.*/\.\S*partNumber={number}\b"

    def asked(self, what: str) -> bool:
        return any(what in first for first in self.proxy.requests)


def test_an_upload_that_was_cut_goes_on_where_it_was(upload):
    """Row 47: the edge is killed at half of it; parts that the store has are not sent again."""
    first = upload.edge()
    upload.hangs()
    first.send(signal.SIGKILL)
    first.wait()
    before = upload.proxy.body_bytes(upload.part())
    second = upload.edge()
    second.until("round 1 was trained before: handing it in")
    assert upload.coordinator.wait() == 0, upload.coordinator.stderr
    assert second.wait() == 0, second.stderr
    assert [upload.sent(number) for number in (1, 2, 3, 4)] == [1, 1, 2, 1]
    assert upload.proxy.body_bytes(upload.part()) - before < 0.55 * 20_000_000
    assert upload.bench.runs.read_round(1).contributors == ("c1",)
    assert not list((upload.bench.folder / "c1" / "uploads").iterdir())


def test_an_edge_hears_a_signal_while_it_uploads_and_says_how_far_it_is(upload):
    """Row 47: SIGTERM in the middle; what is uploaded is shown, and kept for the edge that is started again."""
    bench, edge = upload.bench, upload.edge()
    upload.hangs()
    edge.until("of 20 MB")
    shown = bench.done("flavor", "status", bench.run)
    assert re.search(r"uploading [0-9.]+ of 20 MB", " ".join(shown.stdout.split())), shown.stdout
    transfer = json.loads(bench.done("flavor", "status", bench.run, "--json").stdout)["clients"]["c1"]["transfer"]
    assert transfer["phase"] == "uploading"
    assert transfer["since_ms"] > bench.runs.read().created_ms
    began = time.monotonic()
    edge.send(signal.SIGTERM)
    assert edge.wait() == 143
    assert time.monotonic() - began < HEARD_S
    assert "Traceback" not in edge.stderr
    assert not upload.asked("DELETE /")
    sent = [upload.sent(number) for number in (1, 2, 3, 4)]
    again = upload.edge()
    again.until("round 1 was trained before: handing it in")
    assert [upload.coordinator.wait(), again.wait()] == [0, 0], again.stderr
    assert upload.sent(1) == sent[0]
    assert sum(map(upload.sent, (1, 2, 3, 4))) <= sum(sent) + 2, "what was noted is not sent again"
    stopped = bench.logged("client.stopped", client="c1")
    assert stopped["reason"] == '"its edge was stopped by a signal": it is awaited'


def test_an_upload_ends_when_its_run_does(upload):
    """Row 47: nobody wants it any more: within seconds it is over, and no part is left in the store."""
    bench, edge = upload.bench, upload.edge()
    upload.hangs()
    began = time.monotonic()
    bench.done("flavor", "stop", bench.run)
    assert edge.wait() == 8, "the run is over"
    assert time.monotonic() - began < SOON_S
    assert "stopped" in edge.stderr.splitlines()[-1]
    assert "Traceback" not in edge.stderr
    assert upload.asked("uploadId=")
    assert any(first.startswith("DELETE ") and "uploadId=" in first for first in upload.proxy.requests)


@pytest.mark.timeout(TIMEOUT_S + 30)
def test_a_site_on_a_slow_link_keeps_its_lease_while_it_uploads(network, tmp_path, bench_at):
    """Row 46: heartbeats share a thin uplink with the update, and are not late; the site says how far it is."""
    listen = ("--bind", "0.0.0.0", "--protected-mode", "no")
    server = Server(tmp_path / "redis", *listen, under=network.under, socket=tmp_path / "s")
    port = free_port()
    with (tmp_path / "moto.log").open("wb") as log:
        words = [sys.executable, "-c", STORE, str(port)]
        moto = subprocess.Popen([*network.under, *words], stdout=log, stderr=log)
    try:
        bench, site = bench_at(server.url), network.site("far")
        shaped = ("tbf", "rate", f"{BYTES_S * 8}bit", "burst", "8kb", "limit", "2mb")
        subprocess.run([*site.under, "tc", "qdisc", "add", "dev", "eth0", "root", *shaped], check=True)
        bench.eventually("it listens", lambda: "Running on" in (tmp_path / "moto.log").read_text())
        env = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "FLAVOR_STORE": "s3://bucket",
            "FLAVOR_STORE_CACHE": str(tmp_path / "cache"),
        }
        words = ["--run", bench.run, "--rounds", 1, "--min-clients", 1, "--queue", bench.run]
        serve = [*words, "--heartbeat-timeout-s", 5, "--on-quorum-lost", "fail"]
        coordinator = bench.start("flavor", "serve", *serve, env=env, under=network.under)
        bench.start("flavor-agg", "--queue", bench.run, env=env, under=network.under).until("listens")
        far = env | {
            "AWS_ENDPOINT_URL": f"http://{site.server}:{port}",
            "FLAVOR_REDIS_URL": f"redis://{site.server}:{server.port}",
            "FLAVOR_INSECURE": "1",
            "FLAVOR_STORE_CACHE": str(tmp_path / "cache-far"),
        }
        trainer = bench.trainer("--elements", ELEMENTS, "--format", "safetensors")
        edge = bench.edge("c1", trainer, env=far, under=site.under)
        edge.until("uploading", timeout_s=60)
        assert coordinator.wait(TIMEOUT_S) == 0, coordinator.stderr + edge.stderr
        assert edge.wait(60) == 0, edge.stderr
        assert "client.lost" not in {entry["event"] for entry in bench.log()}
        assert bench.runs.read_round(1).contributors == ("c1",)
        assert edge.stderr.count("uploading ") >= 2
    finally:
        moto.kill()
        moto.wait()
        server.close()
