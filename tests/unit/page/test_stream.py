"""The page's live stream: what a browser is told, where it goes on, and how little waits for one that reads slowly."""

from __future__ import annotations

import http.client
import json
import random
import re
import select
import socket
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from flavor.page import stream
from flavor.page.app import Page
from flavor.page.server import Place, bound, serving
from tests.polled import eventually
from tests.standin import KEPT, Standin

LONG_S = 30.0


class Event:
    def __init__(self, lines: list[str]) -> None:
        fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
        self.name, self.id = fields.get("event", ""), fields.get("id", "")
        self.data: Any = json.loads(fields["data"]) if "data" in fields else None


class Reader:
    """A browser that reads a stream."""

    def __init__(self, place: Place, run: str = "", last: str = "", document: Any = None, **headers: str) -> None:
        self._connection = http.client.HTTPConnection(place.host, place.port, timeout=LONG_S)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(
            "GET", f"/api/stream?run={run}", headers=named | ({"Last-Event-ID": last} if last else {})
        )
        self.response = self._connection.getresponse()
        self.status, self.document, self.last = self.response.status, document, last
        self.bytes = 0
        if self.status == 200 and "accept-encoding" not in named:
            assert self.line() == "retry: 2000"
            assert self.line() == ""

    def line(self) -> str:
        line = self.response.readline()
        self.bytes += len(line)
        if not line:
            raise EOFError
        return line.decode().rstrip("\n")

    def next(self) -> Event:
        """The next event; keeps the document and the id as a browser does."""
        lines: list[str] = []
        while not any(each.startswith("event: ") for each in lines):
            lines = []
            while line := self.line():
                lines.append(line)
        event = Event(lines)
        self.last = event.id or self.last
        if event.name == "document":
            self.document = event.data
        elif event.name == "patch":
            self.document = merged(self.document, event.data)
        return event

    def until(self, name: str) -> Event:
        while (event := self.next()).name != name:
            pass
        return event

    def close(self) -> None:
        self.response.close()
        self._connection.close()


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396, as its pseudocode has it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


@pytest.fixture
def source() -> Standin:
    return Standin(mammo={"run": "mammo", "state": "running"}, other={"run": "other", "state": "waiting"})


@pytest.fixture
def page(source: Standin) -> Page:
    return Page(source)


@pytest.fixture
def place(page: Page) -> Iterator[Place]:
    where = bound("127.0.0.1", 0, token=None)
    with serving(page, where):
        yield where


def test_a_page_is_told_what_is_and_then_what_changes(place: Place, source: Standin) -> None:
    source.happens("mammo", "run-created")
    reader = Reader(place, "mammo")
    assert reader.response.getheader("content-type") == "text/event-stream; charset=utf-8"
    assert reader.next().data == {"run": "mammo", "state": "running"}
    assert [entry["event"] for entry in reader.next().data] == ["run-created"]
    source.change("mammo", round=1, state=None)
    assert (event := reader.next()).name == "patch"
    assert event.data == {"round": 1, "state": None}
    assert reader.document == {"run": "mammo", "round": 1}
    source.happens("mammo", "client-lost", client="site-1", reason="it\nis gone\u2028")
    entry = reader.until("log").data
    assert entry[0]["reason"] == "it\nis gone\u2028"
    assert len(entry) == 1
    source.breaks("Redis is away")
    assert reader.until("problem").data == "Redis is away"
    source.breaks("")
    assert reader.until("problem").data == ""
    reader.close()


@pytest.mark.parametrize("run", ["mammo", ""])
def test_a_page_that_is_cut_off_anywhere_in_its_first_news_is_told_the_rest(
    place: Place, source: Standin, run: str
) -> None:
    """Also while Redis is away, which is said before the document: what is said first must not have its id."""
    source.happens("mammo", "run-created")
    source.breaks("Redis is away")
    for cut in range(4):
        reader = Reader(place, run)
        for _ in range(cut):
            reader.next()
        reader.close()
        again = Reader(place, run, last=reader.last, document=reader.document)
        again.until("log" if run else "problem")
        while again.document is None:
            again.next()
        assert again.document == (source.documents["mammo"] if run else source.documents)
        again.close()


def test_a_page_that_is_cut_off_when_redis_is_back_is_told_what_has_happened(source: Standin) -> None:
    streams, position = stream.Streams(source), stream.Position()
    source.breaks("Redis is away")
    streams.news("mammo", position)
    source.change("mammo", round=1)
    source.happens("mammo", "round-opened")
    source.breaks("")
    told = [Event(text.splitlines()) for text in streams.news("mammo", position).decode().split("\n\n") if text]
    assert [event.name for event in told] == ["problem", "patch", "log"]
    for cut, event in enumerate(told, start=1):
        rest = streams.news("mammo", stream.Position.of(event.id, streams.epoch)).decode()
        assert re.findall("event: (.*)", rest) == [event.name for event in told[cut:]]


def test_the_list_of_runs_is_an_object_by_name(place: Place, source: Standin) -> None:
    source.ahead_ms = 3_600_000
    reader = Reader(place)
    assert (clock := reader.next()).name == "clock", "the times in the list are those of the server"
    assert abs(clock.data - source.now_ms()) < LONG_S * 1000
    assert sorted(reader.next().data) == ["mammo", "other"]
    source.change("other", round=7)
    assert reader.next().data == {"other": {"round": 7}}
    reader.close()


@pytest.mark.parametrize("by", ["header", "query"])
def test_a_page_that_comes_back_is_told_what_it_has_missed(place: Place, source: Standin, by: str) -> None:
    source.happens("mammo", "run-created")
    first = Reader(place, "mammo")
    first.until("log")
    first.close()
    source.change("mammo", round=1)
    source.happens("mammo", "round-opened")
    source.change("mammo", round=2)
    run = f"mammo&last={first.last}" if by == "query" else "mammo"
    second = Reader(place, run, last=first.last if by == "header" else "")
    assert [(event := second.next()).name, event.data] == ["patch", {"round": 1}]
    assert second.next().data == {"round": 2}
    assert [entry["event"] for entry in second.next().data] == ["round-opened"]
    second.close()


@pytest.mark.parametrize(
    "last",
    [
        *("0a0b0c0d-3-1001-0", "x", "-", "EPOCH--", "EPOCH-x-1", "EPOCH-9"),
        *("EPOCH-²-1-0", "EPOCH-1-abc", "EPOCH-1-1-²", "EPOCH-1-1", "EPOCH-1--1", "EPOCH-" + "9" * 5000 + "-1-0"),
    ],
)
def test_a_page_that_cannot_go_on_begins_again(place: Place, page: Page, source: Standin, last: str) -> None:
    for round_ in range(KEPT + 10):
        source.change("mammo", round=round_)
    reader = Reader(place, f"mammo&last={quote(last.replace('EPOCH', page.streams.epoch))}")
    assert reader.next().name == "document"
    assert reader.document == source.document("mammo")
    reader.close()


def test_an_id_of_another_process_begins_anew(place: Place, source: Standin) -> None:
    source.change("mammo", round=1)
    reader = Reader(place, "mammo", last=f"0a0b0c0d-{source.version()}-")
    assert reader.next().name == "document"
    reader.close()


def test_what_a_page_has_in_the_end_is_what_there_is(place: Place, source: Standin) -> None:
    chance = random.Random(7)
    readers = [Reader(place, "mammo") for _ in range(3)]
    for number in range(300):
        names = chance.sample("abcdefgh", 3)
        source.change("mammo", **{name: chance.choice([None, number, {"in": number}]) for name in names})
        if chance.random() < 0.1:
            readers[0].next()
        if chance.random() < 0.02:
            readers[1].next()
            readers[1].close()
            readers[1] = Reader(place, "mammo", last=readers[1].last, document=readers[1].document)
    source.change("mammo", end=True)
    for reader in readers:
        while not (reader.document or {}).get("end"):
            reader.next()
        assert reader.document == source.document("mammo")
        reader.close()


def test_nothing_piles_up_for_a_page_that_does_not_read(place: Place, source: Standin) -> None:
    """10,000 changes of 10 kB: what has waited for it is what its socket holds, and one document."""
    reader = Reader(place, "mammo")
    for number in range(10_000):
        source.change("mammo", text=f"{number}" + "x" * 10_000)
    source.change("mammo", end=True)
    while not (reader.document or {}).get("end"):
        reader.next()
    assert reader.document == source.document("mammo")
    assert reader.bytes < 10_000_000
    reader.close()


def test_a_page_that_takes_nothing_for_long_is_cut_off(
    place: Place, page: Page, source: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "STALLED_S", 0.2)
    source.change("mammo", text="x" * 20_000_000)
    with socket.create_connection((place.host, place.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /api/stream?run=mammo HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
        eventually("no stream is left", lambda: page.streams.count == 0)
    again = Reader(place, "mammo")
    assert again.next().name == "document"
    again.close()


def test_there_is_a_bound_on_pages_and_a_page_that_is_closed_makes_room(
    place: Place, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MOST_STREAMS", 3)
    readers = [Reader(place, "mammo") for _ in range(3)]
    for reader in readers:
        reader.next()
    refused = Reader(place, "mammo")
    assert refused.status == 503
    assert "3 pages" in json.loads(refused.response.read())["error"]
    readers[0].close()
    eventually("both have streams", lambda: page.streams.count == 2)
    again = Reader(place, "mammo")
    assert again.next().name == "document"
    for reader in (refused, again, *readers):
        reader.close()


def test_the_bound_holds_for_pages_that_ask_at_the_same_time(
    place: Place, page: Page, source: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MOST_STREAMS", 3)
    asked, free = source.document, threading.Event()
    monkeypatch.setattr(source, "document", lambda run: free.wait(LONG_S) and asked(run))
    raw = [socket.create_connection((place.host, place.port), timeout=LONG_S) for _ in range(8)]
    for each in raw:
        each.sendall(b"GET /api/stream?run=mammo HTTP/1.1\r\nHost: localhost\r\n\r\n")
    refused = [each for each in raw if select.select([each], [], [], 0.5)[0]]
    free.set()
    answers = sorted(each.recv(12) for each in raw)
    assert len(refused) == 5
    assert answers == [b"HTTP/1.1 200"] * 3 + [b"HTTP/1.1 503"] * 5
    for each in raw:
        each.close()
    eventually("no stream is left", lambda: page.streams.count == 0)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{place.address}api/stream?run=none", timeout=LONG_S)
    assert page.streams.count == 0, "a page that is refused takes no place"


def test_many_pages_are_given_one_document(place: Place, source: Standin) -> None:
    readers = [Reader(place, "mammo") for _ in range(10)]
    for reader in readers:
        reader.next()
    made = source.asked.count("mammo") - len(readers)  # each is asked for once, to see that it is there
    assert made == 1
    for reader in readers:
        reader.close()


def test_an_idle_stream_says_that_it_lives(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_WAIT_S", 0.01)  # shorter than the keepalive, as in the product
    monkeypatch.setattr(stream, "KEEPALIVE_S", 0.1)
    reader = Reader(place, "mammo")
    reader.next()
    assert [reader.line(), reader.line(), reader.line()] == [": keepalive", "", ": keepalive"]
    reader.close()


def test_a_stream_of_a_quiet_run_says_that_it_lives_while_another_run_is_busy(
    place: Place, source: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "KEEPALIVE_S", 0.3)
    reader, over = Reader(place, "mammo"), threading.Event()
    reader.next()

    def go_on() -> None:
        number = 0
        while not over.wait(0.02):
            source.change("other", round=(number := number + 1))

    busy = threading.Thread(target=go_on)
    busy.start()
    try:
        reader.response.fp.raw._sock.settimeout(5.0)
        assert [reader.line(), reader.line(), reader.line()] == [": keepalive", "", ": keepalive"]
    finally:
        over.set()
        busy.join()
    reader.close()


def test_a_log_that_was_made_anew_by_a_clock_that_is_behind_is_told(place: Place, source: Standin) -> None:
    for number in range(3):
        source.happens("mammo", f"before-{number}")
    reader = Reader(place, "mammo")
    assert len(reader.until("log").data) == 3
    source.log["mammo"] = []
    for name in ("after-0", "after-1"):
        source.happens("mammo", name)
        assert reader.until("log").data[-1]["event"] == name
    reader.close()


def test_a_run_that_is_removed_is_said(place: Place, source: Standin) -> None:
    reader = Reader(place, "mammo")
    reader.next()
    del source.documents["mammo"], source.log["mammo"]
    source.change("other", round=1)
    then = reader.next()
    assert (then.name, then.data) == ("runasof", pytest.approx(source.read_ms(), abs=60_000))
    assert "no run 'mammo'" in reader.next().data
    source.documents["mammo"], source.log["mammo"] = {"run": "mammo"}, []
    source.change("mammo", round=2)
    assert reader.next().data == "", "and it is said once, and taken back"
    assert reader.next().data == {"round": 2}
    reader.close()


def test_a_page_may_wait_for_its_run(source: Standin) -> None:
    where = bound("127.0.0.1", 0, token=None)
    with serving(Page(source, awaited=["new"]), where):
        reader = Reader(where, "new")
        assert "no run 'new'" in reader.next().data
        source.documents["new"], source.log["new"] = {"run": "new"}, []
        source.change("new", round=1)
        assert [(event := reader.next()).name, event.data] == ["problem", ""]
        assert reader.next().data == {"run": "new", "round": 1}
        reader.close()


def test_a_stream_is_compressed_piece_by_piece(place: Place, source: Standin) -> None:
    reader = Reader(place, "mammo", accept_encoding="gzip")
    assert reader.response.getheader("content-encoding") == "gzip"
    unpack, text = zlib.decompressobj(31), b""
    while b"document" not in text:
        text += unpack.decompress(reader.response.read1(1000))
    source.change("mammo", round=5)
    while b'{"round":5}' not in text:
        text += unpack.decompress(reader.response.read1(1000))
    reader.close()


def test_head_is_answered_and_done(place: Place) -> None:
    connection = http.client.HTTPConnection(place.host, place.port, timeout=LONG_S)
    connection.request("HEAD", "/api/stream?run=mammo")
    assert connection.getresponse().read() == b""
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()


def test_all_streams_end_with_the_server(source: Standin) -> None:
    page, where = Page(source), bound("127.0.0.1", 0, token=None)
    with serving(page, where) as ended:
        readers = [Reader(where, "mammo") for _ in range(5)]
        for reader in readers:
            reader.next()
        raw = socket.create_connection((where.host, where.port))
        raw.sendall(b"GET /api/stream?run=mammo HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while b"event: document" not in raw.recv(65536):
            pass
        began = time.monotonic()
    assert ended.is_set()
    with raw, raw.makefile("rb") as rest:
        assert rest.read().endswith(b"0\r\n\r\n"), "the answer is complete"
    assert time.monotonic() - began < 2.0
    for reader in readers:
        with pytest.raises(EOFError):
            reader.next()
        reader.close()
