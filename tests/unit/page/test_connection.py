"""Connections that only hold a place: a request has to arrive in time, and the silent give way to those that ask."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from flavor.page import connection
from flavor.page.app import Page
from flavor.page.server import Place, bound, serving
from tests.standin import Standin

LONG_S = 30.0
ASKS = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
STREAM = b"GET /api/stream?run=mammo HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    where = bound("127.0.0.1", 0, token=None)
    with serving(Page(Standin(mammo={"run": "mammo"})), where):
        yield where


@contextlib.contextmanager
def opened(place: Place, number: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection((place.host, place.port), timeout=LONG_S))
            for _ in range(number)
        ]


def answers(asking: socket.socket, request: bytes = ASKS) -> bytes:
    asking.sendall(request)
    return asking.recv(12)


def test_an_answer_on_a_kept_connection_does_not_wait_for_an_acknowledgement(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[socket.socket] = []
    begun = connection.Connection.connection_made

    def begins(self: connection.Connection, transport: Any) -> None:
        made.append(transport.get_extra_info("socket"))
        begun(self, transport)

    monkeypatch.setattr(connection.Connection, "connection_made", begins)
    with opened(place, 1) as (asking,):
        assert answers(asking) == b"HTTP/1.1 200"
        assert made[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_silent_connections_give_way_to_those_that_ask(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST", 8)
    with opened(place, 1) as (live,):
        assert answers(live, STREAM) == b"HTTP/1.1 200"
        with opened(place, 7) as silent, opened(place, 1) as (asking,):
            silent[1].send(b"GET /")  # bytes are no request
            assert answers(asking) == b"HTTP/1.1 200"
            assert silent[0].recv(1) == b"", "the oldest"
            with opened(place, 2) as more:
                assert [answers(each) for each in more] == [b"HTTP/1.1 200"] * 2
                assert [each.recv(1) for each in silent[1:3]] == [b"", b""]
        assert b"retry" in live.recv(65536), "a page that is open stays"


def test_a_machine_that_opens_many_connections_closes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST", 8)
    where = bound("0.0.0.0", 0, token="a-token-of-the-test")
    with serving(Page(Standin(), token="a-token-of-the-test"), where), contextlib.ExitStack() as stack:

        def opens(address: str) -> socket.socket:
            to = ("127.0.0.1", where.port)
            return stack.enter_context(socket.create_connection(to, LONG_S, source_address=(address, 0)))

        other = opens("127.0.0.3")
        before = opens("127.0.0.2")
        assert answers(before) == b"HTTP/1.1 200"
        while before.recv(65536)[-1:] != b"}":
            pass
        flood = [opens("127.0.0.2") for _ in range(20)]
        assert flood[13].recv(1) == b""
        assert answers(other) == b"HTTP/1.1 200", "of another machine, and silent for longest"
        assert answers(before) == b"HTTP/1.1 200", "it has asked before"


def test_machines_are_counted_by_their_network() -> None:
    assert connection.network_of("2001:db8:1:2:3::4") == connection.network_of("2001:db8:1:2::") == "2001:db8:1:2::/64"
    assert connection.network_of("::ffff:192.0.2.1") == connection.network_of("192.0.2.1") == "192.0.2.1"
    assert connection.network_of("") == ""


@pytest.mark.parametrize(
    "begins",
    [
        b"",
        b"GET /healthz HTTP/1.1\r\nX: ",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n",
        b"GET /api/stream?run=mammo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n",
        ASKS + b"GET /healthz HTTP/1.1\r\nX: ",
    ],
)
def test_a_request_has_to_arrive_in_time_however_it_trickles_in(
    place: Place, begins: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.5)
    until = time.monotonic() + 10
    with opened(place, 1) as (trickling,):
        trickling.settimeout(0.1)
        with contextlib.suppress(ConnectionError):
            trickling.sendall(begins)
            while time.monotonic() < until:
                if begins:
                    trickling.sendall(b"x")
                with contextlib.suppress(TimeoutError):
                    if trickling.recv(65536) == b"":
                        return
    assert time.monotonic() < until


def test_a_request_that_is_whole_may_be_answered_slowly_and_another_may_follow(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.3)
    with opened(place, 2) as (live, idle):
        assert answers(live, STREAM) == answers(idle) == b"HTTP/1.1 200"
        with opened(place, 1) as (silent,):
            assert silent.recv(1) == b"", "by now the others would be cut off, too"
        idle.setblocking(False)
        while idle.recv(65536)[-1:] != b"}":
            pass
        idle.settimeout(LONG_S)
        assert answers(idle) == b"HTTP/1.1 200"
        assert b"retry" in live.recv(65536)
