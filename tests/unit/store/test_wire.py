"""Requests to stores that take no upload for now, have a certificate that is refused, or take no ranges."""

from __future__ import annotations

import datetime
import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flavor.certs import Certificates, make_certificates
from flavor.errors import ObjectMissing, StoreUnavailable
from flavor.proxy import Proxy
from flavor.records.signed_urls import SignedUrl, UrlAnswer
from flavor.store.bucket import Bucket, unanswered
from flavor.store.cache import FileCache
from flavor.store.certificate import Refusal
from flavor.store.settings import Endurance, StoreSettings
from flavor.store.signed import SignedStore, _Reading
from flavor.store.url_requests import UrlRequests
from flavor.store.wire import Answer, Silence, Wire
from flavor.tunnel import ProxyFailure
from flavor.watch import Watch

BODY = memoryview(bytes(300_000))


@pytest.fixture
def overloaded() -> Iterator[str]:
    """A store that answers 503 twice, and then takes what it is sent."""
    statuses = iter([503, 503, 200])

    class Store(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(next(statuses))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/key"
        server.shutdown()


def test_what_the_store_did_not_take_is_not_counted_as_uploaded(
    overloaded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    wire, watch = Wire(connect_s=60, silence_s=60, answer_s=60), Watch()
    seen = []
    with watch.phase("uploading", len(BODY)):
        for _ in range(3):
            status = wire.send("PUT", overloaded, {}, BODY, watch).status
            seen.append((status, watch.progress.done))
    assert seen == [(503, 0), (503, 0), (200, len(BODY))]


class Empty(http.server.BaseHTTPRequestHandler):
    """A bucket without objects."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, ssl.SSLContext, Certificates]]:
    """A bucket with TLS, whose CA this machine does not know: its port, and its certificate, which can be replaced."""
    made = make_certificates(tmp_path, hosts=("localhost",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate("server"), made.key("server"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that refuses the handshake
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://localhost:{server.server_address[1]}")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    with server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield server.server_address[1], context, made
        server.shutdown()


def refused(port: int, host: str = "localhost") -> StoreUnavailable:
    with pytest.raises(Silence) as raised:
        Wire(connect_s=9, silence_s=9, answer_s=9).send("GET", f"https://{host}:{port}/o", {}, memoryview(b""), Watch())
    return unanswered("s3://bucket/p", "o", raised.value)


def read_by_obstore() -> None:
    bucket = Bucket("s3://bucket/p", Endurance(patience_s=0.1))
    bucket.ask("o", lambda: bucket.reading.get("o"))


def test_a_certificate_that_is_refused_is_no_outage_and_what_helps_is_named(
    secure: tuple[int, ssl.SSLContext, Certificates], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket of the site's own CA, or a proxy that opens TLS: it would be waited for, a day at a site."""
    port, context, made = secure
    by_wire = refused(port)
    with pytest.raises(StoreUnavailable) as raised:
        read_by_obstore()
    for error in (by_wire, raised.value):
        assert not error.passing
        assert str(error).startswith("store s3://bucket/p: o: its certificate is refused (")
        assert "where a proxy opens TLS, name the CA of the proxy" in str(error)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.certificate("ca")))
    with pytest.raises(ObjectMissing):
        read_by_obstore()
    assert "use the host name that the certificate is for" in str(refused(port, "127.0.0.1"))
    old = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=9)
    make_certificates(made.folder, ("localhost",), days=2, replace=True, now=old)
    context.load_cert_chain(made.certificate("server"), made.key("server"))
    outdated = refused(port)
    assert "has expired): have it renewed, or check this machine's clock" in str(outdated)
    assert outdated.passing, "the service renews it, and no site has to be started again"


def test_a_service_that_takes_no_ranges_is_read_right_after_its_answer_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy may take them off. What came before the cut is not counted twice, nor what lies before the range."""
    monkeypatch.setenv("NO_PROXY", "*")
    content, lengths = bytes(range(256)) * 40, iter([3000])

    class Whole(Empty):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: next(lengths, len(content))])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Whole) as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        signed = (SignedUrl(f"http://127.0.0.1:{server.server_address[1]}/o", {}),)
        store = SignedStore(
            "s3://bucket/p",
            lambda wish: UrlAnswer(wish.id, signed, 60),
            cache=FileCache(tmp_path, 2**30),
            settings=StoreSettings(endurance=Endurance(patience_s=5)),
        )
        assert store.read_unverified("runs/r/global/0001-info-x.json", most=2**20) == content
        reading = _Reading(store._requests, "runs/r/global/0001-info-x.json")
        lengths = iter([3000])
        assert reading.part(2000, 5000) == content[2000:7000]
        assert reading.total == len(content)
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (404, "NoSuchBucket", "store s3://bucket/p: runs/r/global/x: answered 404 (NoSuchBucket); check the bucket"),
        (
            403,
            "ExpiredToken",
            "with 403 (ExpiredToken): the coordinator's credentials have expired: ask the run's operator",
        ),
        (403, "AccessDenied", "with 403 (AccessDenied), for runs/r/global/x: ask the run's operator what"),
    ],
)
def test_a_refusal_of_a_signed_url_is_told_by_the_code_of_the_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, code: str, told: str
) -> None:
    """A bucket that is gone is no object that is missing, and credentials that expired are no wrong clock."""
    monkeypatch.setenv("NO_PROXY", "*")
    content = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()

    class Refusing(Empty):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        signed = (SignedUrl(f"http://127.0.0.1:{server.server_address[1]}/o", {}),)
        requests = UrlRequests(
            "s3://bucket/p", lambda wish: UrlAnswer(wish.id, signed, 60), Endurance(patience_s=0.01), lambda _: None
        )
        with pytest.raises(StoreUnavailable) as raised:
            requests.answered("runs/r/global/x", "GET", requests.reading("runs/r/global/x"))
        server.shutdown()
    assert told in str(raised.value)
    assert "((" not in str(raised.value)


@pytest.mark.parametrize(
    ("listed", "silent", "told"),
    [
        (
            ".example",
            Silence("Name or service not known"),
            "runs/r/global/x: no answer, or half of one (Name or service not known); it may be overloaded or down: try "
            "again later (it is reached directly: NO_PROXY names this host, although HTTPS_PROXY is set)",
        ),
        ("", Silence("", refusal=Refusal("certificate has expired", "have it renewed")), "certificate has expired"),
        (
            "",
            Silence(
                "",
                failure=ProxyFailure(Proxy("http", "p", 1, "HTTPS_PROXY"), "cannot reach bucket.example (503)", "wait"),
            ),
            "(503)",
        ),
    ],
    ids=["NO_PROXY", "certificate", "proxy"],
)
def test_a_site_is_told_why_its_requests_by_signed_urls_get_no_answer(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, listed: str, silent: Silence, told: str
) -> None:
    """While it waits, which it does for a day. It knows the bucket's address from its URLs alone."""
    monkeypatch.setenv("HTTPS_PROXY", "http://p:1")
    monkeypatch.setenv("NO_PROXY", listed)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr("flavor.silence.FIRST_S", 0.05)
    monkeypatch.setattr(Refusal, "passing", True)
    lines: list[str] = []
    monkeypatch.setattr("flavor.store.requests.say", lines.append)

    def send(*_: object, **__: object) -> Answer:
        if lines:
            return Answer(200, {}, b"")
        raise silent

    signed = (SignedUrl("https://bucket.example/o", {}),)
    store = f"s3://told-{request.node.callspec.id}/p"
    requests = UrlRequests(store, lambda wish: UrlAnswer(wish.id, signed, 60), Endurance(patience_s=60), print)
    monkeypatch.setattr(requests._wire, "send", send)
    requests.answered("runs/r/global/x", "GET", requests.reading("runs/r/global/x"))
    assert " has given a request no answer that helps for " in lines[0]
    assert told in lines[0]
    assert lines[-1].endswith("answers again")
