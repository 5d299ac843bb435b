"""The door of the page's server: a request, whose every part another party wrote."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from flavor.page import guard
from flavor.page.app import Page
from flavor.page.guard import HEADERS
from tests.standin import Standin

TOKEN = "a-token-of-the-fuzzer"
_NAMES = (b"host", b"cookie", b"authorization", b"last-event-id", b"if-none-match", b"accept-encoding")


@cache
def _pages() -> tuple[Page, Page]:
    guard._WRONG_TOKEN_S = 0.0
    source = Standin(mammo={"run": "mammo", "state": "running"})
    return Page(source), Page(source, token=TOKEN)


def fuzz_request(data: bytes) -> None:
    """A request of a browser: lines with the method, the path, the query, headers, and then the body of a form."""
    lines = [*data.split(b"\n", 9), *[b""] * 10]
    method, path, query, *values, body = (line.strip() for line in lines[:10])
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method.decode("latin-1").upper() or "GET",
        "scheme": "http",
        "path": "/" + path.decode("utf-8", "replace").lstrip("/"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(name, value) for name, value in zip(_NAMES, values, strict=True) if value],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8600),
    }
    rest = path + values[0] + query.replace(f"token={TOKEN}".encode(), b"", 1)
    is_shown = TOKEN.encode() in rest  # of which a page or an error quotes parts
    for page in _pages():
        answer = _apart().submit(asyncio.run, _asked(page, scope, body)).result()
        assert is_shown or TOKEN.encode() not in answer


@cache
def _apart() -> ThreadPoolExecutor:
    """A thread without an event loop: the main thread has one in which Playwright's tests have run."""
    return ThreadPoolExecutor(1)


async def _asked(page: Page, scope: dict[str, Any], body: bytes) -> bytes:
    sent: list[dict[str, Any]] = []
    told = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return told.pop() if told else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await page.app({**scope}, receive, send)
    assert sent[0]["status"] in (200, 204, 303, 304, 400, 401, 403, 404, 405, 413, 429), sent[0]
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    assert headers.items() >= HEADERS.items()
    assert headers.get("location", "/").startswith("/")
    assert not headers.get("location", "/").startswith("//")
    return b"".join(message.get("body", b"") for message in sent)
