"""Who gets an answer of `flavor metrics`, and how many at a time."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from flavor.errors import BusUnavailable, InvalidSetting, MisuseError
from flavor.metrics.server import _AT_ONCE, MetricsServer
from flavor.own_machine import is_own_name

TOKEN = "a-token-of-prometheus"


def answer(accept: str) -> tuple[bytes, str]:
    return b"all is well\n", f"text/plain; accept={accept}"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = MetricsServer("127.0.0.1", 0, answer)
    yield server.port
    server.close()


@pytest.fixture(scope="module")
def guarded() -> Iterator[int]:
    server = MetricsServer("127.0.0.1", 0, answer, TOKEN)
    yield server.port
    server.close()


def asked(port: int, path: str = "/metrics", *, method: str = "GET", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        body = response.read().decode()
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        return response.status, body
    finally:
        connection.close()


def test_metrics_are_at_one_path(port: int) -> None:
    assert asked(port) == (200, "all is well\n")
    assert asked(port, "/metrics?x=1")[0] == 200
    assert asked(port, method="HEAD") == (200, "")
    assert asked(port, "/") == (404, "the metrics are at /metrics\n")
    assert asked(port, "/metrics/../etc/passwd")[0] == 404
    assert asked(port, method="POST")[0] == 405


@pytest.mark.parametrize("host", ["localhost", "localhost:9600", "127.0.0.1:9600", "[::1]:9600"])
def test_own_names_of_the_machine(port: int, host: str) -> None:
    assert asked(port, Host=host)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "127.evil.example", "localhost.evil.example:9600", "192.168.0.7"])
def test_no_web_site_reads_them_through_a_name_of_its_own(port: int, host: str) -> None:
    status, why = asked(port, Host=host)
    assert status == 403
    assert "--token" in why


def test_another_web_site_in_a_browser_of_this_machine_makes_it_do_nothing() -> None:
    made: list[str] = []

    def answer_(accept: str) -> tuple[bytes, str]:
        made.append(accept)
        return answer(accept)

    for token in ("", TOKEN):
        server = MetricsServer("127.0.0.1", 0, answer_, token)
        try:
            given = {"Authorization": f"Bearer {TOKEN}"} if token else {}
            for site in ("cross-site", "same-site", "Cross-Site"):
                status, why = asked(server.port, Sec_Fetch_Site=site, **given)
                assert (status, "another web site" in why) == (403, True)
                frame = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}
                assert asked(server.port, Sec_Fetch_Site=site, **frame, **given)[0] == 403
            assert made == []
            link = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
            assert asked(server.port, Sec_Fetch_Site="cross-site", **link, **given)[0] == 200, "as of Prometheus's page"
            for site in ("none", "same-origin"):
                assert asked(server.port, Sec_Fetch_Site=site, **given)[0] == 200, "its user opens the address"
            made.clear()
        finally:
            server.close()


def test_nobody_reads_them_through_a_proxy(port: int) -> None:
    for header in ("X-Forwarded-For", "Forwarded", "Via"):
        assert asked(port, **{header: "192.168.0.7"})[0] == 403, header
    assert asked(port, Host="LOCALHOST:9600")[0] == 200


def test_a_token(guarded: int) -> None:
    assert asked(guarded)[0] == 401
    for wrong in ("", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \xe9", f"bearer{TOKEN}"):
        assert asked(guarded, Authorization=wrong)[0] == 401, wrong
    assert asked(guarded, Authorization=f"Bearer {TOKEN}", Host="flavor.example.org") == (200, "all is well\n")
    assert asked(guarded, "/", Authorization=f"Bearer {TOKEN}")[0] == 404


def test_a_probe_needs_no_token_and_learns_nothing(guarded: int) -> None:
    assert asked(guarded, "/healthz", Host="10.0.0.7:9600") == (200, "ok\n")
    assert asked(guarded, "/healthz", Sec_Fetch_Site="cross-site")[0] == 403


def test_what_goes_wrong_in_a_scrape_is_told_to_the_operator_alone(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(accept: str) -> tuple[bytes, str]:
        raise BusUnavailable("Redis at x: it does not answer")

    server = MetricsServer("127.0.0.1", 0, fails)
    try:
        assert asked(server.port) == (503, "the metrics cannot be read now: the terminal says why\n")
    finally:
        server.close()
    assert "a scrape failed: Redis at x: it does not answer" in capsys.readouterr().err


def test_connections_that_say_nothing_leave_no_thread_behind_for_each() -> None:
    free = threading.Event()

    def slow(accept: str) -> tuple[bytes, str]:
        assert free.wait(30)
        return b"done", "text/plain"

    server = MetricsServer("127.0.0.1", 0, slow)
    before = threading.active_count()
    silent = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(_AT_ONCE + 5)]
    try:
        closed = [each for each in silent[:5] if each.recv(1) == b""]
        assert len(closed) == 5, "the oldest, for new ones"
        assert threading.active_count() - before <= _AT_ONCE
        for each in silent[5:]:
            each.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while server._server._silent:
            assert not free.wait(0.01)
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as late:
            assert late.recv(1) == b"", "whoever has asked is answered"
        free.set()
        for each in silent[5:]:
            assert b"done" in b"".join(iter(lambda each=each: each.recv(4096), b""))
    finally:
        for each in silent:
            each.close()
        server.close()


def test_an_answer_that_is_not_read_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flavor.metrics.server._STALLED_S", 0.0)
    large = b"x" * 2**24  # more than the buffers of a connection hold

    server = MetricsServer("127.0.0.1", 0, lambda accept: (large if accept == "large" else b"small", "text/plain"))
    asks = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: large\r\n\r\n"
    deaf = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(_AT_ONCE)]
    try:
        for each in deaf:
            each.sendall(asks)
            assert each.recv(1)
        assert asked(server.port) == (200, "small")
    finally:
        for each in deaf:
            each.close()
        server.close()


def test_a_request_has_to_arrive_in_time_however_it_trickles_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flavor.metrics.server._REQUEST_S", 0.5)
    server = MetricsServer("127.0.0.1", 0, answer)
    trickling = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(_AT_ONCE)]
    try:
        assert asked(server.port)[0] == 200, "a scrape takes the place of the oldest"
        began = time.monotonic()
        for each in trickling[1:]:
            assert _is_cut_while_it_trickles(each, began + 10)
    finally:
        for each in trickling:
            each.close()
        server.close()


def _is_cut_while_it_trickles(connection: socket.socket, until: float) -> bool:
    connection.settimeout(0.1)
    while time.monotonic() < until:
        with contextlib.suppress(TimeoutError):
            try:
                connection.sendall(b"G")
                if connection.recv(1) == b"":
                    return True
            except (BrokenPipeError, ConnectionResetError):
                return True
    return False


def test_an_address_that_cannot_be_used_is_said_in_one_line(port: int) -> None:
    with pytest.raises(MisuseError, match=rf"--port {port}: another program listens there"):
        MetricsServer("127.0.0.1", port, answer)
    with pytest.raises(MisuseError, match=r"--host 192\.0\.2\.1: this machine cannot listen on that address"):
        MetricsServer("192.0.2.1", 0, answer)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *(("localhost", True), ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True)),
        *(("0.0.0.0", False), ("::", False), ("", False), ("127.example.org", False), ("10.0.0.1", False)),
    ],
)
def test_which_addresses_only_this_machine_can_reach(host: str, local: bool) -> None:
    assert is_own_name(host) is local


def test_a_token_that_can_be_guessed_or_not_sent_is_refused(tmp_path) -> None:
    from flavor.bus.variables import METRICS_TOKEN_VARIABLE
    from flavor.cli.tokens import read_token

    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(f"@{file}", METRICS_TOKEN_VARIABLE) == read_token(TOKEN, METRICS_TOKEN_VARIABLE) == TOKEN
    assert read_token(None, METRICS_TOKEN_VARIABLE) is None
    for wrong in ("", "short", "two words here", "größer-als-acht", f"@{tmp_path}/none", f"@{tmp_path}"):
        with pytest.raises(InvalidSetting, match="--token"):
            read_token(wrong, METRICS_TOKEN_VARIABLE)
