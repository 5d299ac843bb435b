"""What is said of an upload while the store does not take it."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from flavor.store.wire import Wire
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
        threading.Thread(target=server.serve_forever, daemon=True).start()
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
