"""Rows 37, 39 and 42 to 45, a killed site and a slow link: all in turn, in one run with README's command and defaults.

A site at a time is in trouble, is told what to do, and comes back; the run waits for it, and each round is made of all.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest
from test_back_again import contributors, readme_serve, stopped

from tests.faults.federation import KEEP, Faulty
from tests.faults.servers import REDIS, Gate, Proxy, Server, filled, tmpfs

SITES = ("c1", "c2", "c3")
ROUNDS = 8
ELEMENTS, BYTES_S = 300_000, 400_000
"""Over the slow link an update takes three seconds."""


class Federation:
    """Three enrolled sites, each with its own way to a bucket: c1 saves on a small disk, c3's uplink may be thin."""

    def __init__(self, faulty: Faulty, s3, disk: Path) -> None:
        self.faulty, self.bench, self.disk = faulty, faulty.bench, disk
        self.bench.store = f"s3://{s3.bucket()}/runs"
        self.uplink = Proxy(s3.address[1])
        self.operator = {**s3.environment(), "FLAVOR_STORE": self.bench.store}
        cache = {site: str(self.bench.folder / f"cache-{site}") for site in SITES}
        self.env = {site: {**self.operator, "FLAVOR_STORE_CACHE": cache[site]} for site in SITES}
        self.env["c1"]["LOCAL_MODEL_PATH"] = str(disk / "model.pkl")
        self.env["c3"]["AWS_ENDPOINT_URL"] = self.uplink.url.replace("redis:", "http:")
        self.tokens = {site: self.enrolled(site) for site in SITES}
        self.lost = self.bench.folder / "lost.key.pub"
        self.edges = {}

    def enrolled(self, site: str, *options: object) -> str:
        """Its token."""
        done = self.bench.done("flavor", "enroll", self.bench.run, site, *options, env=self.operator)
        assert done.wait() == 0, done.stderr
        return done.stdout.strip()

    def start(self, site: str, gate: Gate | None = None, at: int = 0, **env: str):
        """Its edge; the trainer holds at the gate in that round."""
        flags = ("--gate", gate.path, "--at", at) if gate else ()
        trainer = self.bench.trainer("--elements", ELEMENTS, *flags)
        words = ["-m", trainer, "--workspace", self.bench.folder / site]
        join = {"FLAVOR_JOIN": self.tokens[site]}  # an edge with --join starts itself again, to hide the token
        self.edges[site] = self.bench.start("flavor-fl", *words, env={**self.env[site], **join, **env})
        return self.edges[site]

    def processes(self, site: str, gate: Gate) -> list[int]:
        """Its edge, and its trainer."""
        trainers = [pid for pid, command in self.bench.survivors().items() if str(gate.path) in command]
        return sorted({self.edges[site].pid, *trainers})


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system needs root to mount it")
@pytest.mark.timeout(300)
def test_every_site_is_in_trouble_in_turn_and_the_run_ends_well(tmp_path, bench_at, s3, monkeypatch):
    """Leases of 15 seconds, which are waited for twice: for who was killed, and for who stood still."""
    file = tmp_path / "redis.conf"
    file.write_text("appendonly yes\n")
    server = Server(tmp_path / "redis", program=REDIS, first=[str(file)])
    with contextlib.closing(server), tmpfs(tmp_path / "disk", "4m") as disk:
        made = Federation(Faulty(bench_at(server.url), rounds=ROUNDS, clients=SITES), s3, disk)
        with contextlib.closing(made.uplink):
            in_turn(made, server)
        bench = made.bench
        assert [contributors(made.faulty, number) for number in range(1, ROUNDS + 1)] == [SITES] * ROUNDS
        keys = [bench.work / "flavor-work" / "aggregator" / "aggregator.key.pub", made.lost]
        keys += [bench.folder / site / "client.key.pub" for site in SITES]
        words = [word for key in keys for word in ("--trust", key)]  # c2 has two, and the operator knows of both
        checked = bench.done("flavor", "verify", bench.run, *words, env=made.operator)
        assert checked.wait() == 0, checked.stderr
        for name, value in made.operator.items():
            monkeypatch.setenv(name, value)
        made.faulty.history(bench.store).check(rounds=ROUNDS)


def in_turn(made: Federation, server: Server) -> None:
    """All that befalls the sites; each round is held open by the site that is in trouble in it."""
    faulty, bench, edges = made.faulty, made.bench, made.edges
    gates = {number: faulty.gate(f"round-{number}") for number in range(1, ROUNDS + 1)}
    coordinator = readme_serve(faulty, *KEEP, env=made.operator)  # all is kept, to be checked
    bench.start("flavor-agg", "--queue", bench.run, env=made.operator)
    for number, site in enumerate(SITES, 1):
        made.start(site, gates[number], number)

    # 1: SIGTERM
    gates[1].reached()
    assert stopped(edges["c1"]) == 143
    assert "started again with the same command, it joins the round that is open then" in edges["c1"].stderr
    made.start("c1", gates[4], 4)

    # 2: SIGKILL
    gates[2].reached()
    stopped(edges["c2"], signal.SIGKILL)
    made.start("c2", gates[5], 5).until("waiting up to")

    # 3: a lid closed past the lease, and opened again
    gates[3].reached()
    site = made.processes("c3", gates[3])
    for pid in site:
        os.kill(pid, signal.SIGSTOP)
    assert "its heartbeat stopped" in bench.logged("client.lost", client="c3")["reason"]
    for pid in site:
        os.kill(pid, signal.SIGCONT)
    gates[3].open()

    # 4: a wrong store
    gates[4].reached()
    stopped(edges["c1"])
    (bench.folder / "wrong" / "notes").mkdir(parents=True)
    wrong = made.start("c1", FLAVOR_STORE=str(bench.folder / "wrong"))
    assert wrong.wait() == 2
    assert f"this is not the store of run {bench.run!r}: name the one that its coordinator names" in wrong.stderr
    made.start("c1", gates[7], 7)

    # 5: a lost key
    gates[5].reached()
    stopped(edges["c2"])
    (bench.folder / "c2" / "client.key").unlink()
    (bench.folder / "c2" / "client.key.pub").rename(made.lost)
    assert made.start("c2").wait() == 1
    assert f"`flavor enroll {bench.run} c2 --new-key`" in edges["c2"].stderr.replace("(", "`").replace(")", "`")
    made.tokens["c2"] = made.enrolled("c2", "--new-key")
    made.uplink.pace = BYTES_S
    made.start("c2", gates[8], 8)

    # 6: a slow link
    edges["c3"].until("uploading", timeout_s=60)
    bench.logged("update.accepted", timeout_s=60, client="c3", round=6)
    made.uplink.pace = 0.0

    # 7: a full disk
    gates[7].reached()
    (made.disk / "model.pkl").unlink(missing_ok=True)
    ballast = filled(made.disk)
    gates[7].open()
    assert edges["c1"].wait() in (1, 5)
    assert "No space left on device" in edges["c1"].stderr
    ballast.unlink()
    made.start("c1")

    # 8: Redis is restarted
    gates[8].reached()
    server.shut_down()
    for edge in edges.values():
        edge.until("does not answer")
    server.start()
    gates[8].open()

    assert coordinator.wait(60) == 0, coordinator.stderr
    assert [edge.wait() for edge in edges.values()] == [0, 0, 0], [edge.stderr for edge in edges.values()]
