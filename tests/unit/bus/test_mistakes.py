"""What is an outage, which is waited for, and what is a mistake, which ends a program that has reached no server yet.

Each kind is an error as redis-py raises it. A clock that passes only in pauses says how long it is waited for.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
import redis

from flavor.bus import patience
from flavor.bus.answers import Answering
from flavor.bus.connection import bus_error
from flavor.bus.countdown import countdown
from flavor.bus.patience import Patience, WaitLimit
from flavor.bus.reasons import why_away
from flavor.bus.tls import HandshakeTimeout
from flavor.notices import following
from flavor.proxy import why_direct
from flavor.results import writer

HOURS_S, DAY_S = 2.5 * 3600, 86_400.0
_numbers = count()


class Clock:
    """A clock that passes only in pauses, and what they were."""

    def __init__(self) -> None:
        self.now = 1e6
        self.paused: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def pause(self, seconds: float) -> bool:
        self.paused.append(seconds)
        self.now += seconds
        return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(patience.time, "monotonic", made.monotonic)
    monkeypatch.setattr(patience, "pause", made.pause)
    return made


@pytest.fixture
def where() -> str:
    """A server of this test alone: a process remembers which ones it has reached, and which are away."""
    return f"redis://server-{next(_numbers)}:6379"


def away(cause: OSError) -> redis.exceptions.ConnectionError:
    """The error as redis-py raises it when it cannot connect."""
    error = redis.exceptions.ConnectionError(f"Error connecting: {cause}")
    error.__context__ = cause
    return error


def until(clock: Clock, back_at: float, error: Exception, *, takes_s: float = 0.0) -> Callable[[], str]:
    """A command that fails until then, and takes so long for that."""

    def command() -> str:
        if clock.now < back_at:
            clock.now += takes_s
            raise error
        return "answered"

    return command


REFUSED = away(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
UNKNOWN = away(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
NO_DNS = away(socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))
NO_TLS = away(HandshakeTimeout(has_spoken=False))
OUTAGES = {
    "refused": REFUSED,
    "no answer": redis.exceptions.TimeoutError("Timeout connecting to server"),
    "no route": away(OSError(errno.EHOSTUNREACH, "No route to host")),
    "network down": away(OSError(errno.ENETUNREACH, "Network is unreachable")),
    "no DNS": NO_DNS,
    "cut": redis.exceptions.ConnectionError("Connection closed by server."),
    "dead": away(TimeoutError(errno.ETIMEDOUT, "Connection timed out")),
    "stalled TLS": away(HandshakeTimeout(has_spoken=True)),
}


@pytest.mark.parametrize("kind", OUTAGES)
def test_an_outage_of_hours_is_waited_for_also_at_the_first_connection(
    kind: str, clock: Clock, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    began = clock.now
    waiting = Patience(where, DAY_S)
    command = until(clock, began + HOURS_S, OUTAGES[kind])
    assert waiting.call_with_retry(command, lambda _: None) == "answered"
    assert clock.now - began < HOURS_S + 10.0, "it is back soon after the network"
    assert len(clock.paused) < 2_000, "few attempts"
    first, *later, last = capsys.readouterr().err.splitlines()
    why, advice = why_away(OUTAGES[kind])
    start = f"flavor: Redis at {where} does not answer; trying for"
    is_direct = kind in ("no answer", "no route", "network down", "no DNS", "dead")
    way = f"; {why_direct('redis', 'server')}" if is_direct else ""
    assert first == f"{start} 1 d more: {why}: {advice}{way}"
    assert 8 < len(later) < 16, "it says so again, more and more seldom"
    assert later[-1].startswith(f"{start} 2")
    assert "more; away for 2 h" in later[-1]
    assert last == f"flavor: Redis at {where} answers again"


class Still(Answering):
    """A connection to a server that takes requests, and gives no answer until then."""

    def __init__(self, clock: Clock, where: str, back_at: float) -> None:
        self._clock, self._back_at = clock, back_at
        self.retry = SimpleNamespace(where=where, patience_s=180.0)

    def can_read(self, timeout: float) -> bool:
        self._clock.now += timeout
        return self._clock.now >= self._back_at


def test_a_server_without_an_answer_is_told_of_again_while_it_stands_still(
    clock: Clock, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Still(clock, where, clock.now + 60.0)._await_answer()
    told = [line.removeprefix(f"flavor: Redis at {where} ") for line in capsys.readouterr().err.splitlines()]
    no_answer = "has given a request no answer for {} s; waiting for it for {} more"
    lasted = ((2, "2 min 58 s"), (7, "2 min 53 s"), (14, "2 min 46 s"), (28, "2 min 32 s"), (56, "2 min 4 s"))
    assert told == [*(no_answer.format(*each) for each in lasted), "answers again"]


def test_a_connection_that_says_for_how_long_it_waits_takes_the_place_of_such_lines(
    clock: Clock, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    countdown.silent(where, 10.0)
    countdown.show(where, 170.0, REFUSED, away_s=10.0)
    clock.now += 60
    countdown.silent(where, 70.0)
    countdown.over(where)
    assert len(capsys.readouterr().err.splitlines()) == 3
    countdown.silent(where, 2.0)
    countdown.over(where)
    assert len(capsys.readouterr().err.splitlines()) == 2, "another outage"


def test_a_server_that_takes_some_connections_and_not_others_is_told_once_in_a_while_with_why(
    clock: Clock, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    countdown.is_endless(where)
    for _ in range(40):
        countdown.show(where, 9.0, redis.exceptions.ConnectionError("max number of clients reached"))
        countdown.over(where, reads_only=True)  # by another connection of the same program
        clock.now += 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4, "two times that it is away, and that it is back"
    assert "without limit: it has as many connections as it takes: raise its maxclients" in lines[0]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"), "it is loading its data"),
        (redis.exceptions.ConnectionError("max number of clients reached"), "it has as many connections as it takes"),
    ],
)
def test_who_has_an_answer_is_not_sent_to_look_at_the_network(error: Exception, why: str) -> None:
    found, advice = why_away(error)
    assert found.startswith(why)
    assert "network" not in advice


@pytest.mark.parametrize("module", [writer, following])
def test_what_runs_beside_a_program_and_waits_for_less_says_nothing_of_that(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A person would take the time that it waits for that of the program."""

    class Connected(Exception):
        pass

    def connect(url: str, *, quiet: bool = False, **_: Any) -> None:
        assert quiet
        raise Connected

    monkeypatch.setattr(module, "connect", connect)
    runs = cast(Any, SimpleNamespace(run="r"))
    context = (
        writer.written("r", tmp_path, redis_url="", store=runs, tell=print)
        if module is writer
        else following.following(runs, "", (), after_s=1.0, tell=print)
    )
    with pytest.raises(Connected), context:
        pass


MISTAKES = {
    "password": redis.exceptions.AuthenticationError("WRONGPASS invalid username-password pair or user is disabled."),
    "token revoked": redis.exceptions.AuthenticationError("invalid username-password pair"),
    "rights": redis.exceptions.NoPermissionError("No permissions to access a key"),
    "no Redis": redis.exceptions.InvalidResponse("Protocol Error: b'HTTP/1.1 400'"),
    "name": UNKNOWN,
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_ends_the_first_connection_at_once(kind: str, clock: Clock, where: str) -> None:
    with pytest.raises(type(MISTAKES[kind])):
        Patience(where, DAY_S).call_with_retry(until(clock, clock.now + 1, MISTAKES[kind]), lambda _: None)
    assert clock.paused == []


def test_what_may_be_a_port_without_tls_or_a_slow_link_is_tried_for_minutes(clock: Clock, where: str) -> None:
    began = clock.now
    with pytest.raises(redis.exceptions.ConnectionError):
        Patience(where, DAY_S).call_with_retry(until(clock, began + DAY_S, NO_TLS), lambda _: None)
    assert 180.0 <= clock.now - began < 200.0


@pytest.mark.parametrize("known", ["reached before", "started by one that reached it"])
def test_a_name_that_dns_has_forgotten_is_an_outage_later(known: str, clock: Clock, where: str) -> None:
    """Where a VPN is away, its DNS server is, too, and another one knows no such name."""
    limit = WaitLimit(DAY_S, is_known=known != "reached before")
    if not limit.is_known:
        assert Patience(where, DAY_S).call_with_retry(lambda: "answered", lambda _: None) == "answered"
    waiting = Patience(where, limit)
    command = until(clock, clock.now + HOURS_S, UNKNOWN)
    assert waiting.call_with_retry(command, lambda _: None) == "answered"


def test_a_mistaken_name_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://p:1")
    monkeypatch.setenv("NO_PROXY", "*")
    said = str(bus_error(UNKNOWN, "redis://redis.exmaple.org:6379"))
    assert said.startswith("Redis at redis://redis.exmaple.org:6379: its name is not known here: check its spelling")
    assert said.endswith("; it is reached directly: NO_PROXY names this host, although ALL_PROXY is set")


def test_the_patience_ends_also_where_each_attempt_takes_half_a_minute(clock: Clock, where: str) -> None:
    """As the look-up of a name does where no DNS server answers: all attempts belong to one outage."""
    began = clock.now
    command = until(clock, began + DAY_S, NO_DNS, takes_s=35.0)
    with pytest.raises(redis.exceptions.ConnectionError):
        Patience(where, 600.0).call_with_retry(command, lambda _: None)
    assert 600.0 <= clock.now - began < 700.0


def test_a_limit_that_is_changed_counts_for_each_connection_at_once(clock: Clock, where: str) -> None:
    """An edge learns the deadline and the heartbeats of its run after it has connected."""
    limit = WaitLimit(60.0)
    connections = [Patience(where, limit), Patience(where, limit)]
    limit.patience_s, limit.longest_pause_s = DAY_S, 0.5
    for waiting in connections:
        command = until(clock, clock.now + 600.0, REFUSED)
        assert waiting.call_with_retry(command, lambda _: None) == "answered"
    assert max(clock.paused) <= 0.5


def test_a_second_outage_is_told_anew(clock: Clock, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    waiting = Patience(where, DAY_S)
    for _ in range(2):
        waiting.call_with_retry(until(clock, clock.now + 7.0, REFUSED), lambda _: None)
        clock.now += 600.0
    told = [line.partition("; ")[2] for line in capsys.readouterr().err.splitlines() if "trying" in line]
    assert [text.partition(": ")[0].partition(";")[0] for text in told].count("trying for 1 d more") == 2
    countdown.end()
