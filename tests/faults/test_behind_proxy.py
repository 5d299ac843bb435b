"""Rows 15, 16, 38, 60, 61: sites whose only way out is a proxy, and a proxy that cuts connections again and again."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import networks
import pytest

from flavor.bus.connection import SILENCE_S
from flavor.certs import make_certificates
from tests.faults.federation import MISSED, Faulty
from tests.faults.servers import REDIS, Server, free_port
from tests.faults.test_edges import SLACK_S, UNUSED_S, contributors
from tests.polled import eventually
from tests.proxies import forwarded, squid, tunnels

INNER = "10.99.0.1"
"""The address of Redis and of the bucket, to which no site has a route."""
PASSWORD = "pr0xy-s3cret"


@pytest.fixture
def network() -> Iterator[networks.Network]:
    if why := networks.why_not():
        pytest.skip(why)
    if REDIS is None:
        pytest.skip("redis-server is not installed (apt-get install redis-server), and the embedded one has no TLS")
    made = networks.Network()
    yield made
    made.close()


def test_sites_whose_only_way_out_is_a_proxy_outlive_cuts(network, tmp_path, bench_at, s3, monkeypatch):
    """Rows 15, 16, 38 and 60: Redis over TLS and the bucket are behind squid, which wants a password.

    One site is cut off from squid, one hears nothing any more, beyond every lease. Both find that out, and go on.
    """
    made, port = make_certificates(tmp_path / "tls", ["redis.test"]), free_port()
    tls = ["--port", "0", "--bind", INNER, "--tls-port", str(port), "--tls-auth-clients", "no"]
    tls += ["--protected-mode", "no"]
    tls += ["--tls-cert-file", str(made.certificate("server")), "--tls-key-file", str(made.key("server"))]
    tls += ["--tls-ca-cert-file", str(made.certificate("ca"))]
    network.inner(INNER)
    with contextlib.ExitStack() as running:
        server = Server(tmp_path / "redis", *tls, program=REDIS, under=network.under, socket=tmp_path / "s")
        running.callback(server.close)
        listener = network.listener(INNER)
        bucket, endpoint = s3.bucket(), f"http://{INNER}:{listener.getsockname()[1]}"
        running.enter_context(forwarded(listener, s3.address))
        way_out = squid(hosts={"redis.test": INNER}, host="0.0.0.0", under=network.under, user="ann", password=PASSWORD)
        proxy = running.enter_context(way_out)
        faulty = Faulty(bench_at(server.url), rounds=2, clients=("c1", "c2"))
        bench = faulty.bench
        for name, value in s3.environment().items():  # the servers' own way to the bucket
            monkeypatch.setenv(name, value)
        wires = {"c1": {"hears": False, "is_heard": False}, "c2": {"hears": False, "is_heard": True}}
        sites = {client: network.site(client) for client in wires}
        gates = {client: faulty.gate(client) for client in wires}
        bench.store = f"s3://{bucket}/f"
        coordinator = faulty.serve(*MISSED)
        aggregator = bench.aggregator()
        edges = {}
        for client, site in sites.items():
            assert site.routes() == [f"{site.server.rpartition('.')[0]}.0/30"]
            way = f"http://ann:{PASSWORD}@{site.server}:{proxy.port}"
            ways = {"FLAVOR_PROXY": way} if client == "c1" else {"HTTPS_PROXY": way, "HTTP_PROXY": way}
            env = {**ways, "AWS_ENDPOINT_URL": endpoint}
            env |= {"FLAVOR_REDIS_URL": f"rediss://redis.test:{port}", "FLAVOR_TLS_CA": str(made.certificate("ca"))}
            env |= {"FLAVOR_STORE_CACHE": str(bench.folder / f"cache-{client}")}
            trainer = bench.trainer("--gate", gates[client].path, "--at", 2)
            edges[client] = bench.edge(client, trainer, env=env, under=site.under)
        for client, gate in gates.items():
            gate.reached(told=lambda: [*proxy.asked, *(edge.stderr for edge in edges.values())])
            assert sites[client].established() >= 4  # commands and events, of the edge and of its trainer
        started, kept = bench.survivors(), bench.folder / "c1" / "proxy"
        assert (PASSWORD in kept.read_text(), kept.stat().st_mode & 0o777) == (True, 0o600)  # for its training script
        scripts = [Path(f"/proc/{pid}/environ").read_bytes() for pid, command in started.items() if "toy_" in command]
        assert [f"@{kept}".encode() in each for each in scripts].count(True) >= 1
        assert not [each for each in scripts if b"FLAVOR_CLIENT=c1\0" in each and PASSWORD.encode() in each]
        bench.eventually("all that the proxy has sent is acknowledged", lambda: not network.unacknowledged())
        for client, site in sites.items():
            site.cut(**wires[client])

        def dead() -> bool:
            return not any(site.established() for site in sites.values())

        eventually("the dead connections are found", dead, UNUSED_S + SILENCE_S + SLACK_S, pause_s=0.2)
        for client, site in sites.items():
            assert "its heartbeat stopped" in bench.logged("client.lost", client=client)["reason"]
            assert edges[client].running
            site.mend(**wires[client])
        for gate in gates.values():
            gate.open()
        faulty.finish(coordinator, edges)
        assert contributors(faulty, 2) == ("c1", "c2")
        assert [entry["event"] for entry in bench.log()].count("round.opened") == 2

        # -- what all of them have said, written and shown
        for client, source in (("c1", "FLAVOR_PROXY"), ("c2", "HTTPS_PROXY")):
            way = f"redis.test:{port} is reached through the proxy {sites[client].server}:{proxy.port} ({source})"
            assert edges[client].stderr.count(way) == 1
        aggregator.end()
        processes = (coordinator, aggregator, *edges.values())
        said = [*started.values(), *(text for process in processes for text in (process.stdout, process.stderr))]
        said += [str(entry) for entry in bench.log()]
        assert not [text for text in said if PASSWORD in text]
        files = [path for path in bench.folder.rglob("*") if path.is_file()]
        assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]


def test_a_proxy_that_cuts_every_connection_again_and_again_is_no_outage(on_port):
    """Row 61: all programs go on, in the same rounds, and speak of no outage."""
    on_port.rounds, bench = 4, on_port.bench
    with tunnels() as proxy:
        proxy.life_s = 0.7
        far = {"FLAVOR_REDIS_URL": on_port.bench.url.replace("127.0.0.1", "redis.test"), "FLAVOR_INSECURE": "1"}
        far |= {"FLAVOR_PROXY": proxy.url()}
        coordinator = on_port.serve(*MISSED, env=far)
        aggregator = bench.aggregator(env=far)
        edges = {}
        for client in on_port.clients:
            trainer = bench.trainer("--hold", "--at", 2)
            edges[client] = bench.edge(client, trainer, env={**far, "TEST_BUS": bench.url})
        for client in on_port.clients:
            bench.held(client)
        before = proxy.cuts
        bench.eventually("each connection was cut", lambda: proxy.cuts >= before + 20)
        bench.release(*on_port.clients)
        on_port.finish(coordinator, edges)
        assert [contributors(on_port, number) for number in (1, 2, 3, 4)] == [("c1", "c2")] * 4
        for process in (coordinator, aggregator, *edges.values()):
            assert not re.search("does not answer|answers again|no answer|waiting for it", process.stderr), (
                process.stderr
            )
        lost = [entry for entry in bench.log() if entry["event"] in ("client.lost", "client.joined")]
        assert [entry["event"] for entry in lost] == ["client.joined"] * 2
