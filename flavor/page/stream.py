"""What changes, as it changes: Server-Sent Events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

`/api/stream?run=RUN` tells of a run, `/api/stream` of the list of runs (as an object, by name):

- `event: clock`, before the document of the list: the time of the Redis server, in ms since 1970;
- `event: document`, the whole document, at the beginning and wherever patches would not do;
- `event: patch`, a merge patch (RFC 7396) to the document so far;
- `event: log`, a list of entries of the run's log, oldest first; at the beginning the newest of them;
- `event: problem`, a string: why Redis or the run cannot be read; '' once it can again. Before the former comes `event:
  asof`, the time of which everything is that was told, in milliseconds by the clock of the Redis server; or `event:
  runasof`, where Redis answers, and has this run no more, or none that can be read.

Data are JSON. A comment every 15 s keeps proxies from cutting the connection. The `id` is EPOCH-VERSION-LOGID, and
tells of no more than what came up to its event: a page may be cut off after any. A browser that comes back sends the
last id it has seen (the header Last-Event-ID, or `?last=`), and is told only what has changed since, or is given the
document, where this is another process or too much has happened.

Nothing is kept for a page that reads slowly. A stream looks for news when its last ones are gone, so what waits for a
page is one document, cut into small pieces. A page that takes nothing for a minute is cut off, and comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flavor.errors import BusUnavailable, DamagedRecord, FlavorError
from flavor.page.answer import refused, takes_gzip, to_json
from flavor.page.source import Source
from flavor.view.run_log import order_of

MOST_STREAMS = 64
"""How many pages can be live at a time."""
KEEPALIVE_S = 15.0
STALLED_S = 60.0
"""How long a page may take none of what is sent to it."""
_WAIT_S = 1.0
_PAUSE_S = 0.05
"""Least time between two looks of one page."""
_PIECE_BYTES = 64 * 1024
_FIRST_ENTRIES = 200
_MOST_ENTRIES = 2000
_KEPT_DOCUMENTS = 2
_KEPT_S = 1.0
_MOST_THREADS = 4
_TOLD = re.compile(r"([0-9]{1,15})-((?:[0-9]{1,19}-[0-9]{1,19})?)")
"""VERSION-LOGID, as `Streams` writes it."""


@dataclass
class Position:
    """Up to where a page has been told."""

    version: int | None = None
    """None before the first document."""
    entry: str = ""
    """Id of the newest entry of the log that it has."""
    problem: str = ""

    @classmethod
    def of(cls, text: str, epoch: str) -> Position:
        """Read an id of this process's streams; for any other text, the beginning."""
        made_by, _, rest = text.partition("-")
        found = _TOLD.fullmatch(rest)
        if made_by != epoch or found is None:
            return cls()
        return cls(int(found[1]), found[2])


class Streams:
    """All streams of a process. One thread waits for news, and wakes them.

    A stream of one of the `awaited` runs may begin before the run does.
    """

    def __init__(self, source: Source, awaited: Collection[str] = ()) -> None:
        self._source, self._awaited = source, awaited
        self.epoch = secrets.token_hex(4)
        """Begins the ids of this process."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: dict[asyncio.Event, Position] = {}
        self._closing = threading.Event()
        self._documents: OrderedDict[tuple[str, int], tuple[float, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self._threads: anyio.CapacityLimiter | None = None

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    def are_told(self, version: int) -> bool:
        """Whether all open pages have been sent what there was in this version. May be called in any thread."""
        with contextlib.suppress(RuntimeError):  # one was opened or closed while this looked
            return all((position.version or 0) >= version for position in self._open.values())
        return False

    def start(self) -> None:
        """Begin to wait for news; call it in the loop of the server."""
        self._loop = asyncio.get_running_loop()
        self._threads = anyio.CapacityLimiter(_MOST_THREADS)
        threading.Thread(target=self._listen, name="page-news", daemon=True).start()

    def close(self) -> None:
        """End all streams. May be called in any thread."""
        self._closing.set()
        self._call(self._wake)

    def _listen(self) -> None:
        version = -1
        while not self._closing.is_set():
            newest = self._source.wait(version, _WAIT_S)
            if newest != version:  # else a stream would never be idle for so long that it says that it lives
                version = newest
                self._call(self._wake)

    def _call(self, function: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the server's loop is closed
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function)

    def _wake(self) -> None:
        for event in list(self._open):
            event.set()

    async def answer(self, request: Request) -> Response:
        """Answer a request with a stream, or say why there is none."""
        run = request.query_params.get("run", "")
        if len(self._open) >= MOST_STREAMS:
            error = f"{MOST_STREAMS} pages are live already"
            return refused(503, error, "close some, and load this one again", headers={"retry-after": "10"})
        last = request.headers.get("last-event-id") or request.query_params.get("last", "")
        position, news = Position.of(last, self.epoch), asyncio.Event()
        self._open[news] = position  # before anything is awaited: many may ask at the same time
        try:
            if run and run not in self._awaited:
                with contextlib.suppress(BusUnavailable, DamagedRecord):  # the stream says so, and goes on
                    await self._in_thread(self._source.document, run)  # raises RunNotFound
            packed = takes_gzip(request.headers.get("accept-encoding", ""))
            return _Stream(self, run, position, news, packed=packed, is_head=request.method == "HEAD")
        except BaseException:
            del self._open[news]
            raise

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._threads)

    # -- what is new, read in a thread

    def news(self, run: str, position: Position) -> bytes:
        """Return the events since `position`, which is moved up to now; b'' where nothing has happened."""
        problem, found, before = self._source.problem(), list[bytes](), replace(position)
        of_then = "asof" if problem else ""
        try:
            found += self._changes(run, position)
            if run:
                found += self._entries(run, position)
        except FlavorError as error:
            if not problem and position.version is not None:
                of_then = "runasof"  # the run was removed or lost, or cannot be read: what the page has is from before
            problem = problem or str(error)
        if problem != position.problem:
            position.problem = problem
            when = self._event(of_then, before, to_json(self._source.read_ms())) if of_then else b""
            found.insert(0, when + self._event("problem", before, to_json(problem)))  # it has none of `found` yet
        return b"".join(found)

    def _changes(self, run: str, position: Position) -> Iterable[bytes]:
        newest = self._source.version()
        patches = None if position.version is None else self._source.patches(run, position.version)
        if patches is None:
            clock = [] if run else [self._event("clock", position, to_json(self._source.now_ms()))]
            position.version, body = self._document(run)
            return [*clock, self._event("document", position, body)]
        found = []
        for version, patch in patches:
            position.version = version
            found.append(self._event("patch", position, to_json(patch)))
        position.version = max(position.version or 0, newest)
        return found

    def _document(self, run: str) -> tuple[int, bytes]:
        """The document, and a version that it has at least: to apply a patch again changes nothing in the end.

        Pages that ask at the same time are given the same one. It is not kept for long: it has the time in it.
        """
        version, now = self._source.version(), time.monotonic()
        with self._lock:
            made_at, body = self._documents.get((run, version), (0.0, b""))
            if not body or now - made_at > _KEPT_S:
                value: Any = {row["run"]: row for row in self._source.runs()} if not run else self._source.document(run)
                body = to_json(value)
                self._documents[run, version] = (now, body)
            while len(self._documents) > _KEPT_DOCUMENTS:
                self._documents.popitem(last=False)
            return version, body

    def _entries(self, run: str, position: Position) -> Iterable[bytes]:
        most = _MOST_ENTRIES if position.entry else _FIRST_ENTRIES
        entries = self._source.events(run, position.entry, most)
        newest = self._source.events(run, "", 1) if position.entry and not entries else ()
        if newest and order_of(newest[-1]["id"]) < order_of(position.entry):  # made anew, by a clock that is behind
            entries = self._source.events(run, "", _FIRST_ENTRIES)
        if not entries:
            return []
        position.entry = str(entries[-1]["id"])
        return [self._event("log", position, to_json(entries))]

    def _event(self, name: str, position: Position, data: bytes) -> bytes:
        """One event; its id tells up to where the page has been told, once it has this event."""
        version = "" if position.version is None else position.version
        number = f"id: {self.epoch}-{version}-{position.entry}\n" if version != "" else ""
        return f"event: {name}\n{number}data: ".encode() + data + b"\n\n"  # JSON as `to_json` writes it is one line


class _Stream(Response):
    """One page's stream. Its place among the open ones, by the event `news`, is given back at its end."""

    def __init__(
        self, streams: Streams, run: str, position: Position, news: asyncio.Event, *, packed: bool, is_head: bool
    ) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no", "vary": "accept-encoding"}
        if packed:
            headers["content-encoding"] = "gzip"
        super().__init__(None, 200, headers, media_type="text/event-stream")
        del self.headers["content-length"]
        self._streams, self._run, self._position, self._news = streams, run, position, news
        self._packer = zlib.compressobj(4, zlib.DEFLATED, 16 + 13, 6) if packed else None
        self._is_head = is_head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if not self._is_head:
                left = asyncio.ensure_future(_left(receive))
                left.add_done_callback(lambda _: self._news.set())
                try:
                    await self._follow(self._news, left, send)
                except TimeoutError:
                    return  # the connection is closed, as the answer is not complete
                finally:
                    left.cancel()
        finally:
            self._streams._open.pop(self._news, None)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _follow(self, news: asyncio.Event, left: asyncio.Future[None], send: Send) -> None:
        await self._send(b"retry: 2000\n\n", send)
        loop = asyncio.get_running_loop()
        sent_at = loop.time()  # news of other runs wake this stream, too, and send nothing
        while not (self._streams._closing.is_set() or left.done()):
            news.clear()
            told = replace(self._position)
            found = await self._streams._in_thread(self._streams.news, self._run, told)
            if not found and loop.time() - sent_at >= KEEPALIVE_S:
                found = b": keepalive\n\n"
            if found:
                await self._send(found, send)
                sent_at = loop.time()
            self._streams._open[news] = self._position = told
            if not found:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(sent_at + KEEPALIVE_S):
                        await news.wait()
            await asyncio.sleep(_PAUSE_S)  # what happens in many runs wakes each page

    async def _send(self, body: bytes, send: Send) -> None:
        if self._packer is not None:
            body = self._packer.compress(body) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        for at in range(0, len(body), _PIECE_BYTES):
            async with asyncio.timeout(STALLED_S):
                await send({"type": "http.response.body", "body": body[at : at + _PIECE_BYTES], "more_body": True})


async def _left(receive: Receive) -> None:
    """Return when the browser has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
