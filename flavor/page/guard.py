"""Who may see the page: stands in front of everything, and puts the security headers on every answer.

With a token, a browser shows it once, and then has a cookie. Without a token, the page is for this machine alone: it
answers only to this machine's own names, so that no web site can reach it through a name of its own that leads here
(DNS rebinding). It also refuses what a proxy shows of itself, its headers or HTTP/1.0, since a proxy might let others
in. A proxy that shows nothing cannot be told from a browser of this machine: only a token keeps others out then.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flavor.own_machine import is_link, is_of_another_site, why_foreign
from flavor.page.answer import refused
from flavor.page.assets import Assets
from flavor.page.token import COOKIE_S, Token
from flavor.say import say
from flavor.stamp import stamp

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""No script, style or address but the page's own, and no text that becomes markup, such as a site's name."""
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_PUBLIC = ("/static/", "/healthz", "/login", "/favicon.ico")
_NOT_LINKED = ("/api/", "/healthz", "/static/")
_OF_PROGRAMS = (*_NOT_LINKED, "/metrics")  # to which Prometheus's page of its targets has a link
_LARGEST_FORM_BYTES = 4096
_WRONG_TOKEN_S = 1.0
_SAID = "flavor.said"
"""The error in a request's scope whose trace is printed."""
_MOST_LOGINS = 16
"""How many wrong tokens are answered at a time, each after `_WRONG_TOKEN_S` seconds."""


class Guard:
    """Lets a request through, or answers it. `token` is None for a page that this machine alone can reach."""

    def __init__(self, app: ASGIApp, token: Token | None, assets: Assets) -> None:
        self._app, self._token, self._assets = app, token, assets
        self._wrong = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return
        began = False

        async def sent(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        try:
            answer = await self._answer(Request(scope, receive))
            await (answer or self._app)(scope, receive, sent)
        except (ClientDisconnect, OSError):
            return
        except Exception as error:
            if scope.get(_SAID) is not error:
                answer = broken(scope, error)
                if began:
                    raise
                await answer(scope, receive, sent)

    async def _answer(self, request: Request) -> Response | None:
        """Answer what is not for the app behind; None for what is."""
        path, method = _path(request), request.method
        if method not in ("GET", "HEAD") and not (method == "POST" and path == "/login"):
            return refused(405, f"the page only shows: it has no {method[:20]}", headers={"allow": "GET, HEAD"})
        if _is_foreign(request):
            return refused(403, "another web site asked for this", "open the page itself")
        if self._token is None:
            return _not_of_this_machine(request)
        return await self._shown_token(request, self._token)

    async def _shown_token(self, request: Request, token: Token) -> Response | None:
        path = _path(request)
        if path == "/login":
            return await self._login(request, token)
        if "token" in request.query_params and not path.startswith(_OF_PROGRAMS):
            return await self._link(request, token)
        if path.startswith(_PUBLIC) or self._may(request, token):
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and given:
            return await self._is_wrong(None)
        if path.startswith(_OF_PROGRAMS):
            return _login_first()
        return self._assets.shell(request, "login.html", status=401)

    def _may(self, request: Request, token: Token) -> bool:
        if (session := request.cookies.get(token.cookie)) and token.is_session(session):
            return True
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and token.is_it(given.strip())

    async def _login(self, request: Request, token: Token) -> Response:
        """Take the form: a right token gets a cookie, and the page that was asked for."""
        if request.method != "POST":
            return self._assets.shell(request, "login.html")
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _LARGEST_FORM_BYTES:
                return refused(413, "a token is shorter than that")
        form = parse_qs(body.decode("utf-8", errors="replace"))
        next_ = _own_path(form.get("next", ["/"])[0])
        if not token.is_it(form.get("token", [""])[0].strip()):
            return await self._is_wrong(f"/login?{urlencode({'wrong': 1, 'next': next_})}")
        return _logged_in(RedirectResponse(next_, 303), request, token)

    async def _link(self, request: Request, token: Token) -> Response:
        """Take the token out of a link, so that it stays in no address bar, and in no history.

        A page that goes on by itself, and no redirect: after a link on another web site, a browser would not give the
        new cookie (SameSite=Strict) to the address of a redirect.
        """
        rest = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
        path = _own_path(quote(_path(request)) + (f"?{urlencode(rest)}" if rest else ""))
        if not token.is_it(request.query_params["token"]):
            return await self._is_wrong(f"/login?{urlencode({'wrong': 1, 'next': path})}")
        address = path.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
        page = f'<!doctype html><title>flavor</title><meta http-equiv="refresh" content="0; url={address}">'
        return _logged_in(HTMLResponse(page, headers={"cache-control": "no-store"}), request, token)

    async def _is_wrong(self, address: str | None) -> Response:
        """Answer a wrong token, after a while: with the form at `address` again, or with an error."""
        if self._wrong >= _MOST_LOGINS:
            return refused(429, "too many wrong tokens", "wait for a few seconds", headers={"retry-after": "5"})
        self._wrong += 1
        try:
            await asyncio.sleep(_WRONG_TOKEN_S)
        finally:
            self._wrong -= 1
        return _login_first(wrong=True) if address is None else RedirectResponse(address, 303)


def broken(scope: MutableMapping[str, Any], error: Exception) -> Response:
    """Print the trace of a fault of this program, and return the answer to the browser, which says only where it is."""
    scope[_SAID] = error
    trace = "".join(traceback.format_exception(error))
    say(f"{stamp()}flavor: the page could not answer {str(scope.get('path', ''))[:200]!r}:\n{trace}", end="")
    return refused(500, "the page's server made a mistake", "report it with what the terminal of `flavor ui` shows")


def _login_first(*, wrong: bool = False) -> Response:
    error = "this is not the token of this page" if wrong else "this page asks for its token"
    hint = "log in at /login, or send the header `Authorization: Bearer TOKEN`"
    return refused(401, error, hint, headers={"www-authenticate": "Bearer"})


def _logged_in(response: Response, request: Request, token: Token) -> Response:
    response.set_cookie(
        token.cookie,
        token.session(),
        max_age=COOKIE_S,
        httponly=True,
        samesite="strict",
        secure=request.scope.get("scheme") == "https",
    )
    return response


def _not_of_this_machine(request: Request) -> Response | None:
    """Refuse what may come from elsewhere, on a page without a token."""
    hint = "start `flavor ui` with a token (--token, or FLAVOR_UI_TOKEN): then it can be reached under any name"
    version = str(request.scope.get("http_version", ""))
    if why := why_foreign(request.headers.items(), version):
        return refused(403, f"this page is for its own machine alone, and {why}", hint)
    return None


def _is_foreign(request: Request) -> bool:
    """Whether a browser says that another web site asks, unless its user follows a link to a page."""
    headers = request.headers
    if not is_of_another_site(headers.get("sec-fetch-site", "")):
        return False
    follows_link = is_link(headers.get("sec-fetch-mode", ""), headers.get("sec-fetch-dest", ""))
    return not follows_link or request.method == "POST" or _path(request).startswith(_NOT_LINKED)


def _own_path(text: str) -> str:
    """Return the text if it is a path of this page; else '/'."""
    if text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and text.isascii():
        return text
    return "/"


def _path(request: Request) -> str:
    """Return the path as it was asked for. `request.url` would also read the header Host, which may be anything."""
    return str(request.scope["path"])
