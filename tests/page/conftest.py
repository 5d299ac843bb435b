"""A real browser that looks at the page: Debian's Chromium, driven by playwright. Without them, these tests skip."""

from __future__ import annotations

import shlex
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest

from flavor.page.app import Page as Served
from flavor.page.server import Place, bound, serving
from tests.page.made_up import MadeUp

CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 20_000
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"]


def expect(found: Any) -> Any:
    from playwright.sync_api import expect as of

    return of(found)


def unknown(shown: str) -> list[str]:
    """What of the command lines that a page shows is no command or option."""
    import click

    from flavor.cli.flavor_agg import command as aggregator
    from flavor.cli.main import cli

    wrong = []
    for line in shown.splitlines():
        program, *words = shlex.split(line)
        if program == "rq":
            continue
        found = cli.get_command(click.Context(cli), words[0]) if program == "flavor" else aggregator
        options = {option for each in (found.params if found else ()) for option in (*each.opts, "--help")}
        wrong += [f"{line}: {word}" for word in words if word.startswith("-") and word not in options]
        wrong += [] if found else [line]
    return wrong


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of this process."""
    if CHROMIUM is None:
        pytest.skip("no Chromium to look at the page with")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright to look at the page with")
    playwright.expect.set_options(timeout=PATIENCE_MS)
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


class Nothing(BaseHTTPRequestHandler):
    """Answers every request with an empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *said: object) -> None:
        """Keep silent."""


@contextmanager
def serving_nothing(port: int) -> Iterator[None]:
    """Serve empty pages on this port."""
    with ThreadingHTTPServer(("127.0.0.1", port), Nothing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class Window:
    """The browser's window. What the browser complains about, such as a broken policy, is kept."""

    def __init__(self, browser: Any) -> None:
        self.page = browser.new_context(timezone_id="UTC").new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._said)
        self._keeps_plots = False

    def keep_plots(self) -> None:
        """Keep all plots of pages that are opened from now on, in the order in which they are made, as `plots`."""
        if not self._keeps_plots:
            self.page.add_init_script(
                "let of; window.plots = []; Object.defineProperty(window, 'uPlot', { get: () => of, set(plain) {"
                " of = class extends plain { constructor(...given) { super(...given); plots.push(this); } }; } });"
            )
        self._keeps_plots = True

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def open(self, address: str, path: str = "/", *, wide: int = 1280, high: int = 900, scheme: str = "light") -> Any:
        """Open a page, and return it as playwright knows it."""
        self.page.set_viewport_size({"width": wide, "height": high})
        self.page.emulate_media(color_scheme=scheme)
        self.page.goto(address.rstrip("/") + path, wait_until="domcontentloaded")
        return self.page

    def leave(self) -> None:
        """Show nothing of the page, but of its address: the browser starts a process whenever it goes to another site.

        Where the page's server has ended, another one answers there for so long.
        """
        found = urlsplit(self.page.url)
        if not found.port:
            return
        with ExitStack() as stack:
            try:
                socket.create_connection((found.hostname, found.port), 1).close()
            except OSError:
                try:
                    stack.enter_context(serving_nothing(found.port))
                except OSError:  # a program of another test has just taken the port
                    self.page.goto("about:blank")
                    return
            self.page.goto(urljoin(self.page.url, "/healthz"))


@pytest.fixture(scope="session")
def only_window(browser: Any) -> Window:
    """One for all tests of this process: another one would be another process."""
    return Window(browser)


@pytest.fixture
def window(only_window: Window) -> Iterator[Window]:
    """The window, of which a test fails at its end if the browser has complained."""
    only_window.complaints.clear()
    yield only_window
    only_window.leave()
    assert only_window.complaints == []


@pytest.fixture(scope="session")
def port() -> int:
    """That of the pages of all tests, for which the browser has one process, and keeps what it has compiled."""
    place = bound("127.0.0.1", 0, token=None)
    place.socket.close()
    return place.port


@pytest.fixture
def place(port: int) -> Place:
    """Where a test serves its page, which it does itself."""
    return bound("127.0.0.1", port, token=None, or_free=True)


@pytest.fixture
def served(port: int) -> Iterator[Callable[[Sequence[dict[str, Any]]], tuple[MadeUp, Place]]]:
    """Serve made-up runs: `served(documents)`."""
    with ExitStack() as stack:

        def serve(documents: Sequence[dict[str, Any]]) -> tuple[MadeUp, Place]:
            source = MadeUp(documents)
            place = bound("127.0.0.1", port, token=None, or_free=True)
            page = Served(source)
            source.streams = page.streams
            stack.enter_context(serving(page, place))
            return source, place

        yield serve
