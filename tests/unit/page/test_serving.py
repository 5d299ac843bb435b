"""The page's server: what it answers, and to whom."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from flavor.errors import BusUnavailable, RunNotFound, StoreUnavailable
from flavor.page import assets
from flavor.page.app import Page
from flavor.page.guard import HEADERS, POLICY
from flavor.page.server import Place, bound, serving
from tests.standin import Standin

TOKEN = "a-token-of-the-test"
WRONG_TYPE = BusUnavailable("Redis at x: WRONGTYPE Operation against a key")
WRONG_TYPE.__cause__ = ResponseError("WRONGTYPE Operation against a key")


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Browser:
    """Asks one server."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.place.host, self.place.port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        found = connection.getresponse()
        answer = Answer(found.status, {name.lower(): value for name, value in found.getheaders()}, found.read())
        connection.close()
        return answer


@pytest.fixture(scope="module")
def source() -> Standin:
    return Standin(mammo={"run": "mammo", "state": "running", "loss": float("nan"), "many": ["x"] * 1000})


@pytest.fixture(scope="module")
def open_(source: Standin) -> Iterator[Browser]:
    """Without a token."""
    place = bound("127.0.0.1", 0, token=None)
    with serving(Page(source, metrics=lambda accept: (accept.encode(), "text/made-up")), place):
        yield Browser(place)


@pytest.fixture(scope="module")
def shut(source: Standin) -> Iterator[Browser]:
    """With a token."""
    place = bound("127.0.0.1", 0, token=TOKEN)
    with serving(Page(source, token=TOKEN), place):
        yield Browser(place)


def test_a_run_is_json_that_a_browser_takes(open_: Browser) -> None:
    answer = open_.ask("/api/runs/mammo")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json["state"] == "running"
    assert answer.json["loss"] is None
    assert answer.headers["cache-control"] == "no-store"
    packed = open_.ask("/api/runs/mammo", accept_encoding="br, gzip")
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == answer.body
    assert "content-encoding" not in open_.ask("/api/runs/mammo", accept_encoding="gzip;q=0").headers
    assert open_.ask("/api/runs").json[0]["run"] == "mammo"
    assert open_.ask("/api/runs/mammo", "HEAD").body == b""
    assert open_.ask("/api/runs/mammo/settings").json == {"rounds": 3, "max_update_norm": None, "secret": "?"}
    assert open_.ask("/metrics", accept="x/y").body == b"x/y"


@pytest.mark.parametrize("path", ["/", "/api/runs", "/api/runs/none", "/static/login.js", "/healthz", "/nothing"])
def test_every_answer_has_the_headers(open_: Browser, path: str) -> None:
    headers = open_.ask(path).headers
    assert {name: headers.get(name) for name in HEADERS} == HEADERS
    assert "server" not in headers
    assert "unsafe" not in POLICY
    assert POLICY.startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/runs/none", 404, "no run 'none'"),
        ("/api/stream?run=none", 404, "no run 'none'"),
        ("/api/runs/mammo/rounds/x", 400, "a round has a number"),
        ("/api/runs/mammo/rounds?after=-1", 400, "after='-1'"),
        ("/api/runs/mammo/events?before=x", 400, "before='x'"),
        (f"/api/runs/mammo/events?kind={','.join(map(str, range(101)))}", 400, "kind= names 101 kinds of events"),
        ("/api/runs/", 404, "nothing at '/api/runs/'"),
        ("/api/nothing", 404, "nothing at '/api/nothing'"),
        ("/static/../app.py", 404, "no file"),
        ("/static/%2e%2e/app.py", 404, "no file"),
        ("/static//etc/passwd", 404, "no file"),
    ],
)
def test_what_is_not_there_is_one_line(open_: Browser, path: str, status: int, words: str) -> None:
    answer = open_.ask(path)
    assert answer.status == status
    assert words in answer.json["error"]
    assert "\n" not in answer.json["error"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BusUnavailable("Redis at x: no"), 503),
        (WRONG_TYPE, 500),  # which does not pass
        (StoreUnavailable("the store"), 502),
    ],
)
def test_what_cannot_be_read_is_said_with_advice(
    open_: Browser, source: Standin, error: Exception, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "fails", error)
    answer = open_.ask("/api/queue")
    assert (answer.status, answer.json["error"]) == (status, str(error))
    assert ("goes on by itself" in answer.json["hint"]) is (status == 503)
    assert answer.json["hint"]


def test_a_fault_of_the_server_is_said_and_its_trace_is_in_the_terminal(
    open_: Browser, source: Standin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(source, "fails", KeyError("secret"))
    answer = open_.ask("/api/queue")
    assert (answer.status, answer.json["error"]) == (500, "the page's server made a mistake")
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert "secret" not in answer.body.decode()
    assert capsys.readouterr().err.count("KeyError: 'secret'") == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_it_only_shows(open_: Browser, method: str) -> None:
    answer = open_.ask("/api/runs", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/run/mammo", "/run/mammo/rounds/3", "/compare?a=1", "/queue"])
def test_a_browser_loads_files_once(open_: Browser, path: str) -> None:
    shell = open_.ask(path)
    assert (shell.status, shell.headers["cache-control"]) == (200, "no-cache")
    assert shell.headers["content-type"] == "text/html; charset=utf-8"
    assert open_.ask(path, if_none_match=shell.headers["etag"]).status == 304


def test_files_are_kept_for_good_under_their_digest(shut: Browser) -> None:
    page = shut.ask("/login").body.decode()
    address = page.partition('src="')[2].partition('"')[0]
    assert address.startswith("/static/")
    assert address.endswith("/login.js")
    found = shut.ask(address, accept_encoding="gzip")
    assert found.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert found.headers["content-type"] == "text/javascript; charset=utf-8"
    plain = shut.ask("/static/login.js")
    assert plain.headers["cache-control"] == "no-cache"
    assert gzip.decompress(found.body) == plain.body
    earlier = address.replace(address.split("/")[2], "0" * 16)
    assert shut.ask(earlier).headers["cache-control"] == "no-cache"
    assert shut.ask(address, if_none_match=plain.headers["etag"]).status == 304


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8600", "[::1]:8600", "page.localhost:1"])
def test_without_a_token_it_answers_to_the_names_of_its_machine(open_: Browser, host: str) -> None:
    assert open_.ask("/api/runs", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example:8600",
        "127.0.0.1.evil.example",
        "evillocalhost",
        "",
        "[::2]",
        "[",
        "]",
        "@",
        *("[::1].evil.com", "[::1]:80.evil.com", "localhost:80@evil.com", "127.0.0.1:8600:1", "evil.com/.localhost"),
        *("evil.com,x.localhost", "evil.com@x.localhost", "evil.com#.localhost", "127.\xb2"),
    ],
)
def test_and_to_no_other_name(open_: Browser, host: str) -> None:
    answer = open_.ask("/api/runs", host=host)
    assert answer.status == 403
    assert "--token" in answer.json["hint"]


@pytest.mark.parametrize(
    "header",
    [
        *("x_forwarded_for", "x_forwarded_host", "x_forwarded_port", "x_forwarded_server", "forwarded", "via"),
        *("x_original_host", "x_real_ip", "cf_connecting_ip", "true_client_ip"),
    ],
)
def test_and_to_no_proxy(open_: Browser, shut: Browser, header: str) -> None:
    assert open_.ask("/", **{header: "203.0.113.7"}).status == 403
    assert open_.ask("/", **{header: ""}).status == 403, "it hides who asks"
    assert shut.ask("/api/runs", authorization=f"Bearer {TOKEN}", **{header: "203.0.113.7"}).status == 200


def test_and_to_no_proxy_that_asks_as_nginx_does_by_default(open_: Browser, shut: Browser) -> None:
    """With HTTP/1.0, the page's own address as its host, and no header that tells of a proxy."""
    for browser, status in ((open_, b"403"), (shut, b"200")):
        with socket.create_connection((browser.place.host, browser.place.port), timeout=30) as connection:
            asks = f"GET /api/runs HTTP/1.0\r\nHost: 127.0.0.1:{browser.place.port}\r\nConnection: close\r\n"
            connection.sendall(f"{asks}Authorization: Bearer {TOKEN}\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.split()[1] == status


@pytest.mark.parametrize("path", ["/api/runs", "/api/stream", "/metrics"])
def test_another_web_site_gets_nothing(open_: Browser, path: str) -> None:
    for site in ("cross-site", "same-site"):
        assert open_.ask(path, sec_fetch_site=site).status == 403
        link = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
        assert open_.ask(path, sec_fetch_site=site, **link).status == (200 if path == "/metrics" else 403)


@pytest.mark.parametrize("path", ["/", "/run/mammo", "/login", "/login?token=wrong", "/favicon.ico"])
def test_another_web_site_can_link_to_the_page_and_ask_for_nothing(open_: Browser, shut: Browser, path: str) -> None:
    for browser in (open_, shut):
        linked = browser.ask(path, sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="document")
        assert "another web site" not in linked.body.decode(errors="replace")
        for mode, dest in (("no-cors", "empty"), ("navigate", "iframe"), ("cors", "document")):
            refused = browser.ask(path, sec_fetch_site="same-site", sec_fetch_mode=mode, sec_fetch_dest=dest)
            assert (refused.status, refused.json["error"]) == (403, "another web site asked for this")


def test_files_are_looked_at_once_a_second_however_many_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "index.html").write_text('<script src="/static/a.js">')
    (tmp_path / "a.js").write_text("1")
    looks: list[object] = []
    monkeypatch.setattr(assets.Path, "rglob", lambda path, of, real=Path.rglob: looks.append(path) or real(path, of))
    found = assets.Assets(tmp_path)
    before = found.digest
    (tmp_path / "a.js").write_text("22")
    assert [found.digest for _ in range(9)] == [before] * 9
    assert len(looks) == 1
    monkeypatch.setattr(assets, "_LOOK_S", 0.0)
    assert found.digest != before, "a file that is changed is read again"


@pytest.mark.parametrize("path", ["/api/runs", "/api/runs/mammo", "/api/stream?run=mammo", "/metrics", "/api/nothing"])
def test_a_token_is_asked_for(shut: Browser, path: str) -> None:
    answer = shut.ask(path)
    assert answer.status == 401
    assert "token" in answer.json["error"]
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "mammo" not in answer.body.decode()


@pytest.mark.parametrize("path", ["/", "/run/mammo"])
def test_a_page_asks_for_the_token_by_a_form(shut: Browser, path: str) -> None:
    answer = shut.ask(path)
    assert answer.status == 401
    assert b'action="/login"' in answer.body


def test_who_shows_the_token_has_a_cookie(shut: Browser) -> None:
    answer = shut.ask("/login", "POST", f"token={TOKEN}&next=%2Frun%2Fmammo")
    assert (answer.status, answer.headers["location"]) == (303, "/run/mammo")
    cookie, *words = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(words)
    assert "Secure" not in words, "the test has no TLS"
    assert TOKEN not in cookie
    assert shut.ask("/api/runs", cookie=cookie).status == 200
    assert shut.ask("/api/runs", cookie=f"{cookie}0").status == 401
    name, _, value = cookie.partition("=")
    until, _, mac = value.partition(".")
    assert shut.ask("/api/runs", cookie=f"{name}={int(until) + 1}.{mac}").status == 401
    assert shut.ask("/api/runs", authorization=f"Bearer {TOKEN}").status == 200
    behind = shut.ask("/login", "POST", f"token={TOKEN}", x_forwarded_proto="https")
    assert "; Secure" in behind.headers["set-cookie"]


@pytest.mark.parametrize(
    "next_", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:1", "/a\nb"]
)
def test_it_sends_a_browser_nowhere_else(shut: Browser, next_: str) -> None:
    from urllib.parse import urlencode

    answer = shut.ask("/login", "POST", urlencode({"token": TOKEN, "next": next_}))
    assert answer.headers["location"] == "/"


def test_a_link_with_the_token_leaves_it_in_no_address(shut: Browser) -> None:
    answer = shut.ask(f"/run/mammo?token={TOKEN}&round=3")
    assert answer.status == 200
    assert 'content="0; url=/run/mammo?round=3"' in answer.body.decode()
    assert TOKEN not in answer.body.decode()
    assert shut.ask("/api/runs", cookie=answer.headers["set-cookie"].partition(";")[0]).status == 200
    assert shut.ask(f"/api/runs?token={TOKEN}").status == 401, "an address of a program may be in a log"


def test_a_wrong_token_is_said(shut: Browser) -> None:
    wrong = shut.ask("/login", "POST", "token=wrong&next=%2Fqueue")
    assert (wrong.status, wrong.headers["location"]) == (303, "/login?wrong=1&next=%2Fqueue")
    assert "set-cookie" not in wrong.headers
    assert "not the token" in shut.ask("/api/runs", authorization="Bearer wrong").json["error"]
    assert shut.ask("/?token=wrong").headers["location"] == "/login?wrong=1&next=%2F"
    assert shut.ask("/login", "POST", "token=" + "x" * 5000).status == 413
    assert shut.ask("/login", "POST", f"token={TOKEN}", sec_fetch_site="cross-site").status == 403


def test_health_is_open_and_tells_nothing(shut: Browser, source: Standin) -> None:
    assert shut.ask("/healthz").json == {"ok": True, "redis": "ok"}
    source.breaks("Redis at secret:6379 is away")
    try:
        assert shut.ask("/healthz").json == {"ok": True, "redis": "away"}
    finally:
        source.breaks("")


@pytest.mark.parametrize("query", ["?verify=1", ""])
def test_a_look_into_a_store_holds_up_nobody_and_is_done_once_for_all_who_ask(
    open_: Browser, source: Standin, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    looks: list[str] = []
    may_end = threading.Event()

    def provenance(run: str, *, verify: bool = False) -> Mapping[str, Any]:
        if verify is (query == "?verify=1"):
            looks.append(run)
            assert may_end.wait(30)
            if run == "other":
                raise RunNotFound("there is no run 'other'")
        return {"verified": verify}

    monkeypatch.setattr(source, "provenance", provenance)
    runs = ["mammo"] * 20 + ["other"] * 2
    other_query = "" if query else "?verify=1"
    with ThreadPoolExecutor(len(runs)) as pool:
        asked = [pool.submit(open_.ask, f"/api/runs/{run}/provenance{query}") for run in runs]
        while not looks:
            assert not may_end.wait(0.01)
        for _ in range(20):
            assert open_.ask("/api/runs/mammo").status == 200
        assert open_.ask(f"/api/runs/mammo/provenance{other_query}").json == {"verified": not query}
        may_end.set()
        answers = [each.result() for each in asked]
    assert [each.json for each in answers[:20]] == [{"verified": bool(query)}] * 20
    assert [each.status for each in answers[20:]] == [404, 404]
    assert len(looks) <= 4, "some may have asked after the first look had ended"
    assert open_.ask(f"/api/runs/mammo/provenance{query}").json == {"verified": bool(query)}, "and it is done again"
