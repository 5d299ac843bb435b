"""A page on a `Board`, with the metrics of its runs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from flavor.errors import FlavorError
from flavor.metrics.scrape import Scraper
from flavor.page.app import Page
from flavor.page.server import Place, serving
from flavor.view.board import Board

_LAST_NEWS_S = 2.0
"""How long the page of a run that has ended waits until open pages show so, before it ends itself."""
_LOOK_S = 0.02


@contextlib.contextmanager
def shown_board(url: str, board: Board, place: Place, *, token: str | None = None) -> Iterator[threading.Event]:
    """Show a board that has started. The event tells that the server has ended by itself."""
    page = Page(board, token=token, metrics=Scraper.on(url, board).answer)
    with serving(page, place) as ended:
        yield ended


@contextlib.contextmanager
def shown_run(url: str, board: Board, place: Place, run: str, *, token: str | None = None) -> Iterator[None]:
    """Show a run that may not have begun, on a board that has started, until the run has ended and pages show so."""
    page = Page(board, token=token, metrics=Scraper.on(url, board).answer, awaited=[run])
    with serving(page, place):
        yield
        _await_last_news(page, board, run)


def _await_last_news(page: Page, board: Board, run: str) -> None:
    """Wait until open pages know how the run ended; only for a moment, where they do not learn it."""
    deadline, version = time.monotonic() + _LAST_NEWS_S, 0
    while page.streams.count and time.monotonic() < deadline:
        with contextlib.suppress(FlavorError):
            if not version and board.document(run)["ended_ms"] is not None:
                version = board.version()
        if version and page.streams.are_told(version):
            return
        time.sleep(_LOOK_S)
