"""Redis through a proxy: real tunnels, the server's own certificate in them, and what is told of a proxy's faults."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from redis import Redis
from redisserver import redis_server

from flavor.bus.address import bus_address
from flavor.bus.connection import ServerWatch, connect, options, wait_for_server, way_to
from flavor.bus.subscription import RESYNC, Subscription
from flavor.certs import Certificates, make_certificates
from flavor.errors import BusUnavailable
from flavor.proxy import PROXY_VARIABLE, parse_proxy
from flavor.tunnel import ProxyFailure, open_tunnel
from tests.faults.servers import Server, free_port
from tests.polled import eventually
from tests.proxies import Tunnels, squid, tunnels

_numbers = count()


@pytest.fixture
def through() -> Iterator[Tunnels]:
    with tunnels() as made:
        yield made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("redis") / "data")
    yield made
    made.close()


@pytest.fixture
def far(server: Server) -> str:
    """The URL of a server that nothing has reached yet, by a name that proxies alone know."""
    return f"redis://r{next(_numbers)}.test:{server.port}"


def works(url: str) -> None:
    """Commands, publications and RQ's own connections."""
    with connect(url, patience_s=5) as client:
        wait_for_server(client, url)
        subscription = Subscription(client, url, channels=("c",))
        assert subscription.wait(5) == [RESYNC]
        client.publish("c", "x")
        assert subscription.wait(5) == ["c"]
        subscription.close()
    with Redis.from_url(url, **options(url, 5)) as of_queues:
        assert of_queues.ping()


def test_tls_in_the_tunnel_of_a_real_proxy_verifies_the_servers_own_name(tmp_path: Path, monkeypatch) -> None:
    """The name is known to squid alone. A server with another name is refused, although squid leads to it."""
    made = make_certificates(tmp_path / "tls", hosts=("redis.test",))
    hosts = {"redis.test": "127.0.0.1", "other.test": "127.0.0.1"}
    with redis_server(tmp_path / "redis", certificates=made) as server, squid(hosts=hosts) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)

        def address(host: str) -> str:
            url = f"rediss://{host}:{server.port}"
            return bus_address(url, tls_ca=str(made.certificate("ca")), tls_cert=None, tls_key=None)

        works(address("redis.test"))
        told = f"rediss://redis.test:{server.port} is reached through the proxy 127.0.0.1:{proxy.port} (HTTPS_PROXY)"
        assert told in way_to(address("redis.test"))
        with connect(address("other.test"), patience_s=5) as client, pytest.raises(BusUnavailable, match="certificate"):
            wait_for_server(client, address("other.test"))
        closed = f"CONNECT redis.test:{server.port} TCP_TUNNEL/200"
        eventually("squid has written down what it did", lambda: proxy.asked.count(closed) >= 3)


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
def test_a_proxy_with_a_password_leads_to_the_server(scheme: str, through: Tunnels, far: str, monkeypatch) -> None:
    through.password = "clinic:p@ss"
    monkeypatch.setenv(PROXY_VARIABLE, through.url(scheme, "clinic:p%40ss"))
    works(far)
    assert through.asked == [far.removeprefix("redis://")] * 3


def answers(words: bytes) -> Callable[[Tunnels], None]:
    return lambda through: setattr(through, "answer", words)


def wants(through: Tunnels) -> None:
    through.password = "clinic:right"


NEGOTIATES = b"HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n"


@pytest.mark.parametrize(
    ("scheme", "does", "told"),
    [
        ("http", wants, "wants a user and a password (407): name with --proxy @FILE"),
        ("http://clinic:s3cret@", wants, "does not accept this user and password (407)"),
        ("http", answers(NEGOTIATES), "wants Negotiate or NTLM (407), and flavor authenticates with Basic"),
        ("http", answers(b"HTTP/1.1 403 By policy 7\r\n\r\n"), "refuses connections to HOST (403 By policy 7): have"),
        ("http", answers(b"SSH-2.0-OpenSSH_9.2\r\n"), "does not speak HTTP: check its port, or write socks5://"),
        ("http", answers(b"HTTP/1.1 503 x\r\nX-Squid-Error: ERR_DNS_FAIL 0\r\n\r\n"), "does not know the name r"),
        ("socks5", wants, "wants a user and a password: name with --proxy @FILE"),
        ("socks5://clinic:s3cret@", wants, "does not accept this user and password: check them"),
        ("socks5", answers(b"\x05\x02\x00"), "refuses connections to HOST (connection not allowed by ruleset)"),
        ("socks5", answers(b"HTTP/1.1 400 Bad\r\n\r\n"), "does not speak SOCKS5"),
    ],
)
def test_a_proxy_that_refuses_is_told_at_once_in_one_line(
    scheme: str, does: Callable[[Tunnels], None], told: str, through: Tunnels, far: str, monkeypatch, capsys
) -> None:
    does(through)
    scheme, _, signs_in = scheme.partition("://")
    monkeypatch.setenv(PROXY_VARIABLE, through.url(scheme, signs_in.removesuffix("@")))
    began = time.monotonic()
    with connect(far, patience_s=60) as client, pytest.raises(BusUnavailable) as refused:
        wait_for_server(client, far)
    assert time.monotonic() - began < 5
    line = str(refused.value)
    assert f": the proxy 127.0.0.1:{through.port} (FLAVOR_PROXY) {told.replace('HOST', far[8:])}" in line
    assert "s3cret" not in line + capsys.readouterr().err
    assert "\n" not in line


AWAY = b"HTTP/1.1 503 Service Unavailable\r\nX-Squid-Error: ERR_CONNECT_FAIL 111\r\n\r\n"


@pytest.mark.parametrize("answer", [AWAY, b""], ids=["server", "proxy"])
def test_a_server_or_proxy_that_is_away_is_waited_for(
    answer: bytes, through: Tunnels, far: str, monkeypatch, capsys
) -> None:
    """And back again. A proxy that has led to the server, and refuses now, is waited for, too."""
    monkeypatch.setenv(PROXY_VARIABLE, through.url())
    why = "cannot reach .* \\(503 Service Unavailable, ERR_CONNECT_FAIL 111\\): check that it runs"
    if answer:
        through.answer = answer
    else:
        through.close()
        why = "does not answer \\(connection refused\\)"
    with connect(far, patience_s=0.5) as client, pytest.raises(BusUnavailable, match=why):
        wait_for_server(client, far)
    assert "trying for 1 s more" in capsys.readouterr().err
    if answer:
        through.answer = b""
        works(far)
        through.answer = b"HTTP/1.1 403 Forbidden\r\n\r\n"
        began = time.monotonic()
        with connect(far, patience_s=0.5) as client, pytest.raises(BusUnavailable, match="refuses connections"):
            wait_for_server(client, far)
        assert time.monotonic() - began >= 0.5


def test_a_refusal_passes_where_the_proxy_has_led_before(through: Tunnels, server: Server) -> None:
    """As when its rules are loaded anew: a run is not ended by that."""
    proxy = parse_proxy(through.url(), PROXY_VARIABLE)
    open_tunnel(proxy, "before.test", server.port, 5).close()
    through.answer = b"HTTP/1.1 403 Forbidden\r\n\r\n"
    for host, is_lasting in (("before.test", False), ("never.test", True)):
        with pytest.raises(ProxyFailure) as refused:
            open_tunnel(proxy, host, server.port, 5)
        assert refused.value.lasting is is_lasting


def test_the_first_line_of_a_wait_says_that_it_is_the_proxy(far: str, monkeypatch, capsys) -> None:
    monkeypatch.setenv(PROXY_VARIABLE, "http://127.0.0.1:1")
    with connect(far, patience_s=60) as client:
        monkeypatch.setattr("flavor.bus.patience.pause", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            wait_for_server(client, far)
    line = capsys.readouterr().err
    assert re.search(r"trying for \S+ .*more: the proxy 127\.0\.0\.1:1 \(FLAVOR_PROXY\) does not answer \(conn", line)


def test_a_proxy_that_cuts_idle_connections_is_no_outage(through: Tunnels, far: str, monkeypatch, capsys) -> None:
    through.idle_s = 0.1
    monkeypatch.setenv(PROXY_VARIABLE, through.url())
    with connect(far, patience_s=5) as client:
        watch, subscription = ServerWatch(client, far), Subscription(client, far, channels=("c",))
        watch.was_away()
        assert subscription.wait(5) == [RESYNC]
        for number in range(3):
            eventually("all are cut", lambda: not through.open, 5, pause_s=0.01)
            client.set("k", number)
            client.publish("c", "x")  # a publication may be lost: then the subscription says that it was away
            assert subscription.wait(5) in ([RESYNC], ["c"], ["c", RESYNC], [RESYNC, "c"])
            assert client.get("k") == str(number)
        assert not watch.was_away()
        subscription.close()
    assert through.cuts >= 4
    assert capsys.readouterr().err == ""


DOC = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()


@contextlib.contextmanager
def of_the_page(kind: str, program: str, folder: Path, changes: dict[str, str], *, words: str = "") -> Iterator[int]:
    """Run the program with the page's configuration, on another port; skips the test where it is not installed."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if path is None:
        pytest.skip(f"no {program} here: install it")
    block, port, file = re.search(rf"```{kind}\n(.*?)```", DOC, flags=re.DOTALL), free_port(), folder / kind
    assert block is not None
    text = block[1]
    for before, after in {"443": str(port), **changes}.items():
        assert before in text
        text = text.replace(before, after)
    file.write_text(words + text)
    with subprocess.Popen([path, *(["-db", "-f"] if kind == "haproxy" else []), str(file)]) as process:

        def listens() -> bool:
            assert process.poll() is None, file.read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return True
            return False

        try:
            eventually(f"{program} listens", listens, 10, pause_s=0.02)
            yield port
        finally:
            process.kill()


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path / "tls", hosts=("redis.example.org",))


def by_tls(port: int, made: Certificates) -> str:
    url = f"rediss://redis.example.org:{port}"
    return bus_address(url, tls_ca=str(made.certificate("ca")), tls_cert=None, tls_key=None)


def test_port_443_leads_to_redis_or_to_a_bucket_by_the_name(
    certificates: Certificates, tmp_path: Path, through: Tunnels, monkeypatch
) -> None:
    """HAProxy passes TLS on: Redis's own certificate is seen."""
    monkeypatch.setenv(PROXY_VARIABLE, through.url())
    with socket.create_server(("127.0.0.1", 0)) as bucket:
        bucket.settimeout(10)
        places = {"127.0.0.1:9000": f"127.0.0.1:{bucket.getsockname()[1]}"}
        with redis_server(tmp_path / "redis", certificates=certificates) as server:
            places["127.0.0.1:6379"] = f"127.0.0.1:{server.port}"
            with of_the_page("haproxy", "haproxy", tmp_path, places) as port:
                works(by_tls(port, certificates))
                hello, context = ssl.MemoryBIO(), ssl.create_default_context()
                with contextlib.suppress(ssl.SSLWantReadError):
                    context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="bucket.example.org").do_handshake()
                sent = hello.read()
                with socket.create_connection(("127.0.0.1", port)) as client:
                    client.sendall(sent)
                    with bucket.accept()[0] as far:
                        far.settimeout(10)
                        assert far.recv(len(sent), socket.MSG_WAITALL) == sent


def test_port_443_leads_to_a_redis_without_tls(
    certificates: Certificates, server: Server, tmp_path: Path, through: Tunnels, monkeypatch
) -> None:
    """stunnel speaks TLS in its place."""
    monkeypatch.setenv(PROXY_VARIABLE, through.url())
    changes = {"127.0.0.1:6379": f"127.0.0.1:{server.port}", "/srv/flavor/redis/tls": str(certificates.folder)}
    with of_the_page("stunnel", "stunnel4", tmp_path, changes, words="foreground = yes\npid =\n") as port:
        works(by_tls(port, certificates))
