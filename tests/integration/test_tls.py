"""TLS to a real server: who is let in, and how every mistake is told. The embedded server has none."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from redisserver import RedisServer, redis_server

from flavor.bus import tls
from flavor.bus.address import bus_address
from flavor.bus.connection import connect, wait_for_server
from flavor.bus.tls import VerifiedConnection
from flavor.certs import Certificates, make_certificates
from flavor.errors import BusUnavailable

NOTHING = {"FLAVOR_REDIS_URL": None, "FLAVOR_TLS_CA": None, "FLAVOR_TLS_CERT": None, "FLAVOR_TLS_KEY": None}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of a server that is called localhost, and not 127.0.0.1."""
    return make_certificates(tmp_path_factory.mktemp("tls") / "ca", ["localhost"])


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """As good, and of another CA."""
    return make_certificates(tmp_path_factory.mktemp("tls") / "foreign", ["localhost"])


@pytest.fixture(scope="module")
def strict(made: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that wants a client certificate."""
    folder = tmp_path_factory.mktemp("tls") / "strict"
    with redis_server(folder, certificates=made, client_certificates=True, password="pass") as server:
        yield server


@pytest.fixture(scope="module")
def open_(made: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One that does not, nor a password."""
    with redis_server(tmp_path_factory.mktemp("tls") / "open", certificates=made) as server:
        yield server


def address(url: str, ca: Path | None = None, cert: Path | None = None, key: Path | None = None) -> str:
    return bus_address(
        url, tls_ca=ca and str(ca), tls_cert=cert and str(cert), tls_key=key and str(key), insecure=False
    )


def refusal(bus: str, patience_s: float = 30.0) -> str:
    """What `flavor` would say of this bus; the patience is not used up by what time does not cure."""
    with connect(bus, patience_s=patience_s) as client, pytest.raises(BusUnavailable) as caught:
        wait_for_server(client, bus)
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_the_right_certificates_are_let_in(strict: RedisServer, open_: RedisServer, made: Certificates) -> None:
    for bus in (strict.address, address(open_.url, made.certificate("ca"))):
        with connect(bus) as client:
            wait_for_server(client, bus)
            assert client.ping()
            assert issubclass(client.connection_pool.connection_class, VerifiedConnection)


def test_a_hundred_connections_in_a_row(open_: RedisServer, made: Certificates) -> None:
    """Without a password there is no exchange after the handshake, and session tickets are still on their way."""
    bus = address(open_.url, made.certificate("ca"))
    for _ in range(100):
        with connect(bus, patience_s=0) as client:
            assert client.ping()


def test_a_ca_that_is_not_the_servers(open_: RedisServer, foreign: Certificates) -> None:
    for ca in (foreign.certificate("ca"), None):  # None: the system's
        told = refusal(address(open_.url, ca))
        assert "its certificate is refused" in told
        assert "it is not signed by the CA of --tls-ca FILE" in told


def test_a_host_name_that_is_not_the_servers(open_: RedisServer, made: Certificates) -> None:
    told = refusal(address(open_.url.replace("localhost", "127.0.0.1"), made.certificate("ca")))
    assert "IP address mismatch" in told
    assert "use the host name that the certificate is for" in told


def test_no_client_certificate(strict: RedisServer, made: Certificates, capsys: pytest.CaptureFixture[str]) -> None:
    """Again and again, as the server hangs up right after it has said so."""
    for _ in range(20):
        told = refusal(address(strict.url, made.certificate("ca")))
        assert "it wants a client certificate: --tls-cert FILE and --tls-key FILE" in told
    assert capsys.readouterr().err == ""  # nor was it waited for


def test_a_client_certificate_of_another_ca(strict: RedisServer, made: Certificates, foreign: Certificates) -> None:
    told = refusal(address(strict.url, made.certificate("ca"), foreign.certificate("client"), foreign.key("client")))
    assert "it does not know the CA of our client certificate" in told


def test_certificates_that_have_expired(tmp_path: Path) -> None:
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=100)
    old = make_certificates(tmp_path / "old", ["localhost"], days=30, now=past)
    with redis_server(tmp_path / "r", certificates=old) as server:
        told = refusal(address(server.url, old.certificate("ca")))
    assert "certificate has expired" in told
    assert "have it renewed, or check this machine's clock" in told


def test_a_client_certificate_that_has_expired(tmp_path: Path, made: Certificates) -> None:
    """Signed by the server's CA, but long ago."""
    command = ["openssl", "x509", "-req", "-in", "r.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "-1"]
    for name in ("ca.pem", "ca.key", "client.key"):
        (tmp_path / name).write_bytes((made.folder / name).read_bytes())
    with contextlib.suppress(FileNotFoundError):
        request = ["openssl", "req", "-new", "-key", "client.key", "-subj", "/CN=old", "-out", "r.csr"]
        subprocess.run(request, cwd=tmp_path, check=True, capture_output=True)
        subprocess.run([*command, "-out", "old.pem"], cwd=tmp_path, check=False, capture_output=True)
    if not (tmp_path / "old.pem").exists():
        pytest.skip("no openssl that makes one")
    with redis_server(tmp_path / "r", certificates=made, client_certificates=True) as server:
        told = refusal(address(server.url, made.certificate("ca"), tmp_path / "old.pem", tmp_path / "client.key"))
    assert "our client certificate has expired" in told


def test_a_port_without_tls(tmp_path: Path, made: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis without TLS waits for the end of the handshake's first line, so this one is found by its silence."""
    monkeypatch.setattr(tls, "_HANDSHAKE_S", 0.3)
    with redis_server(tmp_path / "r") as server:
        told = refusal(address(server.url.replace("redis:", "rediss:"), made.certificate("ca")), patience_s=0.1)
    assert "it does not answer the TLS handshake: check that this port speaks TLS" in told


def test_a_server_that_spoke_tls_before_is_told_to_stand_still(
    tmp_path: Path, made: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_HANDSHAKE_S", 0.3)
    with redis_server(tmp_path / "r", certificates=made) as server:
        bus = address(server.url, made.certificate("ca"))
        with connect(bus) as client:
            pid = client.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            told = refusal(bus, patience_s=0.1)
        finally:
            os.kill(pid, signal.SIGCONT)
    assert "does not answer the TLS handshake as it did before: check whether it is paused" in told


def test_a_port_that_answers_something_else(made: Certificates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with contextlib.suppress(OSError):
                near, _ = listener.accept()
                with near:
                    near.sendall(b"-ERR this is not TLS\r\n" * 20)
                    near.recv(4096)

        thread = threading.Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]
        told = refusal(address(f"rediss://localhost:{port}", made.certificate("ca")))
        thread.join()
    assert "its answer is not TLS: check that this port speaks TLS" in told


def test_a_tls_port_spoken_to_without(open_: RedisServer) -> None:
    """The server hangs up, as one does that restarts; so it is waited for, but no longer than for that."""
    told = refusal(open_.url.replace("rediss:", "redis:"), patience_s=0.3)
    assert "whether it wants TLS (rediss://)" in told


def test_a_ca_alone_is_trusted_and_not_the_systems_too(
    open_: RedisServer, made: Certificates, foreign: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE makes our CA one of the system's; naming another one must not fall back to it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(made.certificate("ca")))
    with connect(address(open_.url)) as client:
        assert client.ping()
    assert "its certificate is refused" in refusal(address(open_.url, foreign.certificate("ca")))


def test_a_whole_local_run_over_tls(bench_at, strict: RedisServer, made: Certificates) -> None:
    """Options become variables for coordinator, aggregator, edge and trainer; RQ's connection is made alike."""
    bench = bench_at(strict.address)
    process = bench.done(
        *("flavor", "run", "-m", bench.trainer(), "--edges", 2, "--rounds", 2, "--run", bench.run, "--out", "out"),
        *("--json", "--redis-url", strict.url, "--tls-ca", made.certificate("ca")),
        *("--tls-cert", made.certificate("client"), "--tls-key", made.key("client")),
        env=NOTHING,
    )
    assert process.wait() == 0, process.stderr
    assert json.loads(process.stdout)["state"] == "finished"


@pytest.mark.parametrize(
    "words",
    [
        ["flavor", "status"],
        ["flavor", "serve", "--run", "r", "--rounds", 1, "--store", "store"],
        ["flavor-agg", "--store", "."],
        ["flavor-fl", "--run", "r", "-m", "true"],
        ["flavor", "run", "-m", "true", "--edges", 1],
        ["flavor", "enroll", "r", "c"],
    ],
)
def test_every_command_says_it_in_one_line(bench, strict: RedisServer, made: Certificates, words: list[str]) -> None:
    """With exit code 3, and at once; and 2 for what is wrong before anyone is asked."""
    url = strict.url.replace("localhost", "127.0.0.1")
    process = bench.start(*words, "--tls-ca", made.certificate("ca"), env={**NOTHING, "FLAVOR_REDIS_URL": url})
    plain = bench.start(*words, env={**NOTHING, "FLAVOR_REDIS_URL": "redis://user:hidden@198.51.100.7"})
    assert process.wait() == 3
    [line] = process.stderr.splitlines()
    assert "Error: Redis at rediss://127.0.0.1:" in line
    assert "use the host name that the certificate is for" in line
    assert "pass" not in line.replace("password", "")
    assert plain.wait() == 2
    [line] = plain.stderr.splitlines()
    assert line.startswith("Error: Redis URL 'redis://198.51.100.7' is not encrypted")
    assert "--insecure (FLAVOR_INSECURE=1)" in line


def test_certs_and_what_they_are_for(bench) -> None:
    """`flavor certs` prints what it made, and the options for both sides."""
    process = bench.done("flavor", "certs", "made", "--host", "localhost", "--host", "127.0.0.1")
    assert process.wait() == 0, process.stderr
    names = [f"made/{name}.{end}" for name in ("ca", "server", "client") for end in ("pem", "key")]
    assert process.stdout.split() == names
    assert "redis-server --port 0 --tls-port 6379 --tls-cert-file made/server.pem" in process.stderr
    again = bench.done("flavor", "certs", "made", "--host", "localhost")
    assert again.wait() == 2
    assert again.stderr == (
        "Error: made/ca.pem is there already: name another folder, or replace all of them with --force\n"
    )
    assert bench.done("flavor", "certs", "made", "--host", "localhost", "--force").wait() == 0
