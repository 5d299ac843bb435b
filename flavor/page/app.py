"""The page's server as an ASGI application (starlette): its addresses, and who may ask them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flavor.errors import FlavorError
from flavor.page.answer import answered, refused
from flavor.page.api import Api, failed
from flavor.page.assets import Assets
from flavor.page.guard import Guard, broken
from flavor.page.source import Source
from flavor.page.stream import Streams
from flavor.page.token import Token

Metrics = Callable[[str], tuple[bytes, str]]
"""Makes the text for Prometheus, and its media type, for a header Accept. Called in a thread."""
_SHELLS = ("/", "/run/{rest:path}", "/compare", "/queue")
"""Addresses that the page's own script shows."""


class Page:
    """The application, and its streams. `token` is None for a page that this machine alone can reach.

    The page of one of the `awaited` runs may be opened before the run begins.
    """

    def __init__(
        self,
        source: Source,
        *,
        token: str | None = None,
        metrics: Metrics | None = None,
        awaited: Collection[str] = (),
        assets: Assets | None = None,
    ) -> None:
        self._source, self._metrics = source, metrics
        self._assets = assets or Assets()
        self.streams = Streams(source, awaited)
        app = Starlette(
            routes=[
                *Api(source).routes(),
                Route("/api/stream", self.streams.answer, methods=["GET"]),
                Route("/metrics", self._measured, methods=["GET"]),
                Route("/healthz", self._healthy, methods=["GET"]),
                Route("/favicon.ico", self._icon, methods=["GET"]),
                Route("/static/{path:path}", self._file, methods=["GET"]),
                *(Route(path, self._shell, methods=["GET"]) for path in _SHELLS),
            ],
            exception_handlers={FlavorError: _failed, HTTPException: self._not_there, Exception: _broken},
            lifespan=self._alive,
        )
        app.router.redirect_slashes = False  # to an address made of the header Host
        self.app = Guard(app, Token(token) if token else None, self._assets)

    @contextlib.asynccontextmanager
    async def _alive(self, app: Starlette) -> AsyncIterator[None]:
        self.streams.start()
        try:
            yield
        finally:
            self.streams.close()

    async def _shell(self, request: Request) -> Response:
        return self._assets.shell(request)

    async def _file(self, request: Request) -> Response:
        return self._assets.answer(request)

    async def _icon(self, request: Request) -> Response:
        return Response(None, 204, {"cache-control": "max-age=86400"})  # the shell names an icon of its own

    async def _healthy(self, request: Request) -> Response:
        """Answer that this process lives; a Redis that is away is no reason to start it again."""
        return answered(request, {"ok": True, "redis": "away" if self._source.problem() else "ok"})

    async def _measured(self, request: Request) -> Response:
        if self._metrics is None:
            return refused(404, "there are no metrics here", "`flavor metrics` gives them to Prometheus")
        body, kind = await anyio.to_thread.run_sync(self._metrics, request.headers.get("accept", ""))
        return Response(body, 200, {"cache-control": "no-store", "content-type": kind})

    async def _not_there(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404 and "text/html" in request.headers.get("accept", ""):
            return self._assets.shell(request, status=404)
        return refused(error.status_code, f"there is nothing at {request.scope['path'][:200]!r}")


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, FlavorError)
    return failed(error)


async def _broken(request: Request, error: Exception) -> Response:
    return broken(request.scope, error)
